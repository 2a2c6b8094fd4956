"""Numbers of <mach-o/loader.h>, <mach-o/nlist.h> and <mach/machine.h>: Apple's names, with a dot behind the prefix."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CPU_SUBTYPE_X86_64_ALL", "CPU_TYPE", "LC", "MH", "PLATFORMS", "N", "S", "arch_name"]


class MH(IntEnum):
    """Of the header: its magic, the file type, and one of the flags."""

    MAGIC = 0xFEED_FACE
    MAGIC_64 = 0xFEED_FACF
    EXECUTE = 2
    CORE = 4
    DYLIB = 6
    DYLINKER = 7
    BUNDLE = 8
    DSYM = 10
    KEXT_BUNDLE = 11
    FILESET = 12
    DYLIB_IN_CACHE = 0x8000_0000


class LC(IntEnum):
    """Load commands, without the `LC_` of their names; the highest bit is LC_REQ_DYLD (<mach-o/loader.h>)."""

    SEGMENT = 0x1
    SYMTAB = 0x2
    SYMSEG = 0x3
    THREAD = 0x4
    UNIXTHREAD = 0x5
    LOADFVMLIB = 0x6
    IDFVMLIB = 0x7
    IDENT = 0x8
    FVMFILE = 0x9
    PREPAGE = 0xA
    DYSYMTAB = 0xB
    LOAD_DYLIB = 0xC
    ID_DYLIB = 0xD
    LOAD_DYLINKER = 0xE
    ID_DYLINKER = 0xF
    PREBOUND_DYLIB = 0x10
    ROUTINES = 0x11
    SUB_FRAMEWORK = 0x12
    SUB_UMBRELLA = 0x13
    SUB_CLIENT = 0x14
    SUB_LIBRARY = 0x15
    TWOLEVEL_HINTS = 0x16
    PREBIND_CKSUM = 0x17
    LOAD_WEAK_DYLIB = 0x8000_0018
    SEGMENT_64 = 0x19
    ROUTINES_64 = 0x1A
    UUID = 0x1B
    RPATH = 0x8000_001C
    CODE_SIGNATURE = 0x1D
    SEGMENT_SPLIT_INFO = 0x1E
    REEXPORT_DYLIB = 0x8000_001F
    LAZY_LOAD_DYLIB = 0x20
    ENCRYPTION_INFO = 0x21
    DYLD_INFO = 0x22
    DYLD_INFO_ONLY = 0x8000_0022
    LOAD_UPWARD_DYLIB = 0x8000_0023
    VERSION_MIN_MACOSX = 0x24
    VERSION_MIN_IPHONEOS = 0x25
    FUNCTION_STARTS = 0x26
    DYLD_ENVIRONMENT = 0x27
    MAIN = 0x8000_0028
    DATA_IN_CODE = 0x29
    SOURCE_VERSION = 0x2A
    DYLIB_CODE_SIGN_DRS = 0x2B
    ENCRYPTION_INFO_64 = 0x2C
    LINKER_OPTION = 0x2D
    LINKER_OPTIMIZATION_HINT = 0x2E
    VERSION_MIN_TVOS = 0x2F
    VERSION_MIN_WATCHOS = 0x30
    NOTE = 0x31
    BUILD_VERSION = 0x32
    DYLD_EXPORTS_TRIE = 0x8000_0033
    DYLD_CHAINED_FIXUPS = 0x8000_0034
    FILESET_ENTRY = 0x8000_0035
    ATOM_INFO = 0x36
    FUNCTION_VARIANTS = 0x37
    FUNCTION_VARIANT_FIXUPS = 0x38
    TARGET_TRIPLE = 0x39
    LAZY_LOAD_DYLIB_INFO = 0x3A


class S(IntEnum):
    """Types and attributes of a section, and the mask of its type (SECTION_TYPE)."""

    ZEROFILL = 0x1
    SYMBOL_STUBS = 0x8
    COALESCED = 0xB
    GB_ZEROFILL = 0xC
    THREAD_LOCAL_ZEROFILL = 0x12
    TYPE = 0xFF
    ATTR_SOME_INSTRUCTIONS = 0x400
    ATTR_PURE_INSTRUCTIONS = 0x8000_0000


class N(IntEnum):
    """Types and masks in `n_type` of a symbol; the mask TYPE has no bits but those of SECT."""

    EXT = 0x01
    INDR = 0x0A
    SECT = 0x0E
    TYPE = SECT
    STAB = 0xE0


class CPU_TYPE(IntEnum):
    """Processors."""

    X86 = 7
    X86_64 = 0x0100_0007
    ARM = 12
    ARM64 = 0x0100_000C
    ARM64_32 = 0x0200_000C
    POWERPC = 18
    POWERPC64 = 0x0100_0012


PLATFORMS = {
    1: "macOS", 2: "iOS", 3: "tvOS", 4: "watchOS", 5: "bridgeOS", 6: "Mac Catalyst", 7: "iOS simulator",
    8: "tvOS simulator", 9: "watchOS simulator", 10: "DriverKit", 11: "visionOS", 12: "visionOS simulator",
}  # fmt: skip
"""Names of platforms (PLATFORM_…), as LC_BUILD_VERSION and shared caches number them."""
CPU_SUBTYPE_X86_64_ALL = 3
"""mach/machine.h: any x86_64."""
_CPU_SUBTYPE_MASK = 0x00FF_FFFF
"""Without the capability byte (CPU_SUBTYPE_LIB64, the pointer-authentication ABI version)."""

_NAMES: dict[tuple[int, int], str] = {
    (CPU_TYPE.X86, 3): "i386",
    (CPU_TYPE.X86_64, CPU_SUBTYPE_X86_64_ALL): "x86_64",
    (CPU_TYPE.X86_64, 4): "x86_64",
    (CPU_TYPE.X86_64, 8): "x86_64h",
    (CPU_TYPE.ARM, 0): "arm",
    (CPU_TYPE.ARM, 6): "armv6",
    (CPU_TYPE.ARM, 9): "armv7",
    (CPU_TYPE.ARM, 10): "armv7f",
    (CPU_TYPE.ARM, 11): "armv7s",
    (CPU_TYPE.ARM, 12): "armv7k",
    (CPU_TYPE.ARM64, 0): "arm64",
    (CPU_TYPE.ARM64, 1): "arm64",
    (CPU_TYPE.ARM64, 2): "arm64e",
    (CPU_TYPE.ARM64, 3): "arm64.x1",
    (CPU_TYPE.ARM64, 12): "arm64e.x1",
    (CPU_TYPE.ARM64_32, 0): "arm64_32",
    (CPU_TYPE.ARM64_32, 1): "arm64_32",
    (CPU_TYPE.POWERPC, 0): "ppc",
    (CPU_TYPE.POWERPC64, 0): "ppc64",
}


def arch_name(cputype: int, cpusubtype: int) -> str:
    """Return Apple's name of an architecture (`arm64e`), or `cpu-0x…-0x…` for one that has none here yet.

    The capability byte of `cpusubtype` is ignored.
    """
    subtype = cpusubtype & _CPU_SUBTYPE_MASK
    return _NAMES.get((cputype, subtype), f"cpu-{cputype:#x}-{subtype:#x}")
