"""Which source files the line tables of an image name.

Source: DWARF 4 and 5, 6.2.4 (the line number program header).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress

from symcache.errors import MachOError
from symcache.macho import Section, mach_header

__all__ = ["names_file"]

_LINES = {"__debug_line", "__debug_line_str"}
_MAX_COMMANDS = 1 << 20
_PIECE = 4 << 20
_NO_NAMES = 64
"""Line tables up to this size in bytes name no file."""


def names_file(descriptor: int, name: str) -> bool:
    """Return whether the line tables of a thin image name a file so, in any folder; closes the descriptor.

    True, too, where it has no line tables to look into: then nothing is known against it.
    """
    with os.fdopen(descriptor, "rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            return True
    with view:
        tables = list(_line_tables(view[:_MAX_COMMANDS]))
        wanted = name.encode() + b"\0"
        ends = [(s.offset, min(s.offset + s.size, len(view))) for s in tables]
        return not tables or any(_contains(view, wanted, start, end) for start, end in ends)


def _line_tables(head: bytes) -> Iterator[Section]:
    # Those that reach beyond the file, too: what is looked into refuses names that are not found.
    with suppress(MachOError):
        if header := mach_header(head):
            for command in header.load_commands(head, {header.structs.lc_segment}):
                yield from (s for s in command.sections() if s.sectname in _LINES and s.size > _NO_NAMES)


def _contains(view: mmap.mmap, wanted: bytes, start: int, end: int) -> bool:
    # Piece by piece: while one is searched, no other request is served.
    pieces = range(start, end, _PIECE)
    return any(view.find(wanted, at, min(end, at + _PIECE + len(wanted))) >= 0 for at in pieces)
