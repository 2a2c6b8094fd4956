"""Pointers of writable mappings, as the builder chained them: slide info versions 1 to 5 made plain.

Source: struct dyld_cache_slide_info … slide_info5 in `dyld_cache_format.h`. Chains never leave their page, so all pages
are walked side by side: one numpy step for the n-th pointer of every page.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import Mapping
from symcache.errors import SharedCacheError

__all__ = ["SlideInfo", "read_slide_info"]

_Array16 = npt.NDArray[np.uint16]
_Array64 = npt.NDArray[np.uint64]
_PAGES_AT_ONCE = 4096
"""Wide enough that numpy's cost a step vanishes, narrow enough that a block stays in the caches' reach."""
_STEPS_AT_ONCE = 16
_POINTERS_AT_ONCE = 1 << 16
_V2_NO_REBASE, _V2_EXTRA, _V2_EXTRA_END, _V2_VALUE = 0x4000, 0x8000, 0x8000, 0x3FFF
_V4_EXTRA, _V4_EXTRA_END, _V4_VALUE = 0x8000, 0x8000, 0x7FFF
_NO_REBASE = 0xFFFF


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """How the pointers of one mapping are chained. `page_size` is 0 where pointers are plain already."""

    version: int
    page_size: int
    starts: _Array16
    extras: _Array16
    delta_mask: int
    value_add: int
    name: str

    def decode(self, pages: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], pointer_size: int) -> None:
        """Make the pointers of whole pages plain, in place.

        `pages` has shape (number of pages, page_size), C-contiguous; `numbers` are their numbers in the mapping,
        sorted. Raises SharedCacheError for a chain that leaves its page.
        """
        for start in range(0, len(pages) if self.page_size else 0, _PAGES_AT_ONCE):
            end = start + _PAGES_AT_ONCE
            self._decode_block(pages[start:end], numbers[start:end], pointer_size)

    def _decode_block(self, pages: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], pointer_size: int) -> None:
        # Chains of versions 2 and 4 step by four bytes: no wider alignment is sure.
        words = pages.reshape(-1).view(np.uint32)
        at = self._pointers(words, numbers, pointer_size)
        for start in range(0, len(at), _POINTERS_AT_ONCE):
            some = at[start : start + _POINTERS_AT_ONCE]
            value = self._plain(_load(words, some, pointer_size))
            words[some] = value.astype(np.uint32)
            if pointer_size == 8:
                words[some + 1] = (value >> np.uint64(32)).astype(np.uint32)

    def _pointers(
        self, words: npt.NDArray[np.uint32], numbers: npt.NDArray[np.int64], pointer_size: int
    ) -> npt.NDArray[np.int64]:
        """Return the index in `words` of every pointer of these pages."""
        words_a_page = self.page_size // 4
        page, place = self.chain_starts(numbers)
        at = page * words_a_page + place
        last = page * words_a_page + words_a_page - pointer_size // 4
        half, shift, mask, unit = self._next_field()
        found = []

        def distance(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
            """Return how many words further the next pointer of each chain is; 0 at its end."""
            field = words.take(at + half, mode="clip")
            field >>= np.uint32(shift)
            field &= np.uint32(mask)
            field *= np.uint32(unit)
            return field

        # Several steps at a time: a chain that ends meanwhile stays where it is, and is cut off afterwards.
        total = 0
        while len(at):
            steps = max(1, min(_STEPS_AT_ONCE, _POINTERS_AT_ONCE * _STEPS_AT_ONCE // len(at)))
            block = np.empty((steps + 1, len(at)), np.int64)
            block[0] = at
            for step in range(steps):
                np.add(block[step], distance(block[step]), out=block[step + 1])
            if not bool((block[:-1] <= last).all()):
                found.append(self._pointers_checked(at, last, pointer_size, distance, len(words) - total))
                break
            going = block[1:] != block[:-1]
            found += [block[0], block[1:-1][going[:-1]]]
            total += len(found[-2]) + len(found[-1])
            if total > len(words):
                raise SharedCacheError(f"{self.name}: more pointers than its pages can hold: chains overlap")
            at, last = block[-1][going[-1]], last[going[-1]]
        return np.concatenate(found) if found else at

    def _pointers_checked(
        self,
        at: npt.NDArray[np.int64],
        last: npt.NDArray[np.int64],
        pointer_size: int,
        distance: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint32]],
        most: int,
    ) -> npt.NDArray[np.int64]:
        """As the loop of `_pointers`, step by step: for pages where something leaves its page."""
        found = []
        while len(at):
            inside = at <= last
            if not inside.all():
                # Version 2 may have a pointer straddle two pages. Such a one ends its chain and is stored plain
                # already: the kernel slides its lower half alone.
                if self.version != 2 or bool((at > last + pointer_size // 4 - 1).any()):
                    raise SharedCacheError(f"{self.name}: a chain leaves its page")
                at, last = at[inside], last[inside]
            found.append(at)
            most -= len(at)
            if most < 0:
                raise SharedCacheError(f"{self.name}: more pointers than its pages can hold: chains overlap")
            step = distance(at)
            going = step != 0
            at, last = at[going] + step[going], last[going]
        return np.concatenate(found) if found else at

    def _next_field(self) -> tuple[int, int, int, int]:
        """Return where a raw pointer says how far the next one is: (half, shift in it, mask, words that 1 means)."""
        if self.version in {3, 5}:
            return 1, 19 if self.version == 3 else 20, 0x7FF, 2
        low = (self.delta_mask & -self.delta_mask).bit_length() - 1
        half = low // 32
        return half, low - 32 * half, self.delta_mask >> low, 1

    def chain_starts(self, pages: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (index into `pages`, start in words) of each chain of the pages of these numbers."""
        numbers = np.flatnonzero(pages < len(self.starts))
        starts = self.starts[pages[numbers]].astype(np.int64)
        if self.version in {3, 5}:
            chosen = starts != _NO_REBASE
            if (starts[chosen] & 3).any():
                raise SharedCacheError(f"{self.name}: a chain starts at an odd address")
            return numbers[chosen], starts[chosen] >> 2
        if self.version == 2:
            none, extra, mask = starts == _V2_NO_REBASE, _V2_EXTRA, _V2_VALUE
        else:
            none, extra, mask = starts == _NO_REBASE, _V4_EXTRA, _V4_VALUE
        several = ~none & (starts & extra != 0)
        single = ~none & ~several
        found, places = [numbers[single]], [starts[single] & mask]
        if several.any():
            # The extras of one page run on until one that carries the end flag.
            ends = np.flatnonzero(self.extras & np.uint16(_V2_EXTRA_END))
            begin = starts[several] & mask
            where = np.searchsorted(ends, begin)
            if int(begin.max()) >= len(self.extras) or int(where.max()) >= len(ends):
                raise SharedCacheError(f"{self.name}: page extras lie beyond their table")
            length = ends[where] - begin + 1
            if int(length.max()) > self.page_size // 4:
                raise SharedCacheError(f"{self.name}: more chains in a page than it has words")
            index = np.repeat(begin - np.concatenate(([0], np.cumsum(length)[:-1])), length) + np.arange(length.sum())
            found.append(np.repeat(numbers[several], length))
            places.append(self.extras[index].astype(np.int64) & mask)
        return np.concatenate(found), np.concatenate(places)

    def _plain(self, raw: _Array64) -> _Array64:
        """Return raw pointers as plain ones."""
        u = np.uint64
        add = u(self.value_add)
        if self.version == 5:
            high = (raw >> u(34) & u(0xFF)) << u(56)
            high[raw >> u(63) != 0] = 0
            return (raw & u(0x3_FFFF_FFFF)) + add | high
        if self.version == 3:
            plain = raw & u(0x7FF_FFFF_FFFF) | (raw & u(0xFF << 43)) << u(13)
            return np.where(raw >> u(63) != 0, (raw & u(0xFFFF_FFFF)) + add, plain)
        value = raw & u(~self.delta_mask & 0xFFFF_FFFF_FFFF_FFFF)
        if self.version == 2:
            # The top byte that survives a narrower mask is a tag, not part of the address.
            return np.where(value != 0, value + add, value)
        small_positive = value & u(0xFFFF_8000) == 0
        small_negative = value & u(0x3FFF_8000) == u(0x3FFF_8000)
        moved = (value + add) & u(0xFFFF_FFFF)
        return np.where(small_positive, value, np.where(small_negative, value | u(0xC000_0000), moved))


