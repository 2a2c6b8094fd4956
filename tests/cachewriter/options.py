"""What a shared cache is to look like: the arguments of `build_cache`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

__all__ = ["HEADER_SIZES", "CacheOptions", "DylibInput"]

# Every value of mappingOffset that a published or observed builder wrote.
HEADER_SIZES = (0x28, 0x48, 0x68, 0x70, 0x98, 0xF8, 0x138, 0x140, 0x1C8, 0x200, 0x208, 0x228, 0x238)

CPU = {
    "i386": (7, 3),
    "x86_64": (0x01000007, 3),
    "x86_64h": (0x01000007, 8),
    "arm64": (0x0100000C, 0),
    "arm64e": (0x0100000C, 0x80000002),
    "arm64ex1": (0x0100000C, 0x8000000C),
    "arm64_32": (0x0200000C, 1),
}
SPLITS = {
    "single": (),
    "v1": (".1", ".2"),
    "v2": (".01", ".02"),
    "v2-kinds": (".01", ".02.dylddata", ".03.dyldreadonly", ".04.dyldlinkedit"),
}
KIND_SUFFIXES = (".dylddata", ".dyldreadonly", ".dyldlinkedit")


@dataclass(frozen=True)
class DylibInput:
    """A thin Mach-O dylib or dylinker and its install path in the cache."""

    path: str
    file: Path


@dataclass(frozen=True)
class CacheOptions:
    """Architecture, format and layout of a cache.

    `slide_version`: 1 to 5, 0 for plain pointers without slide info, None for what Apple's builder of that era and
    architecture took. `split`: a name of `SPLITS` or the suffixes themselves; those that contain `.dylddata`,
    `.dyldreadonly` or `.dyldlinkedit` hold only that, all others take their share of the images. `aliases` maps alias
    paths to install paths. Two layouts of the same dylibs differ by `layout_seed` in the order of images and the
    padding between them. `authenticated` is the share of rebased pointers in writable segments that an arm64e cache
    marks as signed, `high8` the share that carries a tag in the top byte. `redact` keeps one `<redacted>` entry for
    each unmapped local of `__text`, as Apple's builder does. `commands` are (cmd, offset, size) of more
    linkedit_data_commands for every image; their offset counts from the start of its `__LINKEDIT` in the cache.
    """

    arch: str = "x86_64"
    header_size: int = 0x228
    slide_version: int | None = None
    split: str | tuple[str, ...] = "single"
    unmapped_locals: Literal["same-file", ".symbols"] | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    base: int | None = None
    layout_seed: int = 0
    build: str = "22G120"
    platform: int = 1
    alt_platform: int = 0
    os_version: tuple[int, int, int] = (13, 5, 0)
    cache_type: int = 1
    sub_type: int = 1
    development: bool = False
    driverkit: bool = False
    simulator: bool = False
    magic: str | bytes | None = None
    dylibs_trie: bool = True
    authenticated: float = 0.0
    high8: float = 0.0
    redact: bool = True
    slide_page_size: int | None = None
    delta_mask: int | None = None
    page_aligned: bool = False
    commands: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)  # UUIDs are made of the rest

    @property
    def suffixes(self) -> tuple[str, ...]:
        return SPLITS[self.split] if isinstance(self.split, str) else self.split

    @property
    def cpu(self) -> tuple[int, int]:
        return CPU[self.arch]

    @property
    def intel(self) -> bool:
        return self.arch in ("i386", "x86_64", "x86_64h")

    @property
    def is64(self) -> bool:
        return self.arch not in ("i386", "arm64_32")

    @property
    def page(self) -> int:
        return 0x1000 if self.intel and self.header_size < 0x1C8 else 0x4000

    @property
    def slide(self) -> int:
        """The version of the slide info, 0 for none."""
        if self.slide_version is not None:
            return self.slide_version
        if self.header_size < 0x48 or self.simulator:
            return 0
        if self.arch == "i386":
            return 1 if self.header_size < 0x98 else 0
        if self.arch == "arm64_32":
            return 1 if self.header_size >= 0x200 else 4
        if self.arch.startswith("arm64e"):
            return 5 if self.header_size >= 0x200 else 3
        return 1 if self.intel and self.header_size < 0x98 else 2

    @property
    def magic_bytes(self) -> bytes:
        if isinstance(self.magic, bytes):
            return self.magic.ljust(16, b"\0")[:16]
        text = self.magic or self.arch
        return b"dyld_v1" + text.encode().rjust(8) + b"\0"

    @property
    def file_name(self) -> str:
        arch = "arm64e_x1" if self.arch == "arm64ex1" else self.arch
        return f"dyld{'_sim' if self.simulator else ''}_shared_cache_{arch}"

    @property
    def header_platform(self) -> int:
        """The platform number of the header: DriverKit's for a DriverKit cache, whatever else is asked for."""
        return 10 if self.driverkit else self.platform

    @property
    def folder(self) -> PurePosixPath:
        """Where a system of that era keeps such a cache, from its root."""
        if self.driverkit:
            return PurePosixPath("System/DriverKit/System/Library/dyld")
        if self.simulator:
            return PurePosixPath("Library/Developer/CoreSimulator/Caches/dyld")
        if self.platform != 1:
            return PurePosixPath("System/Library/Caches/com.apple.dyld")
        if self.header_size < 0x140:
            return PurePosixPath("private/var/db/dyld")
        if self.header_size < 0x200:
            return PurePosixPath("System/Library/dyld")
        return PurePosixPath("System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld")

    def check(self) -> None:
        """Refuse what no reader could make sense of."""
        if self.suffixes and self.header_size < 0x1C8:
            raise ValueError(f"a header of {self.header_size:#x} bytes cannot name subcaches")
        if self.unmapped_locals == "same-file" and self.header_size < 0x68:
            raise ValueError(f"a header of {self.header_size:#x} bytes has no localSymbolsOffset")
        if self.unmapped_locals == ".symbols" and self.header_size < 0x1C8:
            raise ValueError(f"a header of {self.header_size:#x} bytes has no symbolFileUUID")
        if self.slide and self.header_size < 0x48:
            raise ValueError("a header of 0x28 bytes has no slide info")
        if self.slide in (3, 5) and not self.is64:
            raise ValueError(f"slide info version {self.slide} is for 64-bit pointers")
        if self.slide == 4 and self.is64:
            raise ValueError("slide info version 4 is for 32-bit pointers")
        if any(len(s) > 31 for s in self.suffixes):
            raise ValueError("a subcache suffix has at most 31 characters")
        for suffix, expected in zip(self.suffixes, range(1, 99), strict=False):
            if self.header_size == 0x1C8 and suffix != f".{expected}":
                raise ValueError("24-byte subcache entries imply the suffixes .1, .2, ...")
