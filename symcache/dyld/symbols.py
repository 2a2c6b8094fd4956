"""Symbol tables by numpy: nlist arrays, and strings gathered from pools that many images share.

Source: struct nlist, nlist_64 (<mach-o/nlist.h>); struct dyld_cache_local_symbols_info and its entries
(`dyld_cache_format.h`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld.cache_file import CacheFilePart
from symcache.errors import SharedCacheError

__all__ = ["NLIST_32", "NLIST_64", "LocalSymbols", "SymbolSource", "gather_strings", "read_local_symbols"]

NLIST_64 = np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u8")])
NLIST_32 = np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u4")])
_FIRST_WINDOW = 64
_MAX_STRING = 1 << 20
_BLOCK_BYTES = 8 << 20
_INFO = struct.Struct("<6I")


@dataclass(frozen=True, slots=True)
class SymbolSource:
    """Symbols, and the pool that their `strx` count in."""

    nlists: npt.NDArray[np.void]
    pool: npt.NDArray[np.uint8]
    what: str


def gather_strings(source: SymbolSource, base: int) -> tuple[npt.NDArray[np.uint32], list[bytes], int]:
    """Copy the strings that a source uses into a pool of their own.

    Returns (new strx of each symbol, pieces of the new pool, its size). `base` is where the pieces will start; offset
    0 of the new pool is the empty string. Strings at one place are copied once. Raises SharedCacheError for a string
    that lies outside of the pool or does not end.
    """
    unique, inverse = np.unique(source.nlists["strx"].astype(np.int64), return_inverse=True)
    placed = np.zeros(len(unique), np.uint32)
    pieces: list[bytes] = []
    end = len(source.pool)
    if len(unique) and int(unique[-1]) >= end and int(unique[-1]) > 0:
        raise SharedCacheError(f"{source.what}: a name at {int(unique[-1]):#x} of a string pool of {end:#x} bytes")
    pending = np.flatnonzero(unique > 0)
    position, window = base, _FIRST_WINDOW
    # Most names are short: look at a small window first, and at larger ones only for those that did not end in it.
    while len(pending):
        if window > _MAX_STRING:
            raise SharedCacheError(f"{source.what}: a name of more than {_MAX_STRING} bytes")
        unfinished = []
        rows_at_once = max(1, _BLOCK_BYTES // window)
        for start in range(0, len(pending), rows_at_once):
            rows = pending[start : start + rows_at_once]
            text = _windows(source.pool, unique[rows], window)
            zero = text == 0
            length = np.where(zero.any(axis=1), zero.argmax(axis=1), window)
            inside = unique[rows] + length < end
            done = (length < window) & inside
            if (~inside & (length < window)).any() or (~done & (unique[rows] + window >= end)).any():
                raise SharedCacheError(f"{source.what}: a name runs over the end of the string pool")
            sizes = length[done] + 1
            ends = np.cumsum(sizes)
            placed[rows[done]] = position + ends - sizes
            keep = np.arange(window) < sizes[:, None]
            pieces.append(text[done][keep].tobytes())
            position += int(ends[-1]) if len(ends) else 0
            unfinished.append(rows[~done])
        pending = np.concatenate(unfinished)
        window *= 8
    return placed[inverse], pieces, position - base


def _windows(pool: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], window: int) -> npt.NDArray[np.uint8]:
    """Return `window` bytes from each of the sorted `places` on; past the pool's end its last byte repeats."""
    whole = int(np.searchsorted(places, len(pool) - window, "right"))
    rows = np.empty((len(places), window), np.uint8)
    if whole:
        # Rows of a strided view are copied as runs of bytes, with no index for each byte.
        rows[:whole] = np.lib.stride_tricks.sliding_window_view(pool, window)[places[:whole]]
    rows[whole:] = pool[np.minimum(places[whole:, None] + np.arange(window), len(pool) - 1)]
    return rows


@dataclass(frozen=True, slots=True)
class LocalSymbols:
    """Local symbols that the builder took out of the images, by image."""

    part: CacheFilePart
    nlists_at: int
    nlist_count: int
    strings_at: int
    strings_size: int
    ranges: dict[int, tuple[int, int]]
    """Offset of the image's header (VM offset from the cache base, or file offset before 12) to (start, count)."""

    def of(self, key: int, dtype: np.dtype[np.void], what: str) -> SymbolSource | None:
        """Return the unmapped locals of one image, or None when it has none."""
        start, count = self.ranges.get(key, (0, 0))
        if not count:
            return None
        if start + count > self.nlist_count:
            raise SharedCacheError(f"{what}: local symbols {start} to {start + count} of {self.nlist_count}")
        size = dtype.itemsize
        raw = self.part.bounded(self.nlists_at + start * size, count * size, "local symbols")
        pool = self.part.bounded(self.strings_at, self.strings_size, "names of local symbols")
        return SymbolSource(np.frombuffer(raw, dtype), np.frombuffer(pool, np.uint8), f"{what}: local symbols")


def read_local_symbols(part: CacheFilePart) -> LocalSymbols | None:
    """Return the table of unmapped locals that a main or `.symbols` file holds, or None."""
    offset = part.header.local_symbols_offset
    if not offset:
        return None
    info = part.bounded(offset, _INFO.size, "local symbols info")
    nlists_at, nlist_count, strings_at, strings_size, entries_at, entries_count = _INFO.unpack(info)
    if part.header.has_wide_local_symbols:
        dtype = np.dtype([("offset", "<u8"), ("start", "<u4"), ("count", "<u4")])
    else:
        dtype = np.dtype([("offset", "<u4"), ("start", "<u4"), ("count", "<u4")])
    raw = part.bounded(offset + entries_at, entries_count * dtype.itemsize, "local symbols entries")
    part.bounded(offset + strings_at, strings_size, "names of local symbols")
    entries = np.frombuffer(raw, dtype)
    ranges = dict(
        zip(
            entries["offset"].tolist(),
            zip(entries["start"].tolist(), entries["count"].tolist(), strict=True),
            strict=True,
        )
    )
    return LocalSymbols(part, offset + nlists_at, nlist_count, offset + strings_at, strings_size, ranges)
