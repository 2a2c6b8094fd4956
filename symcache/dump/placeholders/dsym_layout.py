"""What a dSYM says of the image that it was made from: its segments and sections, where they were linked to be.

Source: struct segment_command_64, section_64 (<mach-o/loader.h>). dsymutil copies the commands of the image, without
content, and adds segments of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import FormatError, MachOError
from symcache.kinds import Kind
from symcache.macho import identify, load_commands
from symcache.macho.constants import LC_SEGMENT_64, LC_SYMTAB, MH_MAGIC_64

__all__ = ["Function", "Layout", "LinkedSection", "LinkedSegment", "read_functions", "read_layout"]

_MAX_COMMANDS = 1 << 20
_MAX_SEGMENTS = 64
_MAX_SECTIONS = 255
"""What `n_sect` of a symbol can number."""
_MAX_TEXT = 1 << 30
_ADDRESSES = 1 << 47
_CODE = 0x8000_0400
"""S_ATTR_PURE_INSTRUCTIONS | S_ATTR_SOME_INSTRUCTIONS; section types say how to read content, and there is none."""
_OTHERS = {b"__PAGEZERO", b"__LINKEDIT", b"__DWARF"}
_UNWIND = {b"__unwind_info", b"__eh_frame"}
"""Tables that LLDB would look into, and find empty."""
_SEGMENT = struct.Struct("<2I16s4Q4I")
_SECTION = struct.Struct("<16s16s2Q8I")
_SYMBOL = [("n_strx", "<u4"), ("n_type", "u1"), ("n_sect", "u1"), ("n_desc", "<u2"), ("n_value", "<u8")]
"""struct nlist_64 (<mach-o/nlist.h>), as numpy describes it."""
_SYMBOL_SIZE = 16
_N_STAB, _N_TYPE, _N_SECT = 0xE0, 0x0E, 0x0E
_MAX_SYMBOLS = 4 << 20


class LinkedSection(NamedTuple):
    """One section: address and size in bytes, alignment as a power of two."""

    name: bytes
    address: int
    size: int
    align: int
    flags: int


class LinkedSegment(NamedTuple):
    """One segment: address and size in bytes."""

    name: bytes
    address: int
    size: int
    sections: tuple[LinkedSection, ...]


class Layout(NamedTuple):
    """Segments with contents, `__TEXT` first, and the `cpusubtype` that the header has."""

    cpusubtype: int
    segments: list[LinkedSegment]


def read_layout(path: Path, uuid: UUID, cputype: int) -> Layout | None:
    """Return the segments of the image that the dSYM file at `path` is of.

    None where it is no dSYM of the image `uuid`, or its load commands are damaged or absurd: each is held against the
    others and against bounds, since the debugger does neither.
    """
    head = _head(path, uuid)
    if head is None or head.cputype != cputype:
        return None
    segments = _segments(head.commands, head.ncmds)
    if segments is None:
        return None
    text = [s for s in segments if s.name == b"__TEXT"]
    if len(text) != 1 or not 0 < text[0].size <= _MAX_TEXT or text[0].address & 0xFFF:
        return None
    placed = sorted(segments, key=lambda s: s.address)
    if any(a.address + a.size > b.address for a, b in pairwise(placed)):
        return None
    return Layout(head.cpusubtype, [*text, *(s for s in segments if s is not text[0])])


class Function(NamedTuple):
    """Start and end of a function, and the addresses in it that were asked for, ascending."""

    start: int
    end: int
    addresses: tuple[int, ...]


def read_functions(path: Path, uuid: UUID, addresses: Sequence[int]) -> list[Function]:
    """Return the functions that these linked addresses are in, by the dSYM's symbol table."""
    import numpy as np  # noqa: PLC0415 (takes its time to import, and most dumps need no dSYM alone)

    head = _head(path, uuid)
    tables = [c for c in _commands(head.commands, head.ncmds) or () if c[0] == LC_SYMTAB] if head else []
    if not head or not tables or tables[0][2] < 24:
        return []
    offset, count = struct.unpack_from("<2I", head.commands, tables[0][1] + 8)
    if count > _MAX_SYMBOLS or offset + count * _SYMBOL_SIZE > head.size:
        return []
    with path.open("rb") as file:
        file.seek(head.offset + offset)
        symbols = np.frombuffer(file.read(count * _SYMBOL_SIZE), _SYMBOL)
    text = [s for s in _segments(head.commands, head.ncmds) or () if s.name == b"__TEXT"]
    if len(text) != 1 or text[0].size > _MAX_TEXT:
        return []
    ends = [section.address + section.size for section in text[0].sections]
    starts = np.unique(symbols["n_value"][symbols["n_type"] & (_N_STAB | _N_TYPE) == _N_SECT])
    starts = np.union1d(starts, np.array(ends, "<u8"))
    starts = starts[(starts >= text[0].address) & (starts <= text[0].address + text[0].size)]
    found: dict[tuple[int, int], set[int]] = {}
    for address in addresses:
        place = int(np.searchsorted(starts, address, "right"))
        if 0 < place < len(starts):
            found.setdefault((int(starts[place - 1]), int(starts[place])), set()).add(address)
    return [Function(start, end, tuple(sorted(inside))) for (start, end), inside in found.items()]


