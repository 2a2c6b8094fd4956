"""Names for many addresses of an image at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from symcache.demangle import demangle
from symcache.symbolicate.artifact import STUB, Artifact
from symcache.symbolicate.model import Call, Location, NameSource
from symcache.symbolicate.symbolic_table import NONE, SymbolicTable
from symcache.text import printable

__all__ = ["ImageNames", "call_offsets"]

_SOURCES = (*NameSource, NameSource.SYMBOL)
"""By the numbers of artifacts; the last is `STUB`."""
_NAMELESS = "<name omitted>"
"""A function to which DWARF gives no name, as Breakpad calls it."""
_MAX_NAME = 8192
"""Characters; the longest names of real programs have some thousand."""
_Numbers = npt.NDArray[Any]


class ImageNames:
    """The names of one UUID: of its dSYM first, then what that lacks of its binary."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        self._artifacts = list(artifacts)
        self._has_starts = any(artifact.has_starts for artifact in artifacts)

    def look_up(self, offsets: npt.NDArray[np.int64]) -> list[Location | None]:
        """Return what is known of each offset from the image's header; None if it is no code, or has no name.

        They are looked up as they are: see `call_offsets`.
        """
        wanted, places = np.unique(np.asarray(offsets, np.int64), return_inverse=True)
        known = np.full(len(wanted), None, object)
        rest = np.flatnonzero((wanted >= 0) & (wanted < NONE))
        for artifact in self._artifacts:
            if artifact.table and len(rest):
                rest = rest[~_look_up_dwarf(artifact, artifact.table, wanted, rest, known)]
        self._look_up_atoms(wanted, rest, known)
        located: list[Location | None] = known[places].tolist()
        return located

    def _look_up_atoms(self, wanted: _Numbers, rest: _Numbers, known: _Numbers) -> None:
        """Set the locations in `known`, at `rest`, that symbols, exports and function starts tell.

        What begins last before an address is what it lies in; of two things at one place, that of the first artifact.
        """
        offsets = wanted[rest].astype(np.uint32)
        starts, ends = np.full(len(rest), -1, np.int64), np.full(len(rest), 1 << 32, np.int64)
        owners, atoms = np.full(len(rest), -1), np.zeros(len(rest), np.int64)
        for owner, artifact in enumerate(self._artifacts):
            if not len(artifact.atoms):
                continue
            atom = np.searchsorted(artifact.atoms, offsets, "right") - 1
            section = np.searchsorted(artifact.code[:, 0], offsets, "right") - 1
            inside = (section >= 0) & (offsets < artifact.code[section, 1])
            after = artifact.atoms[np.minimum(atom + 1, len(artifact.atoms) - 1)].astype(np.int64)
            end = np.where(after > offsets, np.minimum(after, artifact.code[section, 1]), artifact.code[section, 1])
            ends[inside] = np.minimum(ends, end)[inside]
            nearer = inside & (atom >= 0) & (artifact.atoms[atom] >= artifact.code[section, 0])
            nearer &= artifact.atoms[atom] > starts
            starts[nearer], owners[nearer], atoms[nearer] = artifact.atoms[atom][nearer], owner, atom[nearer]
        # Where nothing tells how long a function is, only its first address is sure to be its own.
        sure = (starts == offsets) | self._has_starts
        for owner, artifact in enumerate(self._artifacts):
            owned = np.flatnonzero(owners == owner)
            _, first, inverse = np.unique(atoms[owned] * 2 + sure[owned], return_index=True, return_inverse=True)
            one = owned[first]
            sizes = (ends[one] - starts[one]).tolist() if self._has_starts else [None] * len(one)
            rows = zip(atoms[one].tolist(), starts[one].tolist(), sizes, sure[one].tolist(), strict=True)
            known[rest[owned]] = _objects([_of_atom(artifact, *row) for row in rows])[inverse]


def _of_atom(artifact: Artifact, atom: int, start: int, size: int | None, sure: bool) -> Location:
    source, place = int(artifact.atom_sources[atom]), int(artifact.atom_names[atom])
    symbol, function = _names(f"fun_{start:x}" if place == NONE else artifact.name(place))
    if source == STUB:  # as LLDB says
        function = f"symbol stub for: {function}"
    return Location((Call(function, symbol),), start, size, _SOURCES[source] if sure else NameSource.NEAREST)


def _look_up_dwarf(
    artifact: Artifact, table: SymbolicTable, wanted: _Numbers, rest: _Numbers, known: _Numbers
) -> npt.NDArray[np.bool_]:
    """Set the locations in `known`, at `rest`, that DWARF tells; return a mask of those in `rest` that it did."""
    offsets = wanted[rest].astype(np.uint32)
    piece = np.searchsorted(artifact.pieces, offsets, "right") - 1
    hit = piece >= 0
    hit[hit] = artifact.piece_functions[piece[hit]] != NONE
    rows, first, inverse = np.unique(
        np.searchsorted(table.starts, offsets[hit], "right") - 1, return_index=True, return_inverse=True
    )
    pieces = piece[hit][first]
    starts = artifact.pieces[pieces].tolist()
    # The last piece is none of a function.
    ends = artifact.pieces[np.minimum(pieces + 1, len(artifact.pieces) - 1)].tolist()
    known[rest[hit]] = _objects(
        [
            Location(calls, start, end - start, NameSource.DWARF)
            for calls, start, end in zip(_calls(table, rows + table.first_range), starts, ends, strict=True)
        ]
    )[inverse]
    return hit


def _calls(table: SymbolicTable, locations: _Numbers) -> list[tuple[Call, ...]]:
    """Return the calls at each location of a table, the innermost first."""
    functions: dict[int, tuple[str, str]] = {NONE: ("", "")}
    paths: dict[int, str] = {NONE: ""}
    made: dict[tuple[int, int, int], Call] = {}
    chains: list[tuple[Call, ...]] = []
    for chain in table.calls(locations):
        calls = []
        for place in chain:
            if (call := made.get(place)) is None:
                function, file, line = place
                if function not in functions:
                    functions[function] = _names(table.function_name(function) or _NAMELESS)
                if file not in paths:
                    paths[file] = printable(table.path(file))
                symbol, name = functions[function]
                call = made[place] = Call(name, symbol, paths[file], line if line and paths[file] else None)
            calls.append(call)
        chains.append(tuple(calls))
    return chains


def _names(name: str | bytes) -> tuple[str, str]:
    """Return a name as the image has it, and as the source has it."""
    symbol = printable(name, limit=_MAX_NAME)
    function = demangle(symbol)
    return symbol, symbol if function == symbol else printable(function)


def _objects(values: Sequence[object]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def call_offsets(offsets: npt.NDArray[np.int64], arch: str) -> npt.NDArray[np.int64]:
    """Return, for return addresses, addresses in the calls that they return from.

    Pointer-authentication bits are gone already. Of `arm64…` the instruction before; of others a byte of that.
    """
    if arch.startswith("arm64"):
        return (np.asarray(offsets, np.int64) & ~3) - 4
    return np.asarray(offsets, np.int64) - 1
