"""Symbol tables by numpy: local symbols kept apart, and strings gathered from pools that many images share.

Source: struct dyld_cache_local_symbols_info and its entries (`dyld_cache_format.h`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld.cache_file import CacheFilePart
from symcache.errors import SharedCacheError

__all__ = ["LocalSymbols", "SymbolSource", "gather_strings", "read_local_symbols"]

_FIRST_WINDOW = 64
_MAX_STRING = 1 << 20
_MAX_GAP = 4096
"""Names further apart than this are not looked at together."""
_CLUSTER = 16
_MAX_RUN = 64 << 20
"""Bytes of a pool that are looked at together; eight times as many for where names end, if all of them are empty."""
_BLOCK_BYTES = 8 << 20
_INFO = struct.Struct("<6I")
_MAX_ENTRIES = 100_000
"""One an image."""


@dataclass(frozen=True, slots=True)
class SymbolSource:
    """Symbols, and the pool that their `n_strx` count in."""

    nlists: npt.NDArray[np.void]
    """As `Structs.nlist`."""
    pool: npt.NDArray[np.uint8]
    what: str


def gather_strings(source: SymbolSource, base: int) -> tuple[npt.NDArray[np.uint32], list[bytes], int]:
    """Copy the strings that a source uses into a pool of their own.

    Returns (new n_strx of each symbol, pieces of the new pool, its size). `base` is where the pieces will start; offset
    0 of the new pool is the empty string. Strings at one place are copied once. Raises SharedCacheError for a string
    that lies outside of the pool or does not end.
    """
    places, inverse = np.unique(source.nlists["n_strx"].astype(np.int64), return_inverse=True)
    end = len(source.pool)
    if len(places) and int(places[-1]) >= end and int(places[-1]) > 0:
        raise SharedCacheError(f"{source.what}: a name at {int(places[-1]):#x} of a string pool of {end:#x} bytes")
    if len(places) and not places[0] and source.pool[0] == 0:
        skipped, places = 1, places[1:]
    else:
        skipped = 0
    placed = np.zeros(len(places), np.int64)
    pieces: list[bytes] = []
    size = 0
    scattered = np.ones(len(places), bool)
    # Most names of an image lie one behind the other in the shared pool: such a run is copied whole.
    for first, last in _clusters(places):
        begin, near = int(places[first]), places[first : last + 1] - places[first]
        if near[-1] > _MAX_RUN:
            continue
        zeros = np.flatnonzero(source.pool[begin : min(begin + int(near[-1]) + _MAX_GAP, end)] == 0)
        which = np.searchsorted(zeros, near)
        if not len(zeros) or int(which[-1]) >= len(zeros):
            continue
        ends = zeros[which] + 1
        cuts = np.flatnonzero(ends[:-1] != near[1:])
        if len(cuts) * _CLUSTER > len(near):
            continue
        scattered[first : last + 1] = False
        starts, stops = near[np.concatenate(([0], cuts + 1))], ends[np.concatenate((cuts, [len(near) - 1]))]
        sizes = stops - starts
        shift = size + np.cumsum(sizes) - sizes - starts  # a run's start in the new pool, from that in the old one
        placed[first : last + 1] = near + np.repeat(shift, np.diff(np.concatenate(([0], cuts + 1, [len(near)]))))
        pieces += [source.pool[begin + a : begin + b].tobytes() for a, b in zip(starts, stops, strict=True)]
        size += int(sizes.sum())
    size = _gather_scattered(source, places, np.flatnonzero(scattered), placed, pieces, size)
    new = np.concatenate((np.zeros(skipped, np.int64), placed + base))
    if size + base > 0xFFFF_FFFF:
        raise SharedCacheError(f"{source.what}: more than 4 GiB of names")
    return new[inverse].astype(np.uint32), pieces, size


def _clusters(places: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (first, last) index of every row of neighbouring places that is long enough to look at together."""
    cuts = np.flatnonzero(np.diff(places) > _MAX_GAP)
    first = np.concatenate(([0], cuts + 1))
    last = np.concatenate((cuts, [len(places) - 1]))
    long = last - first >= _CLUSTER
    return list(zip(first[long].tolist(), last[long].tolist(), strict=True))


def _gather_scattered(
    source: SymbolSource,
    places: npt.NDArray[np.int64],
    pending: npt.NDArray[np.int64],
    placed: npt.NDArray[np.int64],
    pieces: list[bytes],
    size: int,
) -> int:
    """Copy the names at `places[pending]`; fill `placed` and `pieces`, return the size of all pieces."""
    end, window = len(source.pool), _FIRST_WINDOW
    # Most names are short: look at a small window first, and at larger ones only for those that did not end in it.
    while len(pending):
        if window > _MAX_STRING:
            raise SharedCacheError(f"{source.what}: a name of more than {_MAX_STRING} bytes")
        unfinished = []
        rows_at_once = max(1, _BLOCK_BYTES // window)
        for start in range(0, len(pending), rows_at_once):
            rows = pending[start : start + rows_at_once]
            text = _windows(source.pool, places[rows], window)
            zero = text == 0
            length = zero.argmax(axis=1)
            done = zero[np.arange(len(rows)), length]
            # Past the end of the pool its last byte repeats: a name that ends there, or not at all, has no end.
            beyond = places[rows] + np.where(done, length, window - 1) >= end
            if beyond.any():
                raise SharedCacheError(f"{source.what}: a name runs over the end of the string pool")
            sizes = length[done] + 1
            ends = np.cumsum(sizes)
            placed[rows[done]] = size + ends - sizes
            pieces.append(text[done][np.arange(window) < sizes[:, None]].tobytes())
            size += int(ends[-1]) if len(ends) else 0
            if size > end + _MAX_STRING:  # a few may share their ends
                raise SharedCacheError(f"{source.what}: its names overlap: more bytes than a pool of {end:#x} can hold")
            unfinished.append(rows[~done])
        pending = np.concatenate(unfinished)
        window *= 4
    return size


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
    if entries_count > _MAX_ENTRIES:
        raise SharedCacheError(
            f"{part.path}: local symbols of {entries_count} images where at most {_MAX_ENTRIES} were expected"
        )
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
