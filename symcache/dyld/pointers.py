"""The content of segments with plain pointers, made for many segments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld.address_space import AddressSpace, Location
from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import Mapping
from symcache.dyld.slide import SlideInfo, read_slide_info

__all__ = ["DecodedPages", "PointerDecoder"]

_ZEROS = bytes(1 << 20)
_ZERO_BLOCK = 4 << 20
"""Bytes to look at together for one that is not zero."""
_PAGES_AT_ONCE = 1024
"""Pages whose chains are looked for together: a hostile table has one begin at every word of each."""


@dataclass(frozen=True, slots=True)
class _Pages:
    """Decoded pages of one mapping: `data[i]` is page `numbers[i]`."""

    slide: SlideInfo
    numbers: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedPages:
    """All pages of some segments whose pointers are chained, with plain pointers: by the address of the mapping."""

    space: AddressSpace
    by_mapping: dict[int, _Pages]

    def content(self, address: int, size: int) -> list[memoryview]:
        """Return the bytes of a range, as views in order; what no file backs is zero."""
        pieces: list[memoryview] = []
        for place, length in self.space.runs(address, size):
            if place is None:
                pieces += [memoryview(_ZEROS)[: min(len(_ZEROS), length - n)] for n in range(0, length, len(_ZEROS))]
                continue
            pages = self.by_mapping.get(place.mapping.address)
            if pages is None:
                pieces.append(memoryview(place.part.data)[place.offset : place.offset + length])
                continue
            inside = place.offset - place.mapping.file_offset
            row = int(np.searchsorted(pages.numbers, inside // pages.slide.page_size))
            start = row * pages.slide.page_size + inside % pages.slide.page_size
            pieces.append(pages.data.reshape(-1)[start : start + length].data)
        return pieces


class PointerDecoder:
    """Knows the slide info of every mapping of one address space. Not for several threads at once."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._slides: dict[int, SlideInfo | None] = {}

    def chained_bytes(self, address: int, size: int) -> int:
        """Return how many bytes of a range lie in mappings whose pointers are chained. Raises SharedCacheError."""
        return sum(length for place, length in self._space.runs(address, size) if place and self._slide(place))

    def used_bytes(self, address: int, size: int) -> int:
        """Return how many bytes of a range there are up to its last one that is not zero once pointers are plain.

        The range should begin with a page, since chains never leave theirs. Raises SharedCacheError.
        """
        end = address + size
        for place, length in reversed(self._space.runs(address, size)):
            end -= length
            if place is not None and (used := self._used_bytes(place, length)):
                return end - address + used
        return 0

    def _used_bytes(self, place: Location, size: int) -> int:
        used = 0
        if slide := self._slide(place):
            # Where a chain begins there is a pointer, also if its bytes are zero: the last of a chain may lead to the
            # base, from which all count.
            first = place.offset - place.mapping.file_offset
            pages = np.arange(first // slide.page_size, (first + size - 1) // slide.page_size + 1)
            for stop in range(len(pages), 0, -_PAGES_AT_ONCE):
                some = pages[max(stop - _PAGES_AT_ONCE, 0) : stop]
                index, start = slide.chain_starts(some)
                at = some[index] * slide.page_size + start * 4 - first
                if used := int(at[(at >= 0) & (at < size)].max(initial=-1)) + 1:
                    break
        data = np.frombuffer(place.part.data, np.uint8, size, place.offset)
        for stop in range(size, used, -_ZERO_BLOCK):
            block = data[max(stop - _ZERO_BLOCK, used) : stop]
            if block.any():
                return stop - int((block[::-1] != 0).argmax())
            if len(block) == _ZERO_BLOCK:
                self._space.release()  # it is not looked at again
        return used

    def decode(self, ranges: Sequence[tuple[int, int]], pointer_size: int) -> DecodedPages:
        """Decode every page that the ranges, (address, size), touch. Raises SharedCacheError for a broken chain.

        Chains run from the start of their page through whatever images share it, so that pages are decoded whole.
        """
        wanted: dict[int, tuple[CacheFilePart, Mapping, SlideInfo, list[npt.NDArray[np.int64]]]] = {}
        for address, size in ranges:
            for place, length in self._space.runs(address, size):
                if place and (slide := self._slide(place)):
                    first = place.offset - place.mapping.file_offset
                    pages = np.arange(first // slide.page_size, (first + length - 1) // slide.page_size + 1)
                    entry = wanted.setdefault(place.mapping.address, (place.part, place.mapping, slide, []))
                    entry[3].append(pages)
        decoded = {}
        for address, (part, mapping, slide, pieces) in wanted.items():
            numbers = np.unique(np.concatenate(pieces))
            source = np.frombuffer(part.data, np.uint8, mapping.size, mapping.file_offset)
            data = np.empty((len(numbers), slide.page_size), np.uint8)
            for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
                begin = int(numbers[run[0]]) * slide.page_size
                rows = data[run[0] : run[-1] + 1].reshape(-1)
                piece = source[begin : begin + len(rows)]
                rows[: len(piece)] = piece
                rows[len(piece) :] = 0
            slide.decode(data, numbers, pointer_size)
            decoded[address] = _Pages(slide, numbers, data)
        return DecodedPages(self._space, decoded)

    def _slide(self, place: Location) -> SlideInfo | None:
        key = place.mapping.address
        if key not in self._slides:
            slide = read_slide_info(place.part, place.mapping)
            self._slides[key] = slide if slide is not None and slide.page_size else None
        return self._slides[key]
