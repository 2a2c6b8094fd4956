"""Slide info of caches whose header has one field for all of it.

Until 10.15 the field means the second mapping, the only writable one there was. A cache of several that has such a
header is not what any builder wrote, but its pointers are chained all the same: structs are looked for where the field
points and at the start of every __LINKEDIT, where builders put them, and one is a mapping's if it has as many pages.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import Mapping
from symcache.dyld.slide import read_slide_info
from symcache.errors import SharedCacheError

__all__ = ["with_slide_info"]

_ALIGNMENTS = (1, 4, 8, 0x10, 0x80, 0x1000, 0x4000)
"""Of what may follow a struct. dyld's builder packs structs of version 5 without any."""
_MAX_STRUCTS = 20
_SAMPLE = 1 << 20
"""Bytes of a mapping that are looked at to find out which of several structs is its own."""
_ADDRESS = np.uint64(0x00FF_FFFF_FFFF_FFFF)
_WRITE, _EXECUTE = 2, 4


class _Shape(NamedTuple):
    """What a slide info says of itself."""

    at: int
    """File offset."""
    version: int
    size: int
    """Of the struct and its tables, in bytes."""
    pages: int
    """Bytes of the pages that it describes."""


def with_slide_info(part: CacheFilePart, main: CacheFilePart | None = None) -> CacheFilePart:
    """Return `part` with each mapping's own slide info; as it is where its header names them all.

    Its pointers may lead into any file of the cache, of which the main file tells the size: `main`, or `part` itself.
    """
    mappings, header = part.mappings, part.header
    writable = [number for number, m in enumerate(mappings) if m.max_prot & _WRITE and m.size]
    if (header.mapping_with_slide_offset and header.mapping_with_slide_count) or not writable:
        return part
    documented = _shape(part.data, header.slide_info_offset) if header.slide_info_offset else None
    second = mappings[1].size if len(mappings) > 1 else 0
    if documented and (documented.version == 1 or documented.pages <= second <= documented.pages + 0x4000):
        if writable == [1]:
            return part
    else:
        documented = None
    ranges = [(m.address, m.size) for m in mappings]
    ranges.append(((main or part).mappings[0].address, (main or part).header.shared_region_size))
    found = _assign(part, list(_shapes(part, {mappings[i].size for i in writable})), writable, ranges)
    if documented and documented.at not in {shape.at for shape in found.values()}:
        found.setdefault(1, documented)
    if not found or found == {1: documented}:
        return part
    fixed = [m._replace(slide_info_offset=0, slide_info_size=0) for m in mappings]
    for number, shape in found.items():
        fixed[number] = mappings[number]._replace(slide_info_offset=shape.at, slide_info_size=shape.size)
    note = (
        f"{part.path}: slideInfoOffset {header.slide_info_offset:#x} does not tell all of {len(writable)} writable"
        " mappings; slide info was found by its number of pages"
    )
    return replace(part, mappings=tuple(fixed), notes=(*part.notes, note))


def _shapes(part: CacheFilePart, sizes: set[int]) -> Iterator[_Shape]:
    """Yield the slide infos that lie one behind the other, each once, as far as there is a mapping of such a size."""
    seen: set[int] = set()
    starts = [part.header.slide_info_offset] if part.header.slide_info_offset else []
    for place in (*starts, *(m.file_offset for m in part.mappings if not m.max_prot & (_WRITE | _EXECUTE))):
        candidates = [place]
        while len(seen) < _MAX_STRUCTS:
            there = (_shape(part.data, at) for at in candidates)
            shape = next((s for s in there if s and s.pages in sizes), None)
            if shape is None or shape.at in seen:
                break
            seen.add(shape.at)
            yield shape
            end = shape.at + shape.size
            candidates = [end + -end % alignment for alignment in _ALIGNMENTS]


def _shape(data: mmap.mmap, at: int) -> _Shape | None:
    """Return what a slide info at a file offset says of itself, or None when there is none."""
    if at + 0x28 > len(data):
        return None
    version, page, first, second, third, fourth = struct.unpack_from("<6I", data, at)
    if version == 1:  # a table of bitmaps, a page of 4 KiB each
        return _Shape(at, 1, third + fourth * 128, second * 0x1000)
    if page not in {0x1000, 0x4000}:
        return None
    if version in {2, 4}:
        size = max(0x28, first + second * 2, third + fourth * 2)
        return _Shape(at, version, size, second * page)
    return _Shape(at, version, 0x18 + first * 2, first * page) if version in {3, 5} else None


def _assign(
    part: CacheFilePart, shapes: Sequence[_Shape], writable: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> dict[int, _Shape]:
    """Return which slide info is that of each mapping, by its number.

    It has as many pages, and its chains give addresses of the cache: the order in the file is not that of the mappings,
    and what was made plain since may still have an info.
    """
    fitting = [(n, shape) for n in writable for shape in shapes if shape.pages == part.mappings[n].size]
    scored = [(_plausible(part, part.mappings[number], shape, ranges), number, shape) for number, shape in fitting]
    found: dict[int, _Shape] = {}
    for score, number, shape in sorted(scored, key=lambda row: -row[0]):
        if score >= 0 and number not in found and shape not in found.values():
            found[number] = shape
    return found


def _plausible(part: CacheFilePart, mapping: Mapping, shape: _Shape, ranges: Sequence[tuple[int, int]]) -> int:
    """Return how many more pointers of a mapping lead into the `ranges`, (address, size), than do not by `shape`."""
    try:
        slide = read_slide_info(part, mapping._replace(slide_info_offset=shape.at, slide_info_size=shape.size))
        if slide is None or not slide.page_size:
            return 0
        size = min(mapping.size, _SAMPLE) // slide.page_size * slide.page_size
        raw = np.frombuffer(part.data, np.uint8, size, mapping.file_offset)
        pages = raw.reshape(-1, slide.page_size).copy()
        values = slide.values(pages, np.arange(len(pages)), 4 if 0 < slide.delta_mask < 1 << 32 else 8)
    except SharedCacheError:
        return -1
    values &= _ADDRESS
    inside = np.zeros(len(values), bool)
    for address, length in ranges:
        inside |= values - np.uint64(address) < np.uint64(length)
    inside &= values != np.uint64(slide.value_add)  # what zeros are read as where there is no chain
    return 2 * int(np.count_nonzero(inside)) - len(values)
