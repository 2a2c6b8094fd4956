"""Breakpad symbol files made from binaries and their dSYMs, as Breakpad's own `dump_syms` makes them on macOS.

Functions, source lines and inlined calls come from DWARF, if the dSYM or the binary has any; every symbol and export
that begins no such function is a PUBLIC record; how to unwind the stack comes from `__eh_frame` and `__unwind_info`.
Names of C++ are demangled, and others lose the underscore that C puts in front; those of Swift stay as they are, as in
`dump_syms`.

The files are read as for names of addresses (`symcache.symbolicate`), in a process of its own (see `child`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from symcache.errors import MachOError
from symcache.text import printable
from symcache_server.convert.child import begin_output, write_by_child

if TYPE_CHECKING:
    from symcache.symbolicate import Artifact

__all__ = ["REVISION", "make_symbol_file"]

REVISION = 3
"""Part of the name that a made file is cached under."""
_LONGEST_MANGLED = 1 << 12
"""A mangled name may stand for one that is exponentially longer."""
_ARCHES = {"i386": "x86"}
"""What Breakpad calls architectures that it does not call as Apple does."""


def make_symbol_file(images: Sequence[int], uuid: UUID, arch: str, name: str, target: Path) -> None:
    """Write the symbol file of a module to `target`, which appears whole or not at all.

    `images` are open descriptors: of its dSYM, if it has one, and of its binary, thin or universal. Raises
    IntegrityError when the symbols cannot be read, StorageError and OSError when that is nobody's fault.
    """
    write_by_child(
        "symcache_server.convert.breakpad",
        [str(uuid)],
        images,
        target,
        head=f"MODULE mac {_ARCHES.get(arch, arch)} {uuid.hex.upper()}0 {printable(name)}\n".encode(),
        unreadable=f"{printable(name)}: its symbols cannot be read",
    )


def main() -> None:
    """Print the records of the UUID and images named on the command line: a dSYM, if there is one, and the binary."""
    begin_output()
    sys.stdout.writelines(_records(UUID(sys.argv[1]), sys.argv[2:]))


def _records(uuid: UUID, images: Sequence[str]) -> Iterator[str]:
    # Only the child needs these imports.
    from symcache_server.convert.breakpad_records import Debug, public_records  # noqa: PLC0415

    artifacts = [artifact for image in images if (artifact := _artifact(uuid, image))]
    if not artifacts:
        sys.exit(1)
    demangle = _demangler()
    written: set[int] = set()
    if table := next((artifact.table for artifact in artifacts if artifact.table), None):
        debug = Debug(table, demangle)
        yield from debug.records()
        written = debug.addresses
    symbols: dict[int, str] = {}
    for artifact in artifacts:
        for address, place in zip(artifact.symbols.tolist(), artifact.symbol_names.tolist(), strict=True):
            if (
                address not in symbols
                and (name := artifact.name(place).decode("utf-8", "surrogateescape")).isprintable()
            ):
                symbols[address] = demangle(name)
    yield from public_records(symbols, written)
    yield from _unwinding(uuid, images)


def _artifact(uuid: UUID, image: str) -> Artifact | None:
    """Return what names the code of an image; None if it cannot be read."""
    from symcache.symbolicate import Artifact, build  # noqa: PLC0415

    made = BytesIO()
    try:
        build(uuid, image, made)
    except (MachOError, ValueError):
        return None
    return Artifact(made.getbuffer())


def _unwinding(uuid: UUID, images: Sequence[str]) -> Iterator[str]:
    """Yield STACK CFI records: of the binary, since a dSYM has the section but not its bytes."""
    import numpy as np  # noqa: PLC0415
    from symbolic.debuginfo import Archive  # noqa: PLC0415
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    from symcache.symbolicate import choose_slice  # noqa: PLC0415
    from symcache_server.convert.breakpad_unwinding import unwinding_records  # noqa: PLC0415

    for image in reversed(images):
        try:
            slices = list(Archive.open(image).iter_objects())
            thing = next(thing for thing in slices if len(slices) == 1 or thing.debug_id == str(uuid))
            data = np.memmap(image, np.uint8, "r").data
            chosen = choose_slice(data, uuid)
            records = unwinding_records(thing, data[chosen.offset : chosen.offset + chosen.size])
        except (SymbolicError, MachOError, StopIteration):
            continue
        if records:
            yield records
            return


def _demangler() -> Callable[[str], str]:
    """Return what makes names of C++ readable."""
    import lief  # noqa: PLC0415

    symbol = lief.MachO.Symbol()

    def demangle(name: str) -> str:
        if name.startswith("_Z") and len(name) <= _LONGEST_MANGLED:
            symbol.name = name
            name = str(symbol.demangled_name) or name
        return printable(name) or "<name omitted>"

    return demangle


if __name__ == "__main__":
    main()
