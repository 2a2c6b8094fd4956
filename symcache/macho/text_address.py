"""Where an image wants to be loaded.

Source: struct segment_command, segment_command_64 (<mach-o/loader.h>).
"""

from __future__ import annotations

import struct

from symcache.macho.constants import LC_SEGMENT, LC_SEGMENT_64, MH_MAGIC, MH_MAGIC_64

__all__ = ["text_address"]

_TEXT = b"__TEXT".ljust(16, b"\0")


def text_address(head: bytes) -> int | None:
    """Return the unslid address of the Mach-O header of a thin image that begins with `head`: `vmaddr` of `__TEXT`.

    None when `head` is no Mach-O, or its load commands name no such segment or reach beyond it before they do.
    """
    for order in "<>":
        magic = struct.unpack_from(order + "I", head.ljust(4, b"\0"))[0]
        if magic in {MH_MAGIC, MH_MAGIC_64}:
            break
    else:
        return None
    position = 32 if magic == MH_MAGIC_64 else 28
    if len(head) < position:
        return None
    ncmds, sizeofcmds = struct.unpack_from(order + "2I", head, 16)
    end = min(len(head), position + sizeofcmds)
    for _ in range(ncmds):
        if position + 8 > end:
            return None
        cmd, cmdsize = struct.unpack_from(order + "2I", head, position)
        if cmdsize < 8 or position + cmdsize > end:
            return None
        if cmd in {LC_SEGMENT, LC_SEGMENT_64} and cmdsize >= 32 and head[position + 8 : position + 24] == _TEXT:
            return int(struct.unpack_from(order + ("Q" if cmd == LC_SEGMENT_64 else "I"), head, position + 24)[0])
        position += cmdsize
    return None
