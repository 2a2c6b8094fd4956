"""Makes the artifact of an image, in the confined child: `python -m symcache.symbolicate.builder UUID FILE`."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import numpy.typing as npt

from symcache.errors import MachOError, SymcacheError
from symcache.macho import Slice, identify
from symcache.symbolicate.artifact import write_artifact
from symcache.symbolicate.image_reader import ImageReader, NamedOffsets
from symcache.symbolicate.model import NameSource
from symcache.symbolicate.symbolic_table import NONE, SymbolicTable

__all__ = ["choose_slice", "main"]

_SOURCES = {source: number for number, source in enumerate(NameSource)}


def main() -> None:
    """Write the artifact of the image of a UUID in a file to standard output."""
    uuid, path = UUID(sys.argv[1]), sys.argv[2]
    try:
        _build(uuid, path)
    except SymcacheError as error:
        sys.exit(f"{error}")


def _build(uuid: UUID, path: str) -> None:
    image = choose_slice(path, uuid)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # noqa: PTH123
        reader = ImageReader(data, image, "image")
        code, starts = reader.code(), reader.starts()
        symbols, exports = reader.symbols(), reader.exports()
        pool = symbols.pool + exports.pool
        only = ~np.isin(exports.offsets, symbols.offsets)
        export_offsets = exports.offsets[only]
        export_names = exports.names[only] + np.uint32(len(symbols.pool))
        atoms = _atoms(code, starts, symbols, export_offsets, export_names)
        table = _table(path, uuid)
        pieces = _pieces(table) if table else (np.zeros(0, np.uint32), np.zeros(0, np.uint32))
        write_artifact(
            sys.stdout.buffer,
            {
                "uuid": str(image.uuid or ""),
                "arch": image.arch,
                "has_starts": bool(len(starts)),
                "text": reader.text_size,
            },
            {
                "code": code,
                "starts": starts,
                "symbols": symbols.offsets,
                "symbol_names": symbols.names,
                "exports": export_offsets,
                "export_names": export_names,
                "atoms": atoms[0],
                "atom_names": atoms[1],
                "atom_sources": atoms[2],
                "pieces": pieces[0],
                "piece_functions": pieces[1],
                "pool": np.frombuffer(pool, np.uint8),
                "table": np.frombuffer(table.data if table else b"", np.uint8),
            },
        )
        sys.stdout.buffer.flush()
        del reader


def choose_slice(path: str, uuid: UUID) -> Slice:
    """Return the image of a UUID in a file, or the only one that there is. Raises MachOError."""
    images = identify(Path(path))
    chosen = next((image for image in images if image.uuid == uuid), images[0] if len(images) == 1 else None)
    if chosen is None:
        raise MachOError(f"none of {len(images)} images has the UUID {uuid}")
    return chosen


def _atoms(
    code: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint32],
    symbols: NamedOffsets,
    exports: npt.NDArray[np.uint32],
    export_names: npt.NDArray[np.uint32],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """Return offset, name and source of whatever begins in code, each offset once: what has a name first."""
    unnamed = np.full(len(starts), NONE, np.uint32)
    offsets = np.concatenate((symbols.offsets, exports, starts))
    names = np.concatenate((symbols.names, export_names, unnamed))
    kinds = [(symbols.offsets, NameSource.SYMBOL), (exports, NameSource.EXPORT), (starts, NameSource.FUNCTION_START)]
    sources = np.concatenate([np.full(len(column), _SOURCES[kind], np.uint8) for column, kind in kinds])
    order = np.lexsort((sources, offsets))
    order = order[np.diff(offsets[order].astype(np.int64), prepend=-1) != 0]
    section = np.searchsorted(code[:, 0], offsets[order], "right") - 1
    inside = section >= 0
    inside[inside] = offsets[order][inside] < code[section[inside], 1]
    order = order[inside]
    return offsets[order], names[order], sources[order]


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
