"""The load commands of one thin image that say where its bytes must be, and the checks that need nothing else.

Source: struct segment_command(_64), section(_64), symtab_command, dysymtab_command, linkedit_data_command,
dyld_info_command (<mach-o/loader.h>).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from symcache.errors import MachOError
from symcache.macho import LC, MAX_COMMANDS, MH, MachHeader, Segment, Slice, Symtab, identify_bytes, mach_header
from symcache.verify.findings import FindingCode

__all__ = ["HEADER_SIZE", "Layout", "Problem", "commands_end", "parse_layout"]

HEADER_SIZE = 32
"""Bytes that tell how long the load commands are."""
_DYLD_INFO_PARTS = ("rebase", "bind", "weak bind", "lazy bind", "export")

Problem = tuple[FindingCode, str]
"""What is wrong with one content, before it is known which releases it belongs to."""


@dataclass
class Layout:
    """Where the parts of an image lie, as its load commands have it."""

    image: Slice
    """What it is."""
    header: MachHeader
    segments: list[Segment] = field(default_factory=list)
    hollow: set[Segment] = field(default_factory=set)
    """Those without one byte in the file, although they have sections that need some."""
    symtab: Symtab | None = None
    defined_at: int = 0
    """Index of the first external symbol (iextdefsym of LC_DYSYMTAB)."""
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    """Everything else that lies in the link edit: (name, file offset, size)."""

    @property
    def text(self) -> Segment | None:
        """__TEXT, or None (a dSYM has one without bytes)."""
        return next((s for s in self.segments if s.segname == "__TEXT"), None)

    @property
    def linkedit(self) -> Segment | None:
        """__LINKEDIT, or None."""
        return next((s for s in self.segments if s.segname == "__LINKEDIT"), None)

    def problems(self, size: int) -> Iterator[Problem]:
        """Yield what cannot be in a file of `size` bytes: the first thing of each kind."""
        for s in self.segments:
            if s.segname == "__LINKEDIT":
                continue
            if s.filesize and s.fileoff + s.filesize > size:
                text = f"segment {s.segname} ends at {s.fileoff + s.filesize:#x}, the file at {size:#x}"
            elif s in self.hollow and self.image.filetype != MH.DSYM:
                text = f"segment {s.segname} has sections but not one byte in the file"
            else:
                continue
            yield FindingCode.TRUNCATED, text
            return  # the link edit lies behind all segments: nothing new to say of it
        parts = [(s.segname, s.fileoff, s.filesize) for s in self.segments]  # all but __LINKEDIT end within it
        if table := self.symtab:
            parts.append(("the symbol table", table.symoff, table.nsyms * self.header.structs.nlist_size))
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
    header = mach_header(head)
    if header is None:
        return 0
    if header.sizeofcmds > MAX_COMMANDS:
        raise MachOError(f"{header.sizeofcmds} bytes of load commands where at most {MAX_COMMANDS} were expected")
    return header.commands_end


def parse_layout(head: bytes, size: int) -> Layout:
    """Parse the load commands in `head` of an image of `size` bytes. Raises MachOError."""
    slices = identify_bytes(head, size)  # proves that the load commands lie in `head`
    header = mach_header(head)
    if len(slices) != 1 or header is None:
        raise MachOError(f"holds {len(slices)} images where one thin Mach-O was expected")
    layout = Layout(slices[0], header)
    for command in header.load_commands(head):
        if segment := command.segment():
            layout.segments.append(segment)
            if any(section.size and not section.zerofill for section in command.sections()) and not segment.filesize:
                layout.hollow.add(segment)
        elif symtab := command.symtab():
            layout.symtab = symtab
        elif dysymtab := command.dysymtab():
            layout.defined_at = dysymtab.iextdefsym
            layout.parts.append(("indirect symbol table", dysymtab.indirectsymoff, dysymtab.nindirectsyms * 4))
        elif data := command.linkedit_data():
            layout.parts.append((f"the data of LC_{LC(command.cmd).name}", *data))
        elif info := command.dyld_info():
            for number, name in enumerate(_DYLD_INFO_PARTS):
                layout.parts.append((f"{name} info", info[2 * number], info[2 * number + 1]))
    return layout
