"""File names of shared caches: which are main files, and what companions a main file names."""

from __future__ import annotations

import mmap
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.dyld.header import Header, parse_header, parse_subcaches
from symcache.macho import arch_name

__all__ = [
    "Companion",
    "arch_of_images",
    "base_name",
    "cache_arch",
    "canonical_arch",
    "companions",
    "companions_of",
    "find_caches",
    "is_cache_name",
    "is_main_name",
]

_MAIN = re.compile(r"dyld(_sim)?_shared_cache_[A-Za-z0-9_]+(\.development)?\Z")
_VARIANT = re.compile(r"(arm64e?)[_.]?(x[0-9]+)")
_DEVELOPMENT = ".development"
_UNIVERSAL = 2


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that belongs to a cache."""

    name: str
    uuid: UUID | None
    """What its own header must say; None where the main file has only zeros for it."""
    suffix: str
    vm_offset: int | None
    """Where its first mapping must lie, from the main file's; None for `.symbols`."""
    optional: bool
    """A missing `.symbols` costs names of local functions; a missing sub-cache makes the cache unreadable."""


def is_cache_name(name: str) -> bool:
    """Return whether a file of this name is a main cache file: the only kind to open.

    Sub-caches (`.01`), maps (`.map`) and Rosetta's translations (`aot_shared_cache`) are not.
    """
    return _MAIN.fullmatch(name) is not None


def is_main_name(name: str) -> bool:
    """Return whether a file that begins as one of a shared cache may be a main file: all others have a suffix."""
    return "." not in name.removesuffix(_DEVELOPMENT)


def canonical_arch(arch: str) -> str:
    """Return Apple's toolchain name of an architecture as a file's name (`arm64e_x1`) or magic (`arm64ex1`) has it."""
    variant = _VARIANT.fullmatch(arch)
    return f"{variant[1]}.{variant[2]}" if variant else arch


def arch_of_images(counted: Counter[str]) -> str:
    """Return a cache's architecture by those of its images: an x86_64h cache also holds plain x86_64 ones."""
    return "x86_64h" if "x86_64h" in counted else max(counted, key=counted.__getitem__, default="")


def cache_arch(header: Header) -> str:
    """Return the architecture of a cache by its header: by its processor where that has a name, else by its magic."""
    named = arch_name(header.cputype, header.cpusubtype) if header.cputype else ""
    return canonical_arch(header.arch) if not named or named.startswith("cpu-") else named


def find_caches(directory: Path) -> list[Path]:
    """Return the main cache files in a folder, sorted by name; none when there is no such folder."""
    try:
        return sorted(Path(e.path) for e in os.scandir(directory) if is_cache_name(e.name) and e.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def base_name(name: str, header: Header) -> str:
    """Return what companions' suffixes are appended to: a development main shares those of the customer's."""
    return name.removesuffix(_DEVELOPMENT) if header.cache_type == _UNIVERSAL else name


def companions_of(path: Path, head: bytes | mmap.mmap, header: Header) -> list[Companion]:
    """As `companions`, for a header that is parsed already; errors name the whole path."""
    base = base_name(path.name, header)
    found = [
        Companion(base + entry.suffix, entry.uuid, entry.suffix, entry.vm_offset, False)
        for entry in parse_subcaches(head, header, str(path))
    ]
    if header.symbol_file_uuid:
        symbols = path.name.removesuffix(_DEVELOPMENT) + ".symbols"
        found.append(Companion(symbols, header.symbol_file_uuid, ".symbols", None, True))
    return found


def companions(name: str, head: bytes | mmap.mmap) -> list[Companion]:
    """Return the companions that the main file `name` needs beside it, from its first `HEAD_SIZE` bytes.

    Names come from the header, never from a guess. Raises SharedCacheError.
    """
    return companions_of(Path(name), head, parse_header(head, name))