def _load(words: npt.NDArray[np.uint32], at: npt.NDArray[np.int64], pointer_size: int) -> _Array64:
    raw = words[at].astype(np.uint64)
    if pointer_size == 8:
        raw |= words[at + 1].astype(np.uint64) << np.uint64(32)
    return raw


def read_slide_info(part: CacheFilePart, mapping: Mapping) -> SlideInfo | None:
    """Return the slide info of one mapping, or None when its pointers are plain. Raises SharedCacheError."""
    size = mapping.slide_info_size
    if not mapping.slide_info_offset or size < 4:
        return None
    name = f"{part.path}: slide info of {mapping.name}"
    data = part.bounded(mapping.slide_info_offset, size, f"slide info of {mapping.name}")
    (version,) = struct.unpack_from("<I", data)
    empty = np.zeros(0, np.uint16)
    if version == 1:
        # A bitmap of where pointers are; they are stored plain.
        return SlideInfo(1, 0, empty, empty, 0, 0, name)
    header = {2: 0x28, 3: 0x18, 4: 0x28, 5: 0x18}.get(version)
    if header is None:
        raise SharedCacheError(f"{name}: version {version} where 1 to 5 was expected", hint="use a newer symcache")
    if size < header:
        raise SharedCacheError(f"{name}: {size} bytes where {header} were expected")
    extras, delta_mask = empty, 0
    if version in {3, 5}:
        # Four bytes of padding before the 64-bit field.
        page_size, count, value_add = struct.unpack_from("<II4xQ", data, 4)
        starts = _table(data, header, count, name)
    else:
        page_size, offset, count, extras_offset, extras_count, delta_mask, value_add = struct.unpack_from(
            "<5I2Q", data, 4
        )
        starts = _table(data, offset, count, name)
        extras = _table(data, extras_offset, extras_count, name)
        low = (delta_mask & -delta_mask).bit_length() - 1
        if low < 2 or (delta_mask >> low) & (delta_mask >> low) + 1 or (low < 32 and delta_mask >> 32):
            raise SharedCacheError(f"{name}: delta_mask {delta_mask:#x} is no run of bits in one half of a pointer")
    if page_size not in {0x1000, 0x4000}:
        raise SharedCacheError(f"{name}: page_size {page_size:#x} where 0x1000 or 0x4000 was expected")
    if len(starts) * page_size > mapping.size + page_size:
        raise SharedCacheError(f"{name}: {len(starts)} pages for a mapping of {mapping.size:#x} bytes")
    return SlideInfo(version, page_size, starts, extras, delta_mask, value_add, name)


def _table(data: memoryview, offset: int, count: int, name: str) -> _Array16:
    if offset + count * 2 > len(data):
        raise SharedCacheError(f"{name}: {count} page entries at {offset:#x} lie beyond its {len(data):#x} bytes")
    return np.frombuffer(data, np.dtype("<u2"), count, offset)
