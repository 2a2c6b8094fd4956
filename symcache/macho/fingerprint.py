"""Number of symbols and place of the code of an image: a stripped copy has the same code, another image has not.

Sources: struct symtab_command, segment_command(_64), section(_64) (<mach-o/loader.h>).
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from symcache.errors import MachOError
from symcache.macho.constants import LC
from symcache.macho.load_commands import mach_header

__all__ = ["CodeFingerprint", "code_fingerprint"]


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
    symbols = text_offset = text_size = 0
    with suppress(MachOError):
        for command in header.load_commands(head, {LC.SYMTAB, header.structs.lc_segment}) if header else ():
            if symtab := command.symtab():
                symbols = symtab.nsyms
            elif (segment := command.segment()) and segment.segname == "__TEXT":
                for section in command.sections():
                    if section.sectname == "__text" and 0 < section.offset <= size - section.size:
                        text_offset, text_size = section.offset, section.size
    return CodeFingerprint(symbols, text_offset, text_size)
