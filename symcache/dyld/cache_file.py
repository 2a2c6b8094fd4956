"""One file of a shared cache, mapped into memory and checked against its own header."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.dyld.header import Header, Mapping, parse_header, parse_mappings
from symcache.errors import SharedCacheError

__all__ = ["CacheFilePart", "open_part"]

_SLIDE_VERSIONS = range(1, 6)


@dataclass(frozen=True, slots=True)
class CacheFilePart:
    """A main file, sub-cache or `.symbols` file. `data` is the whole file, read-only."""

    path: Path
    suffix: str
    """Empty for the main file."""
    header: Header
    mappings: tuple[Mapping, ...]
    data: mmap.mmap
    notes: tuple[str, ...] = ()
    """What is odd about the file but can be coped with."""

    @property
    def uuid(self) -> UUID | None:
        """Of this file."""
        return self.header.uuid

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


def open_part(path: Path, suffix: str = "") -> CacheFilePart:
    """Map one cache file. Raises SharedCacheError when it is not one, or is shorter than its mappings say."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise SharedCacheError(f"{path}: is empty", hint="copy the file again") from None
    try:
        header = parse_header(data, str(path))
        mappings = parse_mappings(data, header, str(path))
        # A `.symbols` file describes no memory of its own beyond its header.
        for mapping in mappings:
            if mapping.file_offset + mapping.size > len(data) and suffix != ".symbols":
                raise SharedCacheError(
                    f"{path}: has {len(data):#x} bytes, but its {mapping.name} mapping ends at"
                    f" {mapping.file_offset + mapping.size:#x}",
                    hint="the copy is cut: copy the file again",
                )
        if header.code_signature_offset + header.code_signature_size > len(data):
            raise SharedCacheError(
                f"{path}: has {len(data):#x} bytes, but its code signature ends at"
                f" {header.code_signature_offset + header.code_signature_size:#x}",
                hint="the copy is cut: copy the file again",
            )
        mappings, notes = _find_slide_info(path, header, mappings, data)
    except BaseException:
        data.close()
        raise
    return CacheFilePart(path, suffix, header, mappings, data, notes)


def _find_slide_info(
    path: Path, header: Header, mappings: tuple[Mapping, ...], data: mmap.mmap
) -> tuple[tuple[Mapping, ...], tuple[str, ...]]:
    """Look for slide info where builders put it, when the one field of an old header points at something else.

    Until 10.15 the header has room for the slide info of one mapping only. Where that is none, the structs are
    expected at the start of __LINKEDIT, and one is taken for a mapping's only if it has exactly as many pages.
    """
    at, size = header.slide_info_offset, header.slide_info_size
    if not at or size < 4 or any(m.slide_info_offset not in {0, at} for m in mappings):
        return mappings, ()
    if int.from_bytes(data[at : at + 4], "little") in _SLIDE_VERSIONS:
        return mappings, ()
    found = [m._replace(slide_info_offset=0, slide_info_size=0) for m in mappings]
    place = next((m.file_offset for m in mappings if m.name == "__LINKEDIT"), 0)
    while place and place + 0x28 <= len(data):
        version, page, starts_at, starts, extras_at, extras = struct.unpack_from("<6I", data, place)
        if version not in {2, 4}:
            break
        length = max(0x28, starts_at + starts * 2, extras_at + extras * 2)
        for number, mapping in enumerate(found):
            if mapping.max_prot & 2 and not mapping.slide_info_offset and mapping.size == starts * page:
                found[number] = mapping._replace(slide_info_offset=place, slide_info_size=length)
                break
        else:
            break
        place += length + -length % 8
    if not any(m.slide_info_offset for m in found):
        return mappings, ()
    return tuple(found), (f"{path}: slideInfoOffset {at:#x} is no slide info; it was found at the start of __LINKEDIT",)
