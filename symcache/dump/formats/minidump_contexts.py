"""The registers of a thread in a minidump, and the same as LLDB reads them.

Sources: CONTEXT (winnt.h); for arm64 the two layouts of Breakpad's minidump_format.h.
"""

from __future__ import annotations

import struct

from symcache.dump.formats.registers import FLAVORS
from symcache.macho import CPU_TYPE

__all__ = ["MAX_CONTEXT", "context_for_lldb", "read_context"]

MAX_CONTEXT = 1232
"""Bytes of the longest, without the extended states that may follow it."""
_X86_ORDER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip")
_X86_CONTEXT = struct.Struct("<56x6HI48x17Q")
"""CONTEXT of AMD64: segment registers at 56, eflags at 68, general registers from 120 on."""
_X86_FLAGS_AT = 48
_X86_NEEDED = 0x0010_0003
"""CONTEXT_AMD64 with CONTEXT_CONTROL and CONTEXT_INTEGER: LLDB takes what the flags do not name for zero."""
_X86_WHOLE = 0x0010_000F
"""Likewise with CONTEXT_SEGMENTS and CONTEXT_FLOATING_POINT."""
_ARM_CONTEXT = struct.Struct("<2I33Q")
"""MDRawContextARM64: flags, cpsr, x0 to x28, fp, lr, sp, pc; then 32 vectors, fpcr, fpsr."""
_ARM_SIZE = 912
_ARM = 0x0040_0000
_ARM_OLD_CONTEXT = struct.Struct("<Q33QI")
"""MDRawContextARM64_Old, whose flags have 64 bits: cpsr, fpsr, fpcr and the vectors stand behind pc."""
_ARM_OLD_SIZES = frozenset({796, 800})
"""Of the old one, packed and not."""
_ARM_OLD = 0x8000_0000
_ARM_OLD_WHOLE = 0x8000_0006
_ARM_VECTORS_AT, _ARM_VECTORS = 272, 512


def read_context(cputype: int, raw: bytes) -> dict[str, int]:
    """Return the general registers, as a core's thread has them. Raises struct.error."""
    names = FLAVORS[cputype].names
    if cputype == CPU_TYPE.X86_64:
        cs, _, _, fs, gs, _, flags, *general = _X86_CONTEXT.unpack_from(raw)
        registers = dict(zip(_X86_ORDER, general, strict=True)) | {"rflags": flags, "cs": cs, "fs": fs, "gs": gs}
        return {name: registers[name] for name in names}
    if _is_old(raw):
        return dict(zip(names, _ARM_OLD_CONTEXT.unpack_from(raw)[1:], strict=True))
    _, cpsr, *general = _ARM_CONTEXT.unpack_from(raw)
    return dict(zip(names, [*general, cpsr], strict=True))


def context_for_lldb(cputype: int, raw: bytes) -> bytes:
    """Return the context as LLDB reads it; what it reads anyway stays as it is. An empty one becomes one of zeros.

    Of x86_64 it takes the parts that the flags name: Breakpad's on macOS name none. Of arm64 it knows the old layout.
    """
    if cputype == CPU_TYPE.X86_64:
        data = bytearray(raw.ljust(MAX_CONTEXT, b"\0"))
        (flags,) = struct.unpack_from("<I", data, _X86_FLAGS_AT)
        if flags & _X86_NEEDED != _X86_NEEDED:
            struct.pack_into("<I", data, _X86_FLAGS_AT, _X86_WHOLE)
        return bytes(data)
    if not raw or _is_old(raw):
        return raw or bytes(min(_ARM_OLD_SIZES))
    _, cpsr, *general = _ARM_CONTEXT.unpack_from(raw)
    rest = raw[_ARM_VECTORS_AT:].ljust(_ARM_VECTORS + 8, b"\0")
    fpcr, fpsr = struct.unpack_from("<2I", rest, _ARM_VECTORS)
    return _ARM_OLD_CONTEXT.pack(_ARM_OLD_WHOLE, *general, cpsr) + struct.pack("<2I", fpsr, fpcr) + rest[:_ARM_VECTORS]


def _is_old(raw: bytes) -> bool:
    """Return whether an arm64 context has the old layout: size and flags tell, the dump's processor does not."""
    if len(raw) == _ARM_SIZE or len(raw) in _ARM_OLD_SIZES:
        return len(raw) != _ARM_SIZE
    (flags,) = struct.unpack_from("<I", raw)
    return not flags & _ARM and (bool(flags & _ARM_OLD) or len(raw) < _ARM_SIZE)
