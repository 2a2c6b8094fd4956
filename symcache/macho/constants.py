"""Numbers of <mach-o/loader.h>, <mach-o/fat.h> and <mach/machine.h> that identification needs."""

from __future__ import annotations

__all__ = [
    "CPU_SUBTYPE_MASK",
    "FAT_MAGIC",
    "FAT_MAGIC_64",
    "LC_ID_DYLIB",
    "LC_ID_DYLINKER",
    "LC_SEGMENT",
    "LC_SEGMENT_64",
    "LC_SYMTAB",
    "LC_UUID",
    "MH_BUNDLE",
    "MH_CORE",
    "MH_DSYM",
    "MH_DYLIB",
    "MH_DYLINKER",
    "MH_EXECUTE",
    "MH_KEXT_BUNDLE",
    "MH_MAGIC",
    "MH_MAGIC_64",
    "arch_name",
]

MH_MAGIC = 0xFEEDFACE
MH_MAGIC_64 = 0xFEEDFACF
FAT_MAGIC = 0xCAFEBABE
FAT_MAGIC_64 = 0xCAFEBABF

MH_EXECUTE = 2
MH_CORE = 4
MH_DYLIB = 6
MH_DYLINKER = 7
MH_BUNDLE = 8
MH_DSYM = 10
MH_KEXT_BUNDLE = 11

LC_SEGMENT = 0x1
LC_SYMTAB = 0x2
LC_ID_DYLIB = 0xD
LC_ID_DYLINKER = 0xF
LC_SEGMENT_64 = 0x19
LC_UUID = 0x1B

CPU_SUBTYPE_MASK = 0x00FF_FFFF
"""Without the capability byte (CPU_SUBTYPE_LIB64, the pointer-authentication ABI version)."""

_X86, _X86_64, _ARM, _ARM64, _ARM64_32 = 7, 0x0100_0007, 12, 0x0100_000C, 0x0200_000C
_POWERPC, _POWERPC64 = 18, 0x0100_0012

_NAMES = {
    (_X86, 3): "i386",
    (_X86_64, 3): "x86_64",
    (_X86_64, 8): "x86_64h",
    (_ARM, 6): "armv6",
    (_ARM, 9): "armv7",
    (_ARM, 10): "armv7f",
    (_ARM, 11): "armv7s",
    (_ARM, 12): "armv7k",
    (_ARM64, 0): "arm64",
    (_ARM64, 1): "arm64",
    (_ARM64, 2): "arm64e",
    (_ARM64, 3): "arm64.x1",
    (_ARM64, 12): "arm64e.x1",
    (_ARM64_32, 0): "arm64_32",
    (_ARM64_32, 1): "arm64_32",
    (_POWERPC, 0): "ppc",
    (_POWERPC64, 0): "ppc64",
}


def arch_name(cputype: int, cpusubtype: int) -> str:
    """Return Apple's name of an architecture (`arm64e`), or `cpu-0x…-0x…` for one that has none here yet.

    The capability byte of `cpusubtype` is ignored.
    """
    subtype = cpusubtype & CPU_SUBTYPE_MASK
    return _NAMES.get((cputype, subtype), f"cpu-{cputype:#x}-{subtype:#x}")
