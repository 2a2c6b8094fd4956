"""The load commands of one thin image that say where its bytes must be, and the checks that need nothing else.

Source: struct segment_command(_64), section(_64), symtab_command, dysymtab_command, linkedit_data_command,
dyld_info_command (<mach-o/loader.h>).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from symcache.errors import MachOError
from symcache.macho import MAX_COMMANDS, Slice, identify_bytes, mach_header
from symcache.verify.findings import FindingCode

__all__ = ["HEADER_SIZE", "Layout", "Problem", "Segment", "Symtab", "commands_end", "parse_layout"]

HEADER_SIZE = 32
"""Bytes that tell how long the load commands are."""
_SEGMENT, _SYMTAB, _DYSYMTAB, _SEGMENT_64 = 0x1, 0x2, 0xB, 0x19
_MH_DSYM = 10
_ZERO_FILL = {0x1, 0xC, 0x12}
"""S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL: sections without bytes in the file."""
_LINKEDIT_DATA = {
    0x1D: "code signature",
    0x1E: "segment split info",
    0x26: "function starts",
    0x29: "data in code",
    0x2B: "code signing requirements",
    0x2E: "linker optimization hints",
    0x8000_0033: "exports trie",
    0x8000_0034: "chained fixups",
}
_DYLD_INFO = {0x22, 0x8000_0022}
_DYLD_INFO_PARTS = ("rebase", "bind", "weak bind", "lazy bind", "export")

Problem = tuple[FindingCode, str]
"""What is wrong with one content, before it is known which releases it belongs to."""


class Segment(NamedTuple):
    """One segment command. `has_content` says whether any section needs bytes from the file."""

    name: str
    vmaddr: int
    vmsize: int
    fileoff: int
    filesize: int
    has_content: bool


class Symtab(NamedTuple):
    """symtab_command, with file offsets."""

    symoff: int
    nsyms: int
    stroff: int
    strsize: int


@dataclass
class Layout:
    """Where the parts of an image lie, as its load commands have it."""

    image: Slice
    """What it is."""
    order: str
    wide: bool
    commands_end: int
    segments: list[Segment] = field(default_factory=list)
    symtab: Symtab | None = None
    defined_at: int = 0
    """Index of the first external symbol (iextdefsym of LC_DYSYMTAB)."""
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    """Everything else that lies in the link edit: (name, file offset, size)."""

    @property
    def nlist_size(self) -> int:
        """Size of one symbol in bytes."""
        return 16 if self.wide else 12

    @property
    def text(self) -> Segment | None:
        """__TEXT, or None (a dSYM has one without bytes)."""
        return next((s for s in self.segments if s.name == "__TEXT"), None)

    @property
    def linkedit(self) -> Segment | None:
        """__LINKEDIT, or None."""
        return next((s for s in self.segments if s.name == "__LINKEDIT"), None)

    def problems(self, size: int) -> Iterator[Problem]:
        """Yield what cannot be in a file of `size` bytes: the first thing of each kind."""
        for s in self.segments:
            if s.name == "__LINKEDIT":
                continue
            if s.filesize and s.fileoff + s.filesize > size:
                text = f"segment {s.name} ends at {s.fileoff + s.filesize:#x}, the file at {size:#x}"
            elif not s.filesize and s.has_content and self.image.filetype != _MH_DSYM:
                text = f"segment {s.name} has sections but not one byte in the file"
            else:
                continue
            yield FindingCode.TRUNCATED, text
            return  # the link edit lies behind all segments: nothing new to say of it
        parts = [(s.name, s.fileoff, s.filesize) for s in self.segments if s.name == "__LINKEDIT"]
        if self.symtab:
            table = self.symtab
            parts.append(("the symbol table", table.symoff, table.nsyms * self.nlist_size))
            parts.append(("the string pool", table.stroff, table.strsize))
        for what, start, length in parts + self.parts:
            if length and start + length > size:
                text = f"{what} ends at {start + length:#x}, the file at {size:#x}"
                yield FindingCode.TRUNCATED_LINKEDIT, text
                return


def commands_end(head: bytes) -> int:
    """Return how many bytes header and load commands take together, from the first `HEADER_SIZE` bytes.

    0 for what is no thin Mach-O. Raises MachOError when the number is absurd.
    """
    header = mach_header(head) if len(head) >= HEADER_SIZE else None
    if header is None:
        return 0
    if header.sizeofcmds > MAX_COMMANDS:
        raise MachOError(f"{header.sizeofcmds} bytes of load commands where at most {MAX_COMMANDS} were expected")
    return header.size + header.sizeofcmds


def parse_layout(head: bytes, size: int) -> Layout:
    """Parse the load commands in `head` of an image of `size` bytes. Raises MachOError."""
    slices = identify_bytes(head, size)  # proves that the load commands lie in `head`
    header = mach_header(head)
    if len(slices) != 1 or header is None:
        raise MachOError(f"holds {len(slices)} images where one thin Mach-O was expected")
    order, wide = header.order, header.wide
    layout = Layout(slices[0], order, wide, header.size + header.sizeofcmds)
    pair = struct.Struct(order + "2I")
    for cmd, position, cmdsize in header.commands(head):
        if cmd == (_SEGMENT_64 if wide else _SEGMENT):
            layout.segments.append(_segment(layout, head, position, cmdsize))
        elif cmd == _SYMTAB:
            _need(cmdsize, 24, "LC_SYMTAB")
            layout.symtab = Symtab(*struct.unpack_from(order + "4I", head, position + 8))
        elif cmd == _DYSYMTAB:
            _need(cmdsize, 80, "LC_DYSYMTAB")
            (layout.defined_at,) = struct.unpack_from(order + "I", head, position + 16)
            offset, count = pair.unpack_from(head, position + 56)
            layout.parts.append(("indirect symbol table", offset, count * 4))
        elif cmd in _LINKEDIT_DATA:
            _need(cmdsize, 16, "a link edit command")
            layout.parts.append((_LINKEDIT_DATA[cmd], *pair.unpack_from(head, position + 8)))
        elif cmd in _DYLD_INFO:
            _need(cmdsize, 48, "LC_DYLD_INFO")
            for number, name in enumerate(_DYLD_INFO_PARTS):
                layout.parts.append((f"{name} info", *pair.unpack_from(head, position + 8 + 8 * number)))
    return layout


def _segment(layout: Layout, head: bytes, position: int, cmdsize: int) -> Segment:
    order, wide = layout.order, layout.wide
    header, section = (72, 80) if wide else (56, 68)
    _need(cmdsize, header, "a segment command")
    name = head[position + 8 : position + 24].partition(b"\0")[0].decode("ascii", "replace")
    vmaddr, vmsize, fileoff, filesize = struct.unpack_from(order + ("4Q" if wide else "4I"), head, position + 24)
    (count,) = struct.unpack_from(order + "I", head, position + header - 8)
    if header + count * section > cmdsize:
        raise MachOError(f"{count} sections do not fit into a segment command of {cmdsize} bytes")
    has_content = False
    for number in range(count):
        start = position + header + number * section
        (length,) = struct.unpack_from(order + ("Q" if wide else "I"), head, start + (40 if wide else 36))
        (flags,) = struct.unpack_from(order + "I", head, start + (64 if wide else 56))
        has_content |= bool(length) and flags & 0xFF not in _ZERO_FILL
    return Segment(name, vmaddr, vmsize, fileoff, filesize, has_content)


def _need(cmdsize: int, size: int, what: str) -> None:
    if cmdsize < size:
        raise MachOError(f"{what} of {cmdsize} bytes where {size} were expected")
