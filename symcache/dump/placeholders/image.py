"""Placeholders for modules that nobody has: a Mach-O with the real UUID, name and text range, and nothing in it.

Without one the debugger takes return addresses in that module for data and ends the backtrace there; with one the
chain goes on, and the frame at least names its module. One that is laid out as a dSYM says can take that dSYM as its
symbol file: its frames have functions and lines, and only the code is not there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symcache.dump.placeholders.dsym_layout import CODE, Function, Layout, LinkedSegment
from symcache.macho import CPU_SUBTYPE_X86_64_ALL, CPU_TYPE, LC, LITTLE_64, MH, MachHeader, S, Section, Segment

__all__ = ["HEADER_SIZE", "unknown_layout", "write_placeholder"]

HEADER_SIZE = 0x1000
"""First bytes of __TEXT, which the section `__text` leaves out, if nothing is known of the image."""
_READ, _WRITE, _EXECUTE = 1, 2, 4
_MACOS = 1
_MAX_TEXT = 1 << 30


def unknown_layout(cputype: int, text_size: int) -> Layout:
    """Return a layout for an image of which only the largest possible size of its __TEXT is known."""
    size = max(2 * HEADER_SIZE, min(text_size, _MAX_TEXT) & -HEADER_SIZE)
    text = Section("__text", "__TEXT", HEADER_SIZE, size - HEADER_SIZE, 0, 4, 0, 0, CODE)
    subtype = CPU_SUBTYPE_X86_64_ALL if cputype == CPU_TYPE.X86_64 else 0
    return Layout(subtype, [LinkedSegment("__TEXT", 0, size, (text,))])


def write_placeholder(
    path: Path,
    cputype: int,
    uuid: UUID,
    install_name: str,
    layout: Layout,
    *,
    executable: bool,
    hollow: bool = False,
    frameless: Sequence[Function] = (),
) -> None:
    """Write a dylib for `cputype` that is laid out like that.

    `executable` is what it says of __TEXT; see `symcache.dump.placeholders.backing`. Its content are holes on disk;
    `hollow`: it has none, so that where functions are known the debugger does not take the holes for their
    instructions. For functions that are `frameless` at some addresses it has unwind tables that say so: else the
    debugger assumes a frame.
    """
    segments, header_size = list(layout.segments), LITTLE_64.header.size
    tables = b""
    if frameless:
        text = segments[0]
        # In memory the load commands are there, and no function is.
        space = min((s.addr for s in text.sections), default=text.address) - text.address - header_size
        tables = _unwind_tables(cputype, frameless, space)
        place = Section("__eh_frame", "__TEXT", text.address + header_size, len(tables), 0, 3, 0, 0, S.COALESCED)
        segments[0] = text._replace(sections=(place, *text.sections)) if tables else text
    name = install_name.encode("utf-8", "replace")[:1024] + b"\0"
    name += bytes(-len(name) % 8)
    commands = [
        LITTLE_64.command(LC.ID_DYLIB, LITTLE_64.dylib.pack(24, 0, 0, 0) + name),
        LITTLE_64.command(LC.UUID, uuid.bytes),
        LITTLE_64.command(LC.BUILD_VERSION, struct.pack("<4I", _MACOS, 11 << 16, 11 << 16, 0)),
    ]

    def all_commands(tables_at: int) -> bytes:
        placed = (_segment(s, tables_at, executable=executable, hollow=hollow) for s in segments)
        return b"".join([*placed, *commands])

    body = all_commands(0)
    if tables:
        body = all_commands(header_size + len(body))
    ncmds = len(segments) + len(commands)
    header = MachHeader(LITTLE_64, cputype, layout.cpusubtype, MH.DYLIB, ncmds, len(body), 0)
    # There are hundreds, and one opened as a file of Python's takes three times as long.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        content = header.packed() + body + tables
        while content:
            content = content[os.write(file, content) :]
        if not hollow:
            os.ftruncate(file, segments[0].size)
    finally:
        os.close(file)


def _segment(segment: LinkedSegment, tables: int, *, executable: bool, hollow: bool) -> bytes:
    """Return the command of a segment; of its sections only our unwind tables have bytes in the file."""
    code = segment.name == "__TEXT"
    protection = _READ | (_EXECUTE if code and executable else 0 if code else _WRITE)
    content = segment.size if code and not hollow else 0

    def offset(section: Section) -> int:
        if section.flags & S.TYPE == S.COALESCED:
            return tables
        return section.addr - segment.address if content else 0

    fields = Segment(segment.name, segment.address, segment.size, 0, content, protection, protection, 0, 0)
    return LITTLE_64.segment_command(fields, [s._replace(offset=offset(s)) for s in segment.sections])


def _unwind_tables(cputype: int, functions: Sequence[Function], space: int) -> bytes:
    """Return an `__eh_frame` by which functions keep a frame, but at some addresses do not.

    Only there: a function that calls itself, and has just been entered, keeps frames in its other calls.
    DWARF 5, 6.4; addresses are absolute. As many of the functions as fit into `space` bytes.
    """
    # DW_CFA_def_cfa: the frame pointer and 16. DW_CFA_offset: it was saved there, and the return address above it.
    # Without a frame, that one is on top of the stack, on arm64 in lr (DW_CFA_same_value).
    if cputype == CPU_TYPE.X86_64:
        returns, step = 16, 1
        framed = bytes([0x0C, 6, 16, 0x80 | 6, 2, 0x80 | 16, 1])
        bare = bytes([0x0C, 7, 8, 0x08, 6])
    else:
        returns, step = 30, 4
        framed = bytes([0x0C, 29, 16, 0x80 | 29, 2, 0x80 | 30, 1])
        bare = bytes([0x0C, 31, 0, 0x08, 29, 0x08, 30])
    # Version, no augmentation, alignment of code 1 and of data -8 (SLEB128).
    entries = _entry(0, bytes([1, 0, 1, 0x78, returns]) + framed)
    for function in functions:
        rules, at = b"", function.start
        for address in function.addresses:
            # DW_CFA_advance_loc4, DW_CFA_remember_state, …, DW_CFA_advance_loc1, DW_CFA_restore_state
            rules += struct.pack("<BI", 4, max(0, address - at)) + b"\x0a" + bare + bytes([2, step, 0x0B])
            at = max(at, address) + step
        span = struct.pack("<2Q", function.start, function.end - function.start)
        entry = _entry(len(entries) + 4, span + rules)
        if len(entries) + len(entry) > space:
            break
        entries += entry
    return entries


def _entry(pointer: int, content: bytes) -> bytes:
    content += bytes(-len(content) % 8)
    return struct.pack("<2I", 4 + len(content), pointer) + content
