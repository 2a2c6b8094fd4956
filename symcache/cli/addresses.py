"""Names for addresses in one image, used and printed as those of Apple's `atos`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from symcache.cli.common import emit_text, json_text, to_output
from symcache.errors import NotFoundError, UsageError
from symcache.kinds import uuid_text
from symcache.macho import header_address, identify, parse_uuid
from symcache.text import printable

if TYPE_CHECKING:
    from io import BufferedReader

    from symcache.resolve import SourceNamer
    from symcache.symbolicate import Call, Location

__all__ = ["AddressOptions", "WantedImage", "print_addresses", "wanted_image"]

_UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_HEX = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,16})")
_DECIMAL = re.compile(r"[0-9]{1,20}")
_OFFSETS = 1 << 32
_MAX_LINE = 1 << 20
_PARENTS = 4
"""Folders above a binary that may be the bundle which its dSYM lies beside."""


@dataclass(frozen=True, slots=True)
class WantedImage:
    """The image that addresses are in."""

    uuid: UUID
    name: str
    """As it is printed."""
    arch: str
    folders: tuple[Path, ...] = ()
    """Files and folders that may have its symbols."""
    linked: int | None = None
    """Address of its header as it was linked; None where there is no file that tells."""


@dataclass(frozen=True, slots=True)
class AddressOptions:
    """How addresses are read and printed."""

    load: str | None
    offset: bool
    inlines: bool
    full_path: bool
    json: bool


def wanted_image(text: str, arch: str | None) -> WantedImage | None:
    """Return the image that `-o` names: a binary, a dSYM or a UUID; None for what is to be a folder of reports."""
    if _UUID.fullmatch(text):
        return WantedImage(parse_uuid(text), text, arch or "")
    path = Path(text).expanduser()
    if path.is_dir() and path.suffix != ".dSYM":
        return None
    if path.is_dir():
        inside = path / "Contents" / "Resources" / "DWARF"
        files = [file for file in sorted(inside.iterdir()) if file.is_file()] if inside.is_dir() else []
    else:
        files = [path] if path.is_file() else []
    if not files:
        if path.suffix == ".dSYM":
            raise UsageError(f"{text}: has no symbols in Contents/Resources/DWARF", hint="name the dSYM, or a UUID")
        return None
    images = [(file, one) for file in files for one in identify(file) if one.uuid and one.kind]
    chosen = [(file, one) for file, one in images if arch in {None, one.arch}]
    if len({one.uuid for _, one in chosen}) != 1:
        listed = ", ".join(f"{one.arch} {uuid_text(one.uuid)}" for _, one in images if one.uuid)
        raise UsageError(
            f"{text}: " + ("which of its images?" if len(chosen) > 1 else "has no such image"),
            hint=f"name one with -arch: {listed}" if listed else "name a Mach-O binary, its dSYM, or a UUID",
        )
    (file, image), *_ = chosen
    uuid = image.uuid or UUID(int=0)
    places = (path, *path.absolute().parents[:_PARENTS])
    beside = [place.with_name(f"{place.name}.dSYM") for place in places if place.name]  # the root has none
    folders = (path, *(folder for folder in beside if folder.is_dir()))
    return WantedImage(uuid, file.name, image.arch, folders, header_address(file, uuid))


def print_addresses(image: WantedImage, addresses: Sequence[str], options: AddressOptions, namer: SourceNamer) -> None:
    """Print what is at each address, a line each; without addresses, those of standard input as they come.

    What is no address, or in no function, is printed as it was given. Raises UsageError, NotFoundError.
    """
    start = 0 if options.offset else _start(image, options.load, namer)
    first, known = True, False
    for some in [addresses] if addresses else _read_addresses():
        located = _located(image, some, start, namer)
        known |= any(found for *_, found in located)
        if options.json:
            rows = [_row(image, text, offset, location) for text, offset, location, _ in located]
            emit_text("".join(("[\n" if first and not n else ",\n") + json_text(row) for n, row in enumerate(rows)))
        else:
            lines = [line for text, offset, at, _ in located for line in _lines(image, text, offset, at, options)]
            with to_output():
                sys.stdout.write("".join(f"{line}\n" for line in lines))
                sys.stdout.flush()
        first = first and not some
    if options.json:
        emit_text("[]\n" if first else "\n]\n")
    if not known and not first:
        raise NotFoundError(
            f"{uuid_text(image.uuid)}: nobody has this image",
            hint="harvest the macOS release that it is from, or name a --server, or --symbols DIR",
        )


def _start(image: WantedImage, load: str | None, namer: SourceNamer) -> int:
    if load is not None:
        if not (match := _HEX.fullmatch(load)):
            raise UsageError(f"{load[:40]!r}: is no address", hint="write it in hex: -l 0x104320000")
        return int(match[1], 16)
    linked = image.linked if image.linked is not None else namer.linked_address(image.uuid)
    if linked is None:
        raise UsageError(
            "where was the image loaded?", hint="name its address with -l, or say that addresses are offsets: -offset"
        )
    return linked


def _read_addresses() -> Iterator[list[str]]:
    """Yield the words of standard input, as many as have come, when a line has ended."""
    stdin, rest = cast("BufferedReader", sys.stdin.buffer), b""
    while part := stdin.read1(1 << 16):
        whole, newline, rest = (rest + part).rpartition(b"\n")
        if newline:
            yield whole.decode("utf-8", "replace").split()
        elif len(rest) > _MAX_LINE:
            raise UsageError("standard input has a line that is too long", hint="one address a line")
    if rest:
        yield rest.decode("utf-8", "replace").split()


def _located(
    image: WantedImage, addresses: Iterable[str], start: int, namer: SourceNamer
) -> list[tuple[str, int | None, Location | None, bool]]:
    """Return of each address its text, its offset in the image, what is known, and whether there is the image."""
    import numpy as np

    from symcache.symbolicate import ModuleOffsets

    offsets = [(text, _offset(text, start)) for text in addresses]
    distinct = sorted({offset for _, offset in offsets if offset is not None})
    wanted = ModuleOffsets(image.uuid, image.name, image.name, image.arch, np.array(distinct, np.int64))
    (names,) = namer.look_up([wanted])
    known = dict(zip(distinct, names.locations, strict=True))
    return [(text, offset, known.get(offset) if offset is not None else None, names.found) for text, offset in offsets]


def _offset(text: str, start: int) -> int | None:
    if _DECIMAL.fullmatch(text):
        address = int(text)
    elif text[:2] in {"0x", "0X"} and (match := _HEX.fullmatch(text)):  # bare, half of them would be taken for decimal
        address = int(match[1], 16)
    else:
        return None
    return address - start if 0 <= address - start < _OFFSETS else None


def _lines(
    image: WantedImage, text: str, offset: int | None, location: Location | None, options: AddressOptions
) -> Iterator[str]:
    if location is None or offset is None:
        yield printable(text)
        return
    *inlined, outer = location.calls
    name = printable(image.name)
    for call in inlined if options.inlines else ():
        yield f"{call.function} (in {name}){_place(call, options)}"
    place = _place(outer, options) or f" + {offset - location.start}"
    mark = " [nearest]" if location.source == "nearest" else ""
    yield f"{outer.function} (in {name}){place}{mark}"


def _place(call: Call, options: AddressOptions) -> str:
    if not (call.file and call.line):
        return ""
    return f" ({call.file if options.full_path else call.file.rpartition('/')[2]}:{call.line})"


def _row(image: WantedImage, text: str, offset: int | None, location: Location | None) -> dict[str, Any]:
    outer = location.calls[-1] if location else None
    return {
        "address": text,
        "uuid": uuid_text(image.uuid),
        "module": image.name,
        "module_offset": offset,
        "function": outer.function if outer else None,
        "mangled": outer.symbol if outer and outer.symbol != outer.function else None,
        "offset": offset - location.start if location and offset is not None else None,
        "file": (outer.file or None) if outer else None,
        "line": outer.line if outer else None,
        "source": str(location.source) if location else None,
        "inlines": [
            {"function": call.function, "file": call.file or None, "line": call.line}
            for call in (location.calls[:-1] if location else ())
        ],
    }
