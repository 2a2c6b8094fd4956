"""The registers of a thread in a minidump.

Sources: CONTEXT (winnt.h); for arm64 the two layouts of Breakpad's minidump_format.h.
"""

from __future__ import annotations

import struct

from symcache.dump.formats.registers import FLAVORS
from symcache.macho import CPU_TYPE

__all__ = ["FLAGS_AT", "MAX_CONTEXT", "WHOLE", "arm64_context", "is_partless", "x86_64_context"]

MAX_CONTEXT = 1232
"""Bytes of the longest."""
_X86_ORDER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip")
_X86_CONTEXT = struct.Struct("<56x6HI48x17Q")
"""CONTEXT of AMD64: segment registers at 56, eflags at 68, general registers from 120 on."""
FLAGS_AT = 48
"""Offset of ContextFlags in CONTEXT of AMD64."""
WHOLE = 0x0010_000F
"""CONTEXT_AMD64 with CONTEXT_CONTROL, CONTEXT_INTEGER, CONTEXT_SEGMENTS and CONTEXT_FLOATING_POINT."""
_PARTS = 0xF
_ARM_CONTEXT = struct.Struct("<2I33Q")
"""MDRawContextARM64: flags, cpsr, x0 to x28, fp, lr, sp, pc."""
_ARM_OLD_CONTEXT = struct.Struct("<Q33QI")
"""MDRawContextARM64_Old, whose flags have 64 bits: cpsr stands behind pc."""
_ARM_OLD = 0x8000_0000


def x86_64_context(raw: bytes) -> dict[str, int]:
    """Return the general registers, as a core's thread has them. Raises struct.error."""
    cs, _, _, fs, gs, _, flags, *general = _X86_CONTEXT.unpack_from(raw)
    registers = dict(zip(_X86_ORDER, general, strict=True)) | {"rflags": flags, "cs": cs, "fs": fs, "gs": gs}
    return {name: registers[name] for name in FLAVORS[CPU_TYPE.X86_64].names}


def arm64_context(raw: bytes) -> dict[str, int]:
    """As `x86_64_context`."""
    names = FLAVORS[CPU_TYPE.ARM64].names
    if struct.unpack_from("<I", raw)[0] & _ARM_OLD:
        return dict(zip(names, _ARM_OLD_CONTEXT.unpack_from(raw)[1:], strict=True))
    _, cpsr, *general = _ARM_CONTEXT.unpack_from(raw)
    return dict(zip(names, [*general, cpsr], strict=True))


def is_partless(context: bytes) -> bool:
    """Return whether the flags of an x86_64 context name none of its parts, as those by Breakpad on macOS do."""
    return not struct.unpack_from("<I", context, FLAGS_AT)[0] & _PARTS
