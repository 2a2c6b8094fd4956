"""Calls functions of a built cache in an emulated processor, on the memory that dyld would leave."""

from __future__ import annotations

import struct

import unicorn
from unicorn import arm64_const, x86_const

from tests.cachewriter.built import BuiltCache

_PAGE = 0x10000
_RETURN = 0x10000
_STACK = 0x40000


class Emulator:
    """One process with the cache mapped, slid by `slide` bytes."""

    def __init__(self, cache: BuiltCache, slide: int = 0) -> None:
        self._arch = cache.options.arch
        self._slide = slide
        if self._arch.startswith("arm64"):
            self._uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        else:
            mode = unicorn.UC_MODE_32 if self._arch == "i386" else unicorn.UC_MODE_64
            self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
        mapped: set[int] = set()
        for address, content, _ in cache.memory(slide):
            low, high = address & ~(_PAGE - 1), (address + len(content) + _PAGE - 1) & ~(_PAGE - 1)
            for page in range(low, high, _PAGE):
                if page not in mapped:
                    self._uc.mem_map(page, _PAGE)
                    mapped.add(page)
            self._uc.mem_write(address, content)
        self._uc.mem_map(_RETURN, _PAGE)
        self._uc.mem_map(_STACK, 4 * _PAGE)

    def call(self, function: int, argument: int) -> int:
        """The int that a function int(int) at an unslid address returns."""
        uc, top = self._uc, _STACK + 3 * _PAGE
        word = argument & 0xFFFFFFFF
        if self._arch.startswith("arm64"):
            uc.reg_write(arm64_const.UC_ARM64_REG_SP, top)
            uc.reg_write(arm64_const.UC_ARM64_REG_X30, _RETURN)
            uc.reg_write(arm64_const.UC_ARM64_REG_X0, word)
            result = arm64_const.UC_ARM64_REG_W0
        elif self._arch == "i386":
            uc.mem_write(top - 20, struct.pack("<5I", _RETURN, word, 0, 0, 0))
            uc.reg_write(x86_const.UC_X86_REG_ESP, top - 20)
            result = x86_const.UC_X86_REG_EAX
        else:
            uc.mem_write(top - 8, struct.pack("<Q", _RETURN))
            uc.reg_write(x86_const.UC_X86_REG_RSP, top - 8)
            uc.reg_write(x86_const.UC_X86_REG_RDI, word)
            result = x86_const.UC_X86_REG_EAX
        uc.emu_start(function + self._slide, _RETURN, count=1_000_000)
        value = int(uc.reg_read(result)) & 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value
