"""Where the segments and sections of an image lie, in memory and in its file.

Source: struct segment_command, segment_command_64, section, section_64 (<mach-o/loader.h>).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from symcache.errors import MachOError
from symcache.macho.constants import LC_SEGMENT, LC_SEGMENT_64
from symcache.macho.load_commands import mach_header

__all__ = ["Section", "file_end", "sections", "text_address"]

_ZEROFILL = {0x1, 0xC, 0x12}
"""S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL: section types without bytes in the file."""


class _Segment(NamedTuple):
    name: bytes
    vmaddr: int
    fileoff: int
    filesize: int
    headers: bytes
    """Of its sections, as they follow the command."""
    order: str
    """Of bytes, as `struct` writes it."""


class Section(NamedTuple):
    """One section that has bytes in the file: `offset` from the start of the image, `size` in bytes."""

    segment: str
    name: str
    offset: int
    size: int


def sections(head: bytes, size: int) -> Iterator[Section]:
    """Yield the sections of a thin image of `size` bytes that begins with `head`, if they lie inside of it.

    In a dSYM the sections of the binary are described as well, but only those of its own segments have bytes.
    """
    for segment in _segments(head):
        wide = segment.order.endswith("Q")
        layout = struct.Struct(segment.order[0] + ("16s16s2Q2I2I4I" if wide else "16s16s2I2I2I3I"))
        for position in range(0, len(segment.headers) - layout.size + 1, layout.size):
            name, owner, _, length, offset, _, _, _, flags, *_ = layout.unpack_from(segment.headers, position)
            inside = segment.fileoff <= offset and offset + length <= min(size, segment.fileoff + segment.filesize)
            if length and inside and flags & 0xFF not in _ZEROFILL:
                yield Section(_text(owner), _text(name), offset, length)


def text_address(head: bytes) -> int | None:
    """Return the unslid address of the Mach-O header of a thin image that begins with `head`: `vmaddr` of `__TEXT`.

    None when `head` is no Mach-O, or its load commands name no such segment or reach beyond it before they do.
    """
    return next((s.vmaddr for s in _segments(head) if s.name == b"__TEXT"), None)


def file_end(head: bytes) -> int:
    """Return how long the file of a thin image that begins with `head` must be at least to hold its segments."""
    return max((s.fileoff + s.filesize for s in _segments(head) if s.filesize), default=0)


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("utf-8", "replace")


def _segments(head: bytes) -> Iterator[_Segment]:
    header = mach_header(head)
    if header is None:
        return
    order = header.order
    layouts = {LC_SEGMENT: struct.Struct(order + "16s4I"), LC_SEGMENT_64: struct.Struct(order + "16s4Q")}
    with suppress(MachOError):
        for cmd, position, cmdsize in header.commands(head):
            layout = layouts.get(cmd)
            if layout is not None and cmdsize >= 8 + layout.size:
                name, vmaddr, _, fileoff, filesize = layout.unpack_from(head, position + 8)
                wide = cmd == LC_SEGMENT_64
                start = position + 8 + layout.size + 16  # maxprot, initprot, nsects, flags
                count = struct.unpack_from(order + "I", head, start - 8)[0] if position + cmdsize >= start else 0
                headers = head[start : min(position + cmdsize, start + count * (80 if wide else 68))]
                yield _Segment(name.rstrip(b"\0"), vmaddr, fileoff, filesize, headers, order + ("Q" if wide else "I"))
