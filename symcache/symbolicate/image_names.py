"""Names for many addresses of an image at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from symcache.demangle import demangle
from symcache.symbolicate.artifact import Artifact
from symcache.symbolicate.model import Call, Location, NameSource
from symcache.symbolicate.symbolic_table import NONE, SymbolicTable
from symcache.text import printable

__all__ = ["ImageNames", "call_offsets"]

_SOURCES = tuple(NameSource)
_EXACT = 1 << 40
"""Added to the number of a location where the address is the first of what is named, and only then the name is sure."""
_Offsets = npt.NDArray[np.int64]


class ImageNames:
    """The names of one UUID: of its dSYM first, then what that lacks of its binary."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        self._artifacts = list(artifacts)
        self._has_starts = any(artifact.has_starts for artifact in artifacts)

    def look_up(self, offsets: npt.NDArray[np.int64]) -> list[Location | None]:
        """Return what is known of each offset from the image's header; None of what is not code, or has no name.

        They are looked up as they are: see `call_offsets`.
        """
        asked, places = np.unique(np.asarray(offsets, np.int64), return_inverse=True)
        valid = np.flatnonzero((asked >= 0) & (asked < NONE))
        keys = np.full(len(asked), -1, np.int64)
        keys[valid] = self._keys(asked[valid])
        distinct, which = np.unique(keys, return_inverse=True)
        # Addresses of one function differ in what they have of DWARF only: all others are one location.
        found = [self._location(int(key), int(asked[n])) for key, n in zip(distinct, _first(which), strict=True)]
        return [found[n] for n in which[places].tolist()]

    def _keys(self, offsets: _Offsets) -> _Offsets:
        """Return a number for each location; -1 for none. Two offsets of one number have the same location."""
        small = offsets.astype(np.uint32)
        keys = np.full(len(small), -1, np.int64)
        base = 0
        for artifact in self._artifacts:
            if table := artifact.table:
                open_ = keys < 0
                piece = np.searchsorted(artifact.pieces, small, "right") - 1
                hit = open_ & (piece >= 0)
                hit[hit] = artifact.piece_functions[piece[hit]] != NONE
                keys[hit] = base + np.searchsorted(table.starts, small[hit], "right") - 1
                base += len(table.starts)
        rest = np.flatnonzero(keys < 0)
        starts = np.full(len(rest), -1, np.int64)
        for artifact in self._artifacts:
            if not len(artifact.atoms):
                continue
            atom = np.searchsorted(artifact.atoms, small[rest], "right") - 1
            section = np.searchsorted(artifact.code[:, 0], small[rest], "right") - 1
            inside = (atom >= 0) & (section >= 0)
            inside &= (small[rest] < artifact.code[section, 1]) & (artifact.atoms[atom] >= artifact.code[section, 0])
            # What begins last before the address is what it lies in; of two at one place, that of the first file.
            begins = np.where(inside, artifact.atoms[atom].astype(np.int64), -1)
            nearer = begins > starts
            starts[nearer] = begins[nearer]
            keys[rest[nearer]] = base + atom[nearer]
            base += len(artifact.atoms)
        if not self._has_starts:  # where a symbol begins it is sure, behind that it is not
            exact = (starts == offsets[rest]) & (starts >= 0)
            keys[rest[exact]] += _EXACT
        return keys

    def _location(self, key: int, offset: int) -> Location | None:
        if key < 0:
            return None
        exact, key = divmod(key, _EXACT)
        for artifact in self._artifacts:
            if table := artifact.table:
                if key < len(table.starts):
                    return _by_dwarf(artifact, table, key, offset)
                key -= len(table.starts)
        sizes = [len(artifact.atoms) for artifact in self._artifacts]
        for artifact, size in zip(self._artifacts, sizes, strict=True):
            if key < size:
                return self._by_atom(artifact, key, bool(exact))
            key -= size
        return None

    def _by_atom(self, artifact: Artifact, atom: int, exact: bool) -> Location:
        start = int(artifact.atoms[atom])
        source = _SOURCES[artifact.atom_sources[atom]]
        place = int(artifact.atom_names[atom])
        call = Call(f"fun_{start:x}", f"fun_{start:x}") if place == NONE else _call(artifact.name(place))
        if not self._has_starts:
            return Location((call,), start, None, source if exact else NameSource.NEAREST)
        return Location((call,), start, self._end(start) - start, source)

    def _end(self, start: int) -> int:
        """Return where the next thing in code begins, or its section ends."""
        ends = []
        for artifact in self._artifacts:
            if len(artifact.atoms):
                after = int(np.searchsorted(artifact.atoms, np.uint32(start), "right"))
                section = int(np.searchsorted(artifact.code[:, 0], np.uint32(start), "right")) - 1
                ends += artifact.atoms[after : after + 1].tolist()
                ends += artifact.code[section : section + 1, 1].tolist() if section >= 0 else []
        return int(min(end for end in ends if end > start))


def _by_dwarf(artifact: Artifact, table: SymbolicTable, row: int, offset: int) -> Location:
    piece = int(np.searchsorted(artifact.pieces, np.uint32(offset), "right")) - 1
    start = int(artifact.pieces[piece])
    end = int(artifact.pieces[piece + 1]) if piece + 1 < len(artifact.pieces) else None
    calls = []
    for function, file, line in table.calls(table.first_range + row):
        name = table.string(int(table.functions["name"][function])) if function != NONE else ""
        path = printable(table.path(file)) if file != NONE else ""
        calls.append(_call(name or f"fun_{start:x}", path, line if path and line else None))
    return Location(tuple(calls), start, end - start if end is not None else None, NameSource.DWARF)


def _call(name: bytes | str, path: str = "", line: int | None = None) -> Call:
    symbol = printable(name)
    function = demangle(symbol)
    return Call(symbol if function == symbol else printable(function), symbol, path, line)


def _first(which: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return where each number occurs first; they are 0 to the highest, without a gap."""
    return np.unique(which, return_index=True)[1]


def call_offsets(offsets: npt.NDArray[np.int64], arch: str) -> npt.NDArray[np.int64]:
    """Return, for return addresses, addresses in the calls that they return from.

    Pointer-authentication bits are gone already. Of `arm64…` the instruction before; of others a byte of that.
    """
    if arch.startswith("arm64"):
        return (np.asarray(offsets, np.int64) & ~3) - 4
    return np.asarray(offsets, np.int64) - 1
