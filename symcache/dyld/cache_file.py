"""One file of a shared cache, mapped into memory and checked against its own header."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

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
    """Give each mapping its slide info where an old header has one field for all of them.

    Until 10.15 that field means the second mapping. Where it does not fit that one, or is no slide info at all, structs
    are looked for there and at the start of __LINKEDIT, where builders put them, and one is taken for a mapping's only
    if it has exactly as many pages.
    """
    at = header.slide_info_offset
    if not at or header.mapping_with_slide_offset:
        return mappings, ()
    second = next((m for m in mappings if m.slide_info_offset), None)
    shape = _slide_shape(data, at)
    if second is None or (shape and (shape.version == 1 or shape.pages <= second.size <= shape.pages + 0x4000)):
        return mappings, ()
    found = [m._replace(slide_info_offset=0, slide_info_size=0) for m in mappings]
    for start in (at, *(m.file_offset for m in mappings if m.name == "__LINKEDIT")):
        place = start
        while shape := _slide_shape(data, place):
            for number, mapping in enumerate(found):
                if mapping.max_prot & 2 and not mapping.slide_info_offset and mapping.size == shape.pages:
                    found[number] = mapping._replace(slide_info_offset=place, slide_info_size=shape.size)
                    break
            else:
                break
            place += shape.size + -shape.size % 8
    if not any(m.slide_info_offset for m in found):
        return mappings, ()
    return tuple(found), (f"{path}: slideInfoOffset {at:#x} is not right; slide info was found by its number of pages",)


class _SlideShape(NamedTuple):
    version: int
    size: int
    """Of the struct and its tables, in bytes."""
    pages: int
    """Bytes of the pages that it describes."""


def _slide_shape(data: mmap.mmap, at: int) -> _SlideShape | None:
    """Return what a slide info at a file offset says of itself, or None when there is none."""
    if at + 0x28 > len(data):
        return None
    version, page, first, second, third, fourth = struct.unpack_from("<6I", data, at)
    if version == 1:  # a table of bitmaps, a page of 4 KiB each
        return _SlideShape(1, third + fourth * 128, second * 0x1000)
    if page not in {0x1000, 0x4000}:
        return None
    if version in {2, 4}:
        return _SlideShape(version, max(0x28, first + second * 2, third + fourth * 2), second * page)
    return _SlideShape(version, 0x18 + first * 2, first * page) if version in {3, 5} else None
