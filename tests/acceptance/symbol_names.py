"""What we call addresses, what Apple's programs call them, and whether that is the same."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from symcache.symbolicate import Content, Location, NamesFolder, NameSource
from tests.acceptance.mac import Mac
from tests.acceptance.part import SkippedError
from tests.dyld.macho_reader import MachO

__all__ = ["Name", "atos_name", "atos_names", "judge", "our_names", "symbols_at"]

_ATOS = re.compile(r"(?P<name>.+?) \(in [^()]+\)(?: \+ (?P<offset>\d+)| \([^()]*:\d+\))?\Z")
_NO_NAME = re.compile(r"(?:0x)?[0-9a-fA-F]+\Z")
_MANGLED = re.compile(r"_?(?:_Z|\$[sSe]|_T)|___Z")
_MOST_NAMES = 8 << 30
_STABS = 0xE0
_SECTION = 0xE


@dataclass(frozen=True)
class Name:
    """What code is called, and where the function begins, from the image's header; None where that is not said."""

    function: str
    symbol: str
    """As the image has it; empty where it is not known."""
    start: int | None


def our_names(mac: Mac, image: Path, uuid: UUID | None, offsets: Sequence[int]) -> list[Name | None]:
    """Return what we call code in a thin image, `offsets` bytes from its header; starts are from there, too.

    That a function without a name begins somewhere is no name.
    """
    if uuid is None:
        raise SkippedError("an image without a UUID", "nothing can be done")
    content = Content(hashlib.sha256(image.read_bytes()).hexdigest(), lambda: os.open(image, os.O_RDONLY))
    known = NamesFolder(mac.work / "names", _MOST_NAMES).open(uuid, [content])
    return [_our_name(location) for location in known.look_up(np.array(offsets, np.int64))]


def _our_name(location: Location | None) -> Name | None:
    if location is None or location.source is NameSource.FUNCTION_START:
        return None
    call = location.calls[-1]
    return Name(call.function, call.symbol, location.start)


def atos_names(mac: Mac, image: str | Path, arch: str, load: int, offsets: Sequence[int]) -> list[Name | None]:
    """Return what `atos` calls code in an image whose header lies at `load`; all None where it cannot read it."""
    listed = mac.work / "addresses.txt"
    listed.write_text("".join(f"{load + offset:#x}\n" for offset in offsets))
    done = mac.run("atos", "-o", image, "-arch", arch, "-l", f"{load:#x}", "-f", listed, seconds=600)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(offsets):
        return [None] * len(offsets)
    return [atos_name(line.strip(), offset) for line, offset in zip(lines, offsets, strict=True)]


def atos_name(line: str, offset: int) -> Name | None:
    """Parse `NAME (in IMAGE) + 12`, `NAME (in IMAGE) (FILE:LINE)` or `NAME (in IMAGE)`; an address is no name."""
    match = _ATOS.match(line)
    if match is None or _NO_NAME.match(match["name"]):
        return None
    inside = match["offset"]
    at_start = line.endswith(")") and inside is None and ":" not in line[match.end("name") :]
    return Name(match["name"], "", offset - int(inside) if inside else offset if at_start else None)


def symbols_at(image: MachO) -> dict[int, set[str]]:
    """Return all names that an image's symbol table has, as C has them, by offset from its header."""
    header = image.segment("__TEXT").vmaddr
    found: dict[int, set[str]] = {}
    for symbol in image.symbols:
        if not symbol.type & _STABS and symbol.type & 0xE == _SECTION:
            found.setdefault(symbol.value - header, set()).add(symbol.name.removeprefix("_"))
    return found


def judge(ours: Name | None, theirs: Name | None, known: dict[int, set[str]]) -> str:
    """Return how two names of one place compare: a word for counting.

    Only `another function`, `another name` and `no name here` speak against us. Spelling is what demanglers differ in,
    an alias is another symbol at the same address.
    """
    if ours is None or theirs is None:
        return "no name at all" if ours is theirs else "no name here" if ours is None else "no name there"
    if ours.function == theirs.function:
        same = theirs.start is None or ours.start == theirs.start
        return "same" if same else "another function"
    if theirs.start is not None and ours.start != theirs.start:
        return "another function"
    if theirs.function in known.get(ours.start or 0, ()):
        return "alias"
    mangled = any(_MANGLED.match(name) for name in (ours.symbol, *known.get(ours.start or 0, ())))
    return "spelling" if mangled else "another name"
