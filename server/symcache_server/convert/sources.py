"""Which source files the line tables of an image name.

Source: DWARF 4 and 5, 6.2.4 (the line number program header).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress

from symcache.errors import MachOError
from symcache.macho import load_commands, mach_header
from symcache.macho.constants import LC_SEGMENT_64

__all__ = ["names_file"]

_SECTION = struct.Struct("<16s16s2QI")
_SEGMENT_SIZE, _SECTION_SIZE = 72, 80
_LINES = {b"__debug_line", b"__debug_line_str"}
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
        found = [(start, start + size) for start, size in _line_tables(view) if size > _NO_NAMES]
        wanted = name.encode() + b"\0"
        return not found or any(_contains(view, wanted, start, min(end, len(view))) for start, end in found)


def _contains(view: mmap.mmap, wanted: bytes, start: int, end: int) -> bool:
    # Piece by piece: while one is searched, no other request is served.
    pieces = range(start, end, _PIECE)
    return any(view.find(wanted, at, min(end, at + _PIECE + len(wanted))) >= 0 for at in pieces)


def _line_tables(view: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of the sections that hold file names."""
    header = mach_header(view)
    if header is None or not header.wide or header.order != "<":
        return
    end = header.size + min(header.sizeofcmds, _MAX_COMMANDS)
    with suppress(MachOError):
        for cmd, position, cmdsize in load_commands(view, header.ncmds, header.size, end):
            if cmd == LC_SEGMENT_64:
                for entry in range(position + _SEGMENT_SIZE, position + cmdsize - _SECTION_SIZE + 1, _SECTION_SIZE):
                    name, _, _, size, offset = _SECTION.unpack_from(view, entry)
                    if name.rstrip(b"\0") in _LINES:
                        yield offset, size
