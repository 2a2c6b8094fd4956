"""The records of Breakpad symbol files, from the tables of an image: FILE, INLINE_ORIGIN, FUNC, INLINE, lines, PUBLIC.

Format: `docs/symbol_files.md` of Breakpad. Addresses count from the image's header, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np

from symcache.symbolicate import NONE, SymbolicTable
from symcache.text import printable

__all__ = ["Debug", "public_records"]

_Inlined = tuple[int, int]
"""An inlined call: the location that it is at, and the function that is called."""


class Debug:
    """The records that come from DWARF; `demangle` makes the names of functions readable."""

    def __init__(self, table: SymbolicTable, demangle: Callable[[str], str]) -> None:
        self._table, self._demangle = table, demangle
        self._files: dict[str, int] = {}
        self._file_numbers = [
            self._files.setdefault(printable(table.path(n)), len(self._files)) for n in range(len(table.files))
        ]
        self._origins: dict[str, int] = {}
        self._origin_numbers: dict[int, int] = {}
        for row in np.flatnonzero(table.functions["entry"] == NONE).tolist():
            self._origin_numbers[row] = self._origins.setdefault(self._name(row), len(self._origins))
        self._lines: list[int] = table.locations["line"].tolist()
        self._file_rows: list[int] = table.locations["file"].tolist()
        self._called: list[int] = table.locations["function"].tolist()
        self._into: list[int] = table.locations["inlined_into"].tolist()
        self.addresses: set[int] = set()
        """Where the functions that were written begin."""

    def records(self) -> Iterator[str]:
        """Yield all records, without those of the symbol table."""
        yield from (f"FILE {number} {path}\n" for path, number in self._files.items())
        yield from (f"INLINE_ORIGIN {number} {name}\n" for name, number in self._origins.items())
        starts = self._table.starts
        if len(starts) < 2:
            return
        roots = self._table.roots()
        languages = self._table.functions["language"]
        edges = [*np.flatnonzero(np.diff(roots, prepend=NONE)).tolist(), len(roots)]
        ends: list[int] = starts.tolist()
        for first, last in pairwise(edges):
            root = int(roots[first])
            # Functions without a language are from the symbol table; the last range of the table has no end.
            if root != NONE and languages[root] != NONE and last < len(ends):
                yield from self._function(root, first, ends[first : last + 1])

    def _function(self, root: int, first: int, ends: list[int]) -> Iterator[str]:
        """Yield the records of the ranges from `first` on, between which `ends` are the borders."""
        self.addresses.add(ends[0])
        yield f"FUNC {ends[0]:x} {ends[-1] - ends[0]:x} 0 {self._name(root)}\n"
        location = self._table.first_range + first
        spans = list(zip(range(location, location + len(ends)), ends, ends[1:], strict=False))
        yield from self._inlined(spans)
        begin, known = ends[0], None
        for row, start, _ in [*spans, (None, ends[-1], 0)]:
            here = None if row is None else (self._lines[row], self._file_rows[row])
            if here == known:
                continue
            if known and known[1] != NONE:
                yield f"{begin:x} {start - begin:x} {known[0]} {self._file_numbers[known[1]]}\n"
            begin, known = start, here

    def _inlined(self, spans: list[tuple[int, int, int]]) -> Iterator[str]:
        """Yield the INLINE records of one function: each with all pieces of code that came from the same call."""
        pieces: dict[tuple[int, _Inlined], list[tuple[int, int]]] = {}
        calls: list[_Inlined] = []
        into = None
        for row, start, end in spans:
            if (self._into[row], self._called[row]) != into:
                into = self._into[row], self._called[row]
                calls = self._calls(row)
            for key in enumerate(calls):
                known = pieces.setdefault(key, [])
                if known and known[-1][1] == start:
                    known[-1] = known[-1][0], end
                else:
                    known.append((start, end))
        for (level, (call, callee)), found in sorted(pieces.items(), key=lambda item: item[0][0]):
            where = " ".join(f"{start:x} {end - start:x}" for start, end in found)
            file, origin = self._file_numbers[self._file_rows[call]], self._origin_numbers[callee]
            yield f"INLINE {level} {self._lines[call]} {file} {origin} {where}\n"

    def _calls(self, row: int) -> list[_Inlined]:
        """Return the calls that were inlined at a location, the outermost first."""
        calls = []
        while (call := self._into[row]) != NONE:
            calls.append((call, self._called[row]))
            row = call
        return calls[::-1]

    def _name(self, function: int) -> str:
        return self._demangle(self._table.string(int(self._table.functions["name"][function])))


def public_records(symbols: Mapping[int, str], written: Iterable[int]) -> Iterator[str]:
    """Yield PUBLIC records of symbols by address, but for those where a function was `written`."""
    known = set(written)
    return (f"PUBLIC {address:x} 0 {name}\n" for address, name in sorted(symbols.items()) if address not in known)
