"""Where the segments of an image lie, in memory and in its file.

Source: struct segment_command, segment_command_64 (<mach-o/loader.h>).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from symcache.macho.constants import LC_SEGMENT, LC_SEGMENT_64, MH_MAGIC, MH_MAGIC_64

__all__ = ["file_end", "text_address"]


class _Segment(NamedTuple):
    name: bytes
    vmaddr: int
    fileoff: int
    filesize: int


def text_address(head: bytes) -> int | None:
    """Return the unslid address of the Mach-O header of a thin image that begins with `head`: `vmaddr` of `__TEXT`.

    None when `head` is no Mach-O, or its load commands name no such segment or reach beyond it before they do.
    """
    return next((s.vmaddr for s in _segments(head) if s.name == b"__TEXT"), None)


def file_end(head: bytes) -> int:
    """Return how long the file of a thin image that begins with `head` must be at least to hold its segments."""
    return max((s.fileoff + s.filesize for s in _segments(head) if s.filesize), default=0)


def _segments(head: bytes) -> Iterator[_Segment]:
    for order in "<>":
        magic = struct.unpack_from(order + "I", head.ljust(4, b"\0"))[0]
        if magic in {MH_MAGIC, MH_MAGIC_64}:
            break
    else:
        return
    position = 32 if magic == MH_MAGIC_64 else 28
    if len(head) < position:
        return
    ncmds, sizeofcmds = struct.unpack_from(order + "2I", head, 16)
    end = min(len(head), position + sizeofcmds)
    layouts = {LC_SEGMENT: struct.Struct(order + "16s4I"), LC_SEGMENT_64: struct.Struct(order + "16s4Q")}
    for _ in range(ncmds):
        if position + 8 > end:
            return
        cmd, cmdsize = struct.unpack_from(order + "2I", head, position)
        if cmdsize < 8 or position + cmdsize > end:
            return
        layout = layouts.get(cmd)
        if layout is not None and cmdsize >= 8 + layout.size:
            name, vmaddr, _, fileoff, filesize = layout.unpack_from(head, position + 8)
            yield _Segment(name.rstrip(b"\0"), vmaddr, fileoff, filesize)
        position += cmdsize
