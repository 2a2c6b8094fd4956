"""One file of a shared cache, mapped into memory and checked against its own header."""

from __future__ import annotations

import mmap
import stat
from dataclasses import dataclass
from pathlib import Path

from symcache.dyld.header import Header, Mapping, parse_header, parse_mappings
from symcache.errors import SharedCacheError

__all__ = ["CacheFilePart", "open_part"]


@dataclass(frozen=True, slots=True)
class CacheFilePart:
    """A main file, sub-cache or `.symbols` file. `data` is the whole file, read-only."""

    path: Path
    suffix: str
    """Empty for the main file."""
    header: Header
    mappings: tuple[Mapping, ...]
    data: mmap.mmap

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return len(self.data)

    def slide_version(self, mapping: Mapping) -> int:
        """Return the version of one mapping's slide info; 0 where it has none, or none that can be read."""
        at = mapping.slide_info_offset
        if not at or mapping.slide_info_size < 4 or at + 4 > len(self.data):
            return 0
        return int.from_bytes(self.data[at : at + 4], "little")

    def bounded(self, offset: int, size: int, what: str) -> memoryview:
        """Return `size` bytes at a file offset. Raises SharedCacheError when they are not all there."""
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise SharedCacheError(
                f"{self.path}: {what} at {offset:#x}, {size:#x} bytes, lies beyond the file of {len(self.data):#x}",
                hint="the copy is cut: copy the file again",
            )
        return memoryview(self.data)[offset : offset + size]


def open_part(path: Path, suffix: str = "", *, cut: bool = False, mapped: bool = True) -> CacheFilePart:
    """Map one cache file. Raises SharedCacheError when it is not one, or is shorter than its mappings say.

    With `cut` it may be shorter, and its mappings end where it does. A `.symbols` file is not `mapped`: it describes no
    memory of its own beyond its header, so its mappings are not checked and must not be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise SharedCacheError(f"{path}: is no ordinary file", hint="name the main file, e.g. dyld_shared_cache_arm64e")
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise SharedCacheError(f"{path}: is empty", hint="copy the file again") from None
    try:
        header = parse_header(data, str(path))
        mappings = parse_mappings(data, header, str(path))
        if cut:
            left = [min(m.size, max(0, len(data) - m.file_offset)) for m in mappings]
            mappings = tuple(m._replace(size=size) for m, size in zip(mappings, left, strict=True))
        for mapping in mappings if mapped else ():
            if mapping.size and mapping.file_offset + mapping.size > len(data):
                raise SharedCacheError(
                    f"{path}: has {len(data):#x} bytes, but its {mapping.name} mapping ends at"
                    f" {mapping.file_offset + mapping.size:#x}",
                    hint="the copy is cut: copy the file again",
                )
        if mapped and sum(m.size for m in mappings) > 2 * len(data):
            # Every byte is mapped once; what is mapped again and again would be decoded as often.
            raise SharedCacheError(f"{path}: its mappings are larger together than its {len(data):#x} bytes")
        if header.code_signature_offset + header.code_signature_size > len(data) and not cut:
            raise SharedCacheError(
                f"{path}: has {len(data):#x} bytes, but its code signature ends at"
                f" {header.code_signature_offset + header.code_signature_size:#x}",
                hint="the copy is cut: copy the file again",
            )
    except BaseException:
        data.close()
        raise
    return CacheFilePart(path, suffix, header, mappings, data)
