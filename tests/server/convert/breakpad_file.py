"""Breakpad symbol files read by the letter of `docs/symbol_files.md`, for the tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Function", "SymbolFile", "parse"]

_HEX, _NUMBER, _REST = r"([0-9a-f]+)", r"([0-9]+)", r"(.+)"
_RULE = r"[.$a-z0-9]+: [^:\n]+"
_RECORDS = {
    "MODULE": re.compile(rf"MODULE mac (\S+) ([0-9A-F]{{33}}) {_REST}"),
    "FILE": re.compile(rf"FILE {_NUMBER} {_REST}"),
    "INLINE_ORIGIN": re.compile(rf"INLINE_ORIGIN {_NUMBER} {_REST}"),
    "FUNC": re.compile(rf"FUNC (?:m )?{_HEX} {_HEX} {_HEX} {_REST}"),
    "INLINE": re.compile(rf"INLINE {_NUMBER} {_NUMBER} {_NUMBER} {_NUMBER}((?: [0-9a-f]+ [0-9a-f]+)+)"),
    "PUBLIC": re.compile(rf"PUBLIC (?:m )?{_HEX} {_HEX} {_REST}"),
    "STACK": re.compile(rf"STACK CFI(?: INIT {_HEX} {_HEX}| {_HEX}) ((?:{_RULE})+)"),
}
_LINE = re.compile(rf"{_HEX} {_HEX} {_NUMBER} {_NUMBER}")
_ORDER = ["MODULE", "FILE", "INLINE_ORIGIN", "FUNC", "PUBLIC", "STACK"]


class Frame(NamedTuple):
    """One function that an address is in: its name, and the place in the source."""

    name: str
    file: str
    line: int


@dataclass
class Function:
    """A FUNC record and what belongs to it."""

    address: int
    size: int
    name: str
    lines: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Address, size, line, file."""
    inlined: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    """Level, line and file of the call, origin, address, size."""


@dataclass
class SymbolFile:
    """All records of a file."""

    module: str = ""
    files: dict[int, str] = field(default_factory=dict)
    origins: dict[int, str] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)
    public: dict[int, str] = field(default_factory=dict)
    cfi: list[tuple[int, int, str]] = field(default_factory=list)
    """Address, size (0 where the rules of an earlier record change), rules."""

    def names(self) -> dict[str, int]:
        """Return the address of everything that has a name."""
        return {name: at for at, name in self.public.items()} | {f.name: f.address for f in self.functions}

    def frames(self, address: int) -> list[Frame]:
        """Return the functions that an address is in, the innermost first, as the document says to look them up."""
        (function,) = (f for f in self.functions if f.address <= address < f.address + f.size)
        ((_, _, line, file),) = (r for r in function.lines if r[0] <= address < r[0] + r[1])
        calls = sorted(r for r in function.inlined if r[4] <= address < r[4] + r[5])
        assert [level for level, *_ in calls] == list(range(len(calls)))
        names = [function.name, *(self.origins[origin] for _, _, _, origin, _, _ in calls)]
        places = [*((self.files[r[2]], r[1]) for r in calls), (self.files[file], line)]
        return [Frame(name, *place) for name, place in zip(names, places, strict=True)][::-1]


def parse(body: bytes) -> SymbolFile:
    """Read a file; whatever the document does not allow fails."""
    found, stage = SymbolFile(), 0
    for text in body.decode().removesuffix("\n").split("\n"):
        kind = text.partition(" ")[0]
        record = _RECORDS.get(kind, _LINE).fullmatch(text)
        assert record, text
        if kind in _ORDER:
            assert _ORDER.index(kind) >= stage, text
            stage = _ORDER.index(kind)
        values = record.groups()
        if kind == "MODULE":
            found.module = text
        elif kind in {"FILE", "INLINE_ORIGIN"}:
            table = found.files if kind == "FILE" else found.origins
            assert table.setdefault(int(values[0]), values[1]) == values[1], text
        elif kind == "FUNC":
            found.functions.append(Function(int(values[0], 16), int(values[1], 16), values[3]))
        elif kind == "INLINE":
            pieces = [int(piece, 16) for piece in values[4].split()]
            level, line, file, origin = map(int, values[:4])
            for address, size in zip(pieces[::2], pieces[1::2], strict=True):
                found.functions[-1].inlined.append((level, line, file, origin, address, size))
        elif kind == "PUBLIC":
            assert found.public.setdefault(int(values[0], 16), values[2]) == values[2], text
        elif kind == "STACK":
            found.cfi.append((int(values[0] or values[2], 16), int(values[1] or "0", 16), values[3]))
        else:
            function = found.functions[-1]
            address, size = int(values[0], 16), int(values[1], 16)
            assert function.address <= address < address + size <= function.address + function.size, text
            function.lines.append((address, size, int(values[2]), int(values[3])))
    return found
