"""What names the code of one image, in a file that is mapped and looked up as it lies there.

The file: magic, bytes of the description, the description (JSON: facts, and for each column its type, offset from the
start of the file and count), then the columns, each aligned to 8 bytes. It is made anew whenever `FORMAT` differs.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from symcache.errors import IntegrityError
from symcache.symbolicate.model import NameSource
from symcache.symbolicate.symbolic_table import SymbolicTable

__all__ = ["FORMAT", "FRAME", "STUB", "Artifact", "write_artifact"]

FORMAT = "3"
STUB = len(NameSource)
"""Source of a stub: code that jumps to a function of another image, and is named after it."""
FRAME = struct.Struct("<QQ")
"""In front of each of several artifacts: its number, its bytes."""
_MAGIC = b"symnames"
_HEAD = struct.Struct("<8sQ")
_MAX_DESCRIPTION = 4096
_SHORT, _MAX_NAME = 256, 64 << 10
"""Bytes of most names, and the most that are looked at."""
_TYPES: dict[object, np.dtype[Any]] = {"u1": np.dtype(np.uint8), "u4": np.dtype("<u4")}


def write_artifact(out: BinaryIO, facts: Mapping[str, object], columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write an artifact; `columns` are those of `Artifact`, flattened."""
    places: dict[str, list[object]] = {}
    position = _MAX_DESCRIPTION
    for name, column in columns.items():
        places[name] = [f"u{column.dtype.itemsize}", position, column.size]
        position += column.nbytes + 7 & ~7
    description = json.dumps({"facts": facts, "columns": places}).encode()
    out.write(_HEAD.pack(_MAGIC, len(description)) + description.ljust(_MAX_DESCRIPTION - _HEAD.size, b" "))
    for column in columns.values():
        out.write(np.ascontiguousarray(column).data)
        out.write(bytes(-column.nbytes % 8))


class Artifact:
    """The columns of one artifact. Offsets are bytes from the image's header, in ascending order."""

    def __init__(self, data: mmap.mmap | memoryview) -> None:
        """Map the columns. Raises IntegrityError for another format."""
        try:
            magic, size = _HEAD.unpack_from(data)
            if magic != _MAGIC or size > _MAX_DESCRIPTION - _HEAD.size:
                raise ValueError("another magic")
            description = json.loads(bytes(data[_HEAD.size : _HEAD.size + size]))
            self._data, self._places = data, description["columns"]
            self.has_starts: bool = bool(description["facts"]["has_starts"])
            """Whether LC_FUNCTION_STARTS tells where functions begin."""
            self.code = self._column("code").reshape(-1, 2)
            """(start, end) of each section with instructions."""
            self.symbols, self.symbol_names = self._column("symbols"), self._column("symbol_names")
            """Offsets, in code and data, and where their names begin in the pool."""
            self.atoms, self.atom_names = self._column("atoms"), self._column("atom_names")
            """Where whatever has a name, or is a function, begins in code; the name's place, or `NONE`."""
            self.atom_sources = self._column("atom_sources")
            """Numbers of `NameSource`, by the order of its members, or `STUB`."""
            self.pieces, self.piece_functions = self._column("pieces"), self._column("piece_functions")
            """Where code begins that is of one function by DWARF, its row in `table`; `NONE` between functions."""
            self._pool = self._column("pool")
            table = self._column("table")
            self.table = SymbolicTable(table.data) if len(table) else None
            if any(
                len(a) != len(b)
                for a, b in (
                    (self.symbols, self.symbol_names),
                    (self.atoms, self.atom_names),
                    (self.atoms, self.atom_sources),
                    (self.pieces, self.piece_functions),
                )
            ):
                raise ValueError("columns of different lengths")
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise IntegrityError(f"names of an image cannot be read: {error}", hint="delete the file") from error

    def _column(self, name: str) -> npt.NDArray[np.uint32]:
        kind, position, count = self._places[name]
        column: npt.NDArray[np.uint32] = np.frombuffer(self._data, _TYPES[kind], int(count), int(position))
        return column

    def name(self, place: int) -> bytes:
        """Return the name at `place` of the pool; of one that is absurdly long, the beginning."""
        name = bytes(self._pool.data[place : place + _SHORT]).partition(b"\0")[0]
        if len(name) == _SHORT:
            name = bytes(self._pool.data[place : place + _MAX_NAME]).partition(b"\0")[0]
        return name
