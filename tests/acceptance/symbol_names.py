"""What we call addresses, what Apple's programs call them, and whether that is the same."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symcache.dump.lldb_child import finder
from tests.acceptance.mac import Mac
from tests.acceptance.part import SkippedError
from tests.dyld.macho_reader import MachO

__all__ = ["Name", "atos_name", "atos_names", "judge", "our_names", "symbols_at"]

_ATOS = re.compile(r"(?P<name>.+?) \(in [^()]+\)(?: \+ (?P<offset>\d+)| \([^()]*:\d+\))?\Z")
_NO_NAME = re.compile(r"(?:0x)?[0-9a-fA-F]+\Z")
_MANGLED = re.compile(r"_?(?:_Z|\$[sSe]|_T)|___Z")
_STABS = 0xE0
_SECTION = 0xE


@dataclass(frozen=True)
class Name:
    """What an address is called, and the address where the function begins; None where that is not said."""

    function: str
    symbol: str
    """As the image has it; empty where it is not known."""
    start: int | None


def our_names(image: Path, arch: str, addresses: Sequence[int]) -> list[Name | None]:
    """Return what we call addresses in a thin image that was extracted, as it lies in its cache."""
    lldb = finder.find_lldb()
    if lldb is None:
        raise SkippedError("no LLDB can be imported", "pip install lldb-for-pwndbg, or xcode-select --install")
    request = {
        "package_folder": lldb.package_folder,
        "library": lldb.library,
        "finder": str(Path(finder.__file__).resolve()),
        "file": str(image),
        "triple": f"{arch}-apple-macosx",
        "addresses": list(addresses),
    }
    done = subprocess.run(
        lldb.command(str(Path(__file__).with_name("lldb_names.py"))),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise OSError(f"LLDB ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return [found and Name(found[0] or "", found[1] or "", found[2]) for found in json.loads(done.stdout)]


def atos_names(mac: Mac, image: str | Path, arch: str, load: int, addresses: Sequence[int]) -> list[Name | None]:
    """Return what `atos` calls addresses in an image whose header lies at `load`; all None where it cannot read it."""
    listed = mac.work / "addresses.txt"
    listed.write_text("".join(f"{address:#x}\n" for address in addresses))
    done = mac.run("atos", "-o", image, "-arch", arch, "-l", f"{load:#x}", "-f", listed, seconds=600)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(addresses):
        return [None] * len(addresses)
    return [atos_name(line.strip(), address) for line, address in zip(lines, addresses, strict=True)]


def atos_name(line: str, address: int) -> Name | None:
    """Parse `NAME (in IMAGE) + 12`, `NAME (in IMAGE) (FILE:LINE)` or `NAME (in IMAGE)`; an address is no name."""
    match = _ATOS.match(line)
    if match is None or _NO_NAME.match(match["name"]):
        return None
    offset = match["offset"]
    at_start = line.endswith(")") and offset is None and ":" not in line[match.end("name") :]
    return Name(match["name"], "", address - int(offset) if offset else address if at_start else None)


def symbols_at(image: MachO) -> dict[int, set[str]]:
    """Return all names that an image's symbol table has for an address, as C has them."""
    found: dict[int, set[str]] = {}
    for symbol in image.symbols:
        if not symbol.type & _STABS and symbol.type & 0xE == _SECTION:
            found.setdefault(symbol.value, set()).add(symbol.name.removeprefix("_"))
    return found


def judge(ours: Name | None, theirs: Name | None, known: dict[int, set[str]]) -> str:
    """Return how two names of one address compare: a word for counting.

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
