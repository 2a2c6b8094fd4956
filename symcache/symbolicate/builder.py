"""Makes artifacts of images, in the confined child: `python -m symcache.symbolicate.builder UUID FILE…`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO
from uuid import UUID

import numpy as np
import numpy.typing as npt

from symcache.errors import MachOError, SymcacheError
from symcache.macho import Slice, identify_at
from symcache.symbolicate.artifact import FRAME, STUB, write_artifact
from symcache.symbolicate.image_reader import ImageReader, NamedOffsets
from symcache.symbolicate.model import NameSource
from symcache.symbolicate.symbolic_table import NONE, SymbolicTable

__all__ = ["build", "choose_slice", "main"]

_SOURCES = tuple(NameSource)
_SYMBOL, _EXPORT, _START = map(_SOURCES.index, (NameSource.SYMBOL, NameSource.EXPORT, NameSource.FUNCTION_START))
_NONE = np.zeros(0, np.uint32)
_NAME = np.dtype([("offset", "<u4"), ("name", "<u4"), ("source", "u1")])


def main() -> None:
    """Write the artifact of the image of a UUID in a file to standard output."""
    images = list(zip(map(UUID, sys.argv[1::2]), sys.argv[2::2], strict=True))
    out = sys.stdout.buffer
    try:
        if len(images) == 1:
            build(*images[0], out)
        else:
            _build_many(images, out)
        out.flush()
    except (SymcacheError, ValueError) as error:  # the file is empty
        sys.exit(f"{error}")


def _build_many(images: Sequence[tuple[UUID, str]], out: BinaryIO) -> None:
    """Write the artifacts of images, each behind its number and size; of one that cannot be read, none."""
    for number, (uuid, path) in enumerate(images):
        artifact = BytesIO()
        with suppress(SymcacheError, ValueError):
            build(uuid, path, artifact)
            out.write(FRAME.pack(number, artifact.tell()) + artifact.getbuffer())


def build(uuid: UUID, path: str, out: BinaryIO) -> None:
    """Write the artifact of an image. Raises MachOError."""
    data = np.memmap(path, np.uint8, "r").data
    image = choose_slice(data, uuid)
    reader = ImageReader(data[image.offset : image.offset + image.size], "its image")
    code, starts = reader.code(), reader.starts()
    names, pool = _joined({_SYMBOL: reader.symbols(), _EXPORT: reader.exports(), STUB: reader.stubs()})
    atoms = _in_code(_first(np.concatenate((names, _unnamed(starts)))), code)
    names = _first(names[names["source"] != STUB])
    table = _table(path, uuid)
    pieces, piece_functions = _pieces(table) if table else (_NONE, _NONE)
    columns = {
        "code": code,
        "symbols": names["offset"],
        "symbol_names": names["name"],
        "atoms": atoms["offset"],
        "atom_names": atoms["name"],
        "atom_sources": atoms["source"],
        "pieces": pieces,
        "piece_functions": piece_functions,
        "pool": np.frombuffer(pool, np.uint8),
        "table": np.frombuffer(table.data if table else b"", np.uint8),
    }
    write_artifact(out, {"has_starts": bool(len(starts))}, columns)


def choose_slice(data: memoryview, uuid: UUID) -> Slice:
    """Return the image of a UUID in a file, or the only one that there is. Raises MachOError."""
    images = identify_at(lambda start, size: bytes(data[start : start + size]), len(data), "its file")
    chosen = next((image for image in images if image.uuid == uuid), images[0] if len(images) == 1 else None)
    if chosen is None:
        raise MachOError(f"none of {len(images)} images has the UUID {uuid}")
    return chosen


def _joined(kinds: Mapping[int, NamedOffsets]) -> tuple[npt.NDArray[np.void], bytes]:
    """Return all names in rows of `_NAME`, and the pool that they lie in."""
    parts: list[npt.NDArray[np.void]] = []
    pool = bytearray()
    for source, named in kinds.items():
        part = np.empty(len(named.offsets), _NAME)
        part["offset"], part["source"] = named.offsets, source
        part["name"] = named.names.astype(np.int64) + len(pool)
        parts.append(part)
        pool += named.pool
    return np.concatenate(parts), bytes(pool)


def _unnamed(starts: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
    rows = np.empty(len(starts), _NAME)
    rows["offset"], rows["name"], rows["source"] = starts, NONE, _START
    return rows


def _first(names: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return rows sorted by offset; of several at one offset, the one of the preferred (lowest) source."""
    names = names[np.lexsort((names["source"], names["offset"]))]
    return np.compress(np.diff(names["offset"].astype(np.int64), prepend=-1) != 0, names)


def _in_code(names: npt.NDArray[Any], code: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
    section = np.searchsorted(code[:, 0], names["offset"], "right") - 1
    inside = section >= 0
    inside[inside] = names["offset"][inside] < code[section[inside], 1]
    return np.compress(inside, names)


def _table(path: str, uuid: UUID) -> SymbolicTable | None:
    """Return the table of the image's DWARF; None where there is none, or it cannot be read."""
    from symbolic.debuginfo import Archive  # noqa: PLC0415
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    try:
        slices = list(Archive.open(path).iter_objects())
        for thing in slices:
            if (len(slices) == 1 or thing.debug_id == str(uuid)) and "debug" in thing.features:
                return SymbolicTable(thing.make_symcache().open_stream().read())  # type: ignore[no-untyped-call]
    except SymbolicError:  # what cannot be read tells nothing: the symbol tables remain
        pass
    return None


def _pieces(table: SymbolicTable) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return where code of another function begins, and the function; `NONE` where DWARF tells none."""
    roots = table.roots()
    known = roots != NONE
    # What has no language is from the symbol table; what is last in the table has no end.
    known[known] = table.functions["language"][roots[known]] != NONE
    roots = np.where(known, roots, np.uint32(NONE)).astype(np.uint32)
    if len(roots):
        roots[-1] = NONE
    edges = np.flatnonzero(np.diff(roots.astype(np.int64), prepend=-1))
    return table.starts[edges].astype(np.uint32), roots[edges]


if __name__ == "__main__":
    main()
