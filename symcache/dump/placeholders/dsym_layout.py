"""What a dSYM says of the image that it was made from: its segments and sections, where they were linked to be.

dsymutil copies the load commands of the image, without content, and adds segments of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import FormatError, MachOError
from symcache.kinds import Kind
from symcache.macho import LITTLE_64, LoadCommand, MachHeader, N, S, Section, Slice, Symtab, identify, mach_header

__all__ = ["CODE", "Function", "Layout", "LinkedSegment", "read_functions", "read_layout"]

_MAX_COMMANDS = 1 << 20
_MAX_SEGMENTS = 64
_MAX_SECTIONS = 255
"""What `n_sect` of a symbol can number."""
_MAX_TEXT = 1 << 30
_ADDRESSES = 1 << 47
CODE = S.ATTR_PURE_INSTRUCTIONS | S.ATTR_SOME_INSTRUCTIONS
"""All that is kept of a section's flags: its type says how to read content, and there is none."""
_OTHERS = {"__PAGEZERO", "__LINKEDIT", "__DWARF"}
_UNWIND = {"__unwind_info", "__eh_frame"}
"""Tables that LLDB would look into, and find empty."""
_MAX_SYMBOLS = 4 << 20


class LinkedSegment(NamedTuple):
    """One segment: address and size in bytes."""

    name: str
    address: int
    size: int
    sections: tuple[Section, ...]
    """Without content."""


class Layout(NamedTuple):
    """Segments with contents, `__TEXT` first, and the `cpusubtype` that the header has."""

    cpusubtype: int
    segments: list[LinkedSegment]


def read_layout(path: Path, uuid: UUID, cputype: int) -> Layout | None:
    """Return the segments of the image that the dSYM file at `path` is of.

    None where it is no dSYM of the image `uuid`, or its load commands are damaged or absurd: each is held against the
    others and against bounds, since the debugger does neither.
    """
    dsym = _read(path, uuid)
    if dsym is None or dsym.header.cputype != cputype:
        return None
    text = [s for s in dsym.segments if s.name == "__TEXT"]
    if len(text) != 1 or not 0 < text[0].size <= _MAX_TEXT or text[0].address & 0xFFF:
        return None
    placed = sorted(dsym.segments, key=lambda s: s.address)
    if any(a.address + a.size > b.address for a, b in pairwise(placed)):
        return None
    return Layout(dsym.header.cpusubtype, [*text, *(s for s in dsym.segments if s is not text[0])])


class Function(NamedTuple):
    """Start and end of a function, and the addresses in it that were asked for, ascending."""

    start: int
    end: int
    addresses: tuple[int, ...]


def read_functions(path: Path, uuid: UUID, addresses: Sequence[int]) -> list[Function]:
    """Return the functions that these linked addresses are in, by the dSYM's symbol table."""
    import numpy as np  # noqa: PLC0415 (takes its time to import, and most dumps need no dSYM alone)

    dsym, dtype = _read(path, uuid), LITTLE_64.nlist
    if dsym is None or dsym.symtab is None:
        return []
    offset, size = dsym.symtab.symoff, dsym.symtab.nsyms * dtype.itemsize
    if dsym.symtab.nsyms > _MAX_SYMBOLS or offset + size > dsym.image.size:
        return []
    with path.open("rb") as file:
        file.seek(dsym.image.offset + offset)
        symbols = np.frombuffer(file.read(size), dtype)
    text = [s for s in dsym.segments if s.name == "__TEXT"]
    if len(text) != 1 or text[0].size > _MAX_TEXT:
        return []
    ends = [section.addr + section.size for section in text[0].sections]
    starts = np.unique(symbols["n_value"][symbols["n_type"] & (N.STAB | N.TYPE) == N.SECT])
    starts = np.union1d(starts, np.array(ends, "<u8"))
    starts = starts[(starts >= text[0].address) & (starts <= text[0].address + text[0].size)]
    found: dict[tuple[int, int], set[int]] = {}
    for address in addresses:
        place = int(np.searchsorted(starts, address, "right"))
        if 0 < place < len(starts):
            found.setdefault((int(starts[place - 1]), int(starts[place])), set()).add(address)
    return [Function(start, end, tuple(sorted(inside))) for (start, end), inside in found.items()]


class _Dsym(NamedTuple):
    image: Slice
    header: MachHeader
    segments: list[LinkedSegment]
    symtab: Symtab | None


def _read(path: Path, uuid: UUID) -> _Dsym | None:
    """Return what the load commands of the dSYM say, None where there is none, or they are damaged or absurd."""
    try:
        found = [s for s in identify(path) if s.uuid == uuid and s.kind is Kind.DEBUGINFO]
        if not found:
            return None
        with path.open("rb") as file:
            file.seek(found[0].offset)
            beginning = file.read(LITTLE_64.header.size)
            header = mach_header(beginning)
            if header is None or header.structs is not LITTLE_64 or header.commands_end > _MAX_COMMANDS:
                return None
            beginning += file.read(header.sizeofcmds)
        commands = list(header.load_commands(beginning))
        symtab = next((table for c in commands if (table := c.symtab())), None)
        return _Dsym(found[0], header, _segments(commands), symtab)
    except (FormatError, OSError):
        return None


def _segments(commands: Sequence[LoadCommand]) -> list[LinkedSegment]:
    """Return the segments with contents. Raises MachOError where any is damaged or absurd."""
    segments: list[LinkedSegment] = []
    for command in commands:
        if (segment := command.segment()) is None:
            continue
        name, address, size, sections = segment.segname, segment.vmaddr, segment.vmsize, command.sections()
        if len(segments) >= _MAX_SEGMENTS or len(sections) > _MAX_SECTIONS or address + size > _ADDRESSES:
            raise MachOError(f"segment {name} with {len(sections)} sections, {size:#x} bytes at {address:#x}")
        if name in _OTHERS or not size:
            continue
        if any(not address <= s.addr <= s.addr + s.size <= address + size for s in sections):
            raise MachOError(f"a section lies outside of segment {name}")
        kept = tuple(_hollow(s) for s in sections if s.sectname not in _UNWIND)
        segments.append(LinkedSegment(name, address, size, kept))
    return segments


def _hollow(section: Section) -> Section:
    """Return a section without content."""
    align, flags = min(section.align, 15), section.flags & CODE
    return Section(section.sectname, section.segname, section.addr, section.size, 0, align, 0, 0, flags)
