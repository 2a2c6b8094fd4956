"""Which source files the line tables of an image name.

Source: DWARF 4 and 5, 6.2.4 (the line number program header).
"""

from __future__ import annotations

import mmap
import os

from symcache.macho import sections

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
        known = sections(view[:_MAX_COMMANDS], len(view))
        found = [s for s in known if s.sectname in _LINES and s.size > _NO_NAMES]
        wanted = name.encode() + b"\0"
        return not found or any(_contains(view, wanted, s.offset, s.offset + s.size) for s in found)


def _contains(view: mmap.mmap, wanted: bytes, start: int, end: int) -> bool:
    # Piece by piece: while one is searched, no other request is served.
    pieces = range(start, end, _PIECE)
    return any(view.find(wanted, at, min(end, at + _PIECE + len(wanted))) >= 0 for at in pieces)