class _Head(NamedTuple):
    offset: int
    size: int
    cputype: int
    cpusubtype: int
    ncmds: int
    commands: bytes


def _head(path: Path, uuid: UUID) -> _Head | None:
    """Return header and load commands of the dSYM, None where there is none, or they are cut."""
    try:
        found = [s for s in identify(path) if s.uuid == uuid and s.kind is Kind.DEBUGINFO]
        if not found:
            return None
        with path.open("rb") as file:
            file.seek(found[0].offset)
            magic, cputype, cpusubtype, _, count, size = struct.unpack_from("<6I", file.read(32))
            if magic != MH_MAGIC_64 or 32 + size > min(_MAX_COMMANDS, found[0].size):
                return None
            commands = file.read(size)
    except (FormatError, OSError, struct.error):
        return None
    return (
        _Head(found[0].offset, found[0].size, cputype, cpusubtype, count, commands) if len(commands) == size else None
    )


def _commands(commands: bytes, count: int) -> list[tuple[int, int, int]] | None:
    """Return (command, place, size) of each, None if they do not lie in the bytes that are theirs."""
    try:
        return list(load_commands(commands, count, 0, len(commands)))
    except MachOError:
        return None


def _segments(commands: bytes, count: int) -> list[LinkedSegment] | None:
    listed = _commands(commands, count)
    segments: list[LinkedSegment] = []
    for cmd, position, cmdsize in listed or ():
        if cmd != LC_SEGMENT_64:
            continue
        if cmdsize < _SEGMENT.size or len(segments) >= _MAX_SEGMENTS:
            return None
        _, _, name, address, size, _, _, _, _, nsects, _ = _SEGMENT.unpack_from(commands, position)
        name = name.rstrip(b"\0")
        if nsects > _MAX_SECTIONS or _SEGMENT.size + nsects * _SECTION.size > cmdsize or address + size > _ADDRESSES:
            return None
        if name in _OTHERS or not size:
            continue
        places = range(position + _SEGMENT.size, position + _SEGMENT.size + nsects * _SECTION.size, _SECTION.size)
        sections = [_section(commands, place) for place in places]
        if any(not address <= s.address <= s.address + s.size <= address + size for s in sections):
            return None
        segments.append(LinkedSegment(name, address, size, tuple(s for s in sections if s.name not in _UNWIND)))
    return segments if listed is not None else None


def _section(commands: bytes, position: int) -> LinkedSection:
    name, _, address, size, _, align, _, _, flags, *_ = _SECTION.unpack_from(commands, position)
    return LinkedSection(name.rstrip(b"\0"), address, size, min(align, 15), flags & _CODE)
