"""Breakpad symbol files made from binaries and their dSYMs, as Breakpad's own `dump_syms` makes them on macOS.

Functions, source lines and inlined calls come from DWARF, if the dSYM or the binary has any; every symbol that begins
no such function is a PUBLIC record; how to unwind the stack comes from `__unwind_info` and `__eh_frame`. Names of C++
are demangled, and others lose the underscore that C puts in front; those of Swift stay as they are, as in `dump_syms`.

The files are read by `symbolic` and LIEF, in a process of its own (see `child`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.macho import N
from symcache.text import printable
from symcache_server.convert.child import confine, write_by_child

__all__ = ["REVISION", "make_symbol_file"]

REVISION = 2
"""Part of the name that a made file is cached under."""
_LONGEST_MANGLED = 1 << 12
"""A mangled name may stand for one that is exponentially longer."""


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
        head=f"MODULE mac {arch} {uuid.hex.upper()}0 {printable(name)}\n".encode(),
        unreadable=f"{printable(name)}: its symbols cannot be read",
    )


def main() -> None:
    """Print the records of the UUID and images named on the command line: a dSYM, if there is one, and the binary."""
    confine()
    sys.stdout.writelines(_records(sys.argv[1], sys.argv[2:]))


def _records(uuid: str, images: Sequence[str]) -> Iterator[str]:
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    from symcache.symbolicate import SymbolicTable  # noqa: PLC0415
    from symcache_server.convert.breakpad_records import Debug, public_records  # noqa: PLC0415

    demangle = _demangler()
    symbols = _symbols(uuid, images, demangle)
    objects = _objects(uuid, images)
    written: set[int] = set()
    for thing in objects:
        if "debug" not in thing.features:
            continue
        try:
            debug = Debug(SymbolicTable(thing.make_symcache().open_stream().read()), demangle)
        except SymbolicError:  # what cannot be read tells nothing: the symbol tables remain
            continue
        yield from debug.records()
        written = debug.addresses
        break
    yield from public_records(symbols, written)
    yield from _unwinding(objects)


def _objects(uuid: str, images: Sequence[str]) -> list[Any]:
    """Return what `symbolic` makes of the images, as far as it can read them; of a universal file, the one slice."""
    from symbolic.debuginfo import Archive  # noqa: PLC0415
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    found: list[Any] = []
    for image in images:
        try:
            slices = list(Archive.open(image).iter_objects())
            found += [thing for thing in slices if len(slices) == 1 or thing.debug_id == uuid]
        except SymbolicError:
            continue
    return found


def _unwinding(objects: Sequence[Any]) -> Iterator[str]:
    """Yield STACK CFI records: of the binary, since a dSYM has the section but not its bytes."""
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    for thing in reversed(objects):
        try:
            records: bytes = thing.make_cficache().open_stream().read()
        except SymbolicError:
            continue
        if start := records.find(b"STACK CFI") + 1:  # behind a preamble, in some versions
            yield records[start - 1 :].decode("utf-8", "replace")
            return


def _symbols(uuid: str, images: Sequence[str], demangle: Callable[[str], str]) -> dict[int, str]:
    """Return the names of all symbols that are defined in sections, by address from the header."""
    import lief  # noqa: PLC0415

    found: dict[int, str] = {}
    for file in images:
        fat = lief.MachO.parse(file)
        if fat is None:
            sys.exit(1)
        for binary in fat:
            command = binary.uuid
            if len(fat) > 1 and (command is None or UUID(bytes=bytes(command.uuid)) != UUID(uuid)):
                continue
            text = binary.get_segment("__TEXT")
            base = text.virtual_address if text else 0
            for symbol in binary.symbols:
                kind = int(symbol.raw_type)
                if kind & N.TYPE == N.SECT and not kind & N.STAB and symbol.value >= base and symbol.name:
                    name = str(symbol.name).removeprefix("_")
                    if name.isprintable():
                        found.setdefault(symbol.value - base, demangle(name))
    return found


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
