"""How much of its symbol table an image still has, and which code it holds: what tells a stripped twin from a rival.

Sources: struct symtab_command, segment_command(_64), section(_64) (<mach-o/loader.h>).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import NamedTuple

from symcache.errors import MachOError
from symcache.macho.constants import LC_SEGMENT, LC_SEGMENT_64, LC_SYMTAB
from symcache.macho.load_commands import mach_header

__all__ = ["CodeFingerprint", "code_fingerprint"]

_TEXT = b"__TEXT".ljust(16, b"\0")
_TEXT_SECTION = b"__text".ljust(16, b"\0")


class CodeFingerprint(NamedTuple):
    """Counts and byte ranges inside one thin image."""

    symbols: int
    """Entries of LC_SYMTAB; 0 without one."""
    text_offset: int
    """Of the section `__TEXT,__text` from the start of the image."""
    text_size: int
    """In bytes; 0 when it has none in the file (a dSYM)."""


def code_fingerprint(head: bytes, size: int) -> CodeFingerprint:
    """Return the fingerprint of an image of `size` bytes that begins with `head` and that `identify_bytes` accepted.

    What lies outside of `head`, or claims to lie outside of the image, counts as absent.
    """
    header = mach_header(head)
    if header is None:
        return CodeFingerprint(0, 0, 0)
    order, wide = header.order, header.wide
    end = min(len(head), header.size + header.sizeofcmds)
    segment, own, section = (LC_SEGMENT_64, 72, 80) if wide else (LC_SEGMENT, 56, 68)
    symbols = text_offset = text_size = 0
    with suppress(MachOError):
        for cmd, position, cmdsize in header.commands(head):
            if cmd == LC_SYMTAB and cmdsize >= 24:
                (symbols,) = struct.unpack_from(order + "I", head, position + 12)
            elif cmd == segment and cmdsize >= own and head[position + 8 : position + 24] == _TEXT:
                (count,) = struct.unpack_from(order + "I", head, position + own - 8)
                for start in range(position + own, position + own + min(count * section, cmdsize - own), section):
                    if head[start : start + 16] == _TEXT_SECTION and start + section <= end:
                        if wide:
                            length, offset = struct.unpack_from(order + "QI", head, start + 40)
                        else:
                            length, offset = struct.unpack_from(order + "2I", head, start + 36)
                        if offset > 0 and offset + length <= size:
                            text_offset, text_size = offset, length
    return CodeFingerprint(symbols, text_offset, text_size)
