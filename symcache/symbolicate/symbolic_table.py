"""The table that `symbolic` makes of an image's DWARF: which source line, through which inlined calls, at each address.

`symbolic` reads DWARF in compiled code that is made for hostile files, but its Python interface looks up one address at
a time; its table is read whole here. Source: the documentation of the crate symbolic-symcache (version 9 of its
format) and `raw/v9.rs`: a header, then files, functions, source locations, ranges and strings, each aligned to 8 bytes.
"""

from __future__ import annotations

import posixpath
import struct

import numpy as np
import numpy.typing as npt

__all__ = ["NONE", "SymbolicTable"]

NONE = 0xFFFFFFFF
"""No such row, no such string."""
_MAX_DEPTH = 4096
"""Of calls that are inlined into each other."""
_MAX_CALLS = 256
"""Of these, so many are returned for one address: else a hostile image could make requests take gigabytes."""
_MAGIC, _VERSION = b"SYMC", 9
_HEADER = struct.Struct("<4sI32s6I16x")
"""Magic, version, debug id, architecture; how many files, functions, locations and ranges; bytes of strings."""
_FILE = np.dtype([(name, "<u4") for name in ("comp_dir", "directory", "name", "server_name", "server_dir", "revision")])
_FUNCTION = np.dtype([(name, "<u4") for name in ("name", "comp_dir", "entry", "language")])
_LOCATION = np.dtype([(name, "<u4") for name in ("file", "line", "function", "inlined_into")])


class SymbolicTable:
    """The columns of one table. Addresses count from the image's header; row numbers may be `NONE`.

    Range `n` goes from `starts[n]` to `starts[n + 1]`, and is described by the location at `first_range + n`; the
    locations before those are calls that others are inlined into.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        """Read the columns. Raises ValueError for another format."""
        if len(data) < _HEADER.size:
            raise ValueError("table of symbolic without a header")
        magic, version, _, _, files, functions, locations, ranges, _ = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"table of symbolic {magic!r}, version {version}: {_MAGIC!r}, version {_VERSION} is known")
        self.data, self._position = data, _HEADER.size
        self.files = self._column(_FILE, files)
        self.functions = self._column(_FUNCTION, functions)
        self.locations = self._column(_LOCATION, locations)
        self.starts = self._column(np.dtype("<u4"), ranges)
        self.first_range = locations - ranges
        self._strings = _aligned(self._position)

    def _column(self, dtype: np.dtype[np.void] | np.dtype[np.uint32], count: int) -> npt.NDArray[np.void]:
        start = _aligned(self._position)
        self._position = start + count * dtype.itemsize
        return np.frombuffer(self.data, dtype, count, start)

    def roots(self) -> npt.NDArray[np.uint32]:
        """Return, for each range, the function that is not inlined there itself: a row number."""
        into = self.locations["inlined_into"]
        rows = np.arange(self.first_range, len(self.locations), dtype=np.uint32)
        for _ in range(_MAX_DEPTH):
            if not len(inlined := np.flatnonzero(into[rows] != NONE)):
                return self.locations["function"][rows]
            rows[inlined] = into[rows[inlined]]
        raise ValueError(f"calls that are inlined into each other more than {_MAX_DEPTH} deep")

    def calls(self, locations: npt.NDArray[np.int64]) -> list[list[tuple[int, int, int]]]:
        """Return (function, file, line) at each location, and of those that it is inlined into, the innermost first.

        Of more than 256 calls the outer ones are left out.
        """
        chains: list[list[tuple[int, int, int]]] = [[] for _ in locations]
        open_chains, rows = np.arange(len(locations)), np.asarray(locations, np.int64)
        for _ in range(_MAX_CALLS):
            if not len(rows):
                break
            level = self.locations[rows]
            called = zip(level["function"].tolist(), level["file"].tolist(), level["line"].tolist(), strict=True)
            for chain, call in zip(open_chains.tolist(), called, strict=True):
                chains[chain].append(call)
            inlined = np.flatnonzero(level["inlined_into"] != NONE)
            open_chains, rows = open_chains[inlined], level["inlined_into"][inlined].astype(np.int64)
        return chains

    def function_name(self, function: int) -> str:
        """Return the name of a function as the image has it; it may be empty."""
        return self.string(int(self.functions["name"][function]))

    def string(self, offset: int) -> str:
        """Return a string; "" for `NONE`."""
        if offset == NONE:
            return ""
        position, length, shift = self._strings + offset, 0, 0
        while True:  # LEB128
            byte = self.data[position]
            position, length, shift = position + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return str(self.data[position : position + length], "utf-8", "replace")

    def path(self, file: int) -> str:
        """Return the path of a file as its compiler recorded it."""
        comp_dir, directory, name, *_ = self.files[file].tolist()
        return posixpath.join(self.string(comp_dir), self.string(directory), self.string(name))


def _aligned(position: int) -> int:
    return position + 7 & ~7
