"""Placeholders for modules that nobody has: a Mach-O with the real UUID, name and text range, and nothing in it.

Without one the debugger takes return addresses in that module for data and ends the backtrace there; with one the
chain goes on, and the frame at least names its module. One that is laid out as a dSYM says can take that dSYM as its
symbol file: its frames have functions and lines, and only the code is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.registers import CPU_TYPE_X86_64
from symcache.dump.placeholders.dsym_layout import Function, Layout, LinkedSection, LinkedSegment

__all__ = ["HEADER_SIZE", "unknown_layout", "write_placeholder"]

HEADER_SIZE = 0x1000
"""First bytes of __TEXT, which the section `__text` leaves out, if nothing is known of the image."""
_MH_DYLIB = 6
_LC_ID_DYLIB, _LC_UUID, _LC_SEGMENT_64, _LC_BUILD_VERSION = 0xD, 0x1B, 0x19, 0x32
_CODE = 0x8000_0400
"""S_ATTR_PURE_INSTRUCTIONS | S_ATTR_SOME_INSTRUCTIONS."""
_READ, _WRITE, _EXECUTE = 1, 2, 4
_MACOS = 1
_MACH_HEADER = 32
_COALESCED = 0xB
"""Section type of our unwind tables, the only section of the image with bytes in the file."""
_MAX_TEXT = 1 << 30


def unknown_layout(cputype: int, text_size: int) -> Layout:
    """Return the layout of an image of which nothing is known but how many bytes its __TEXT can have."""
    size = max(2 * HEADER_SIZE, min(text_size, _MAX_TEXT) & -HEADER_SIZE)
    text = LinkedSection(b"__text", HEADER_SIZE, size - HEADER_SIZE, 4, _CODE)
    return Layout(3 if cputype == CPU_TYPE_X86_64 else 0, [LinkedSegment(b"__TEXT", 0, size, (text,))])


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
    segments = list(layout.segments)
    tables = b""
    if frameless:
        text = segments[0]
        # In memory the load commands are there, and no function is.
        space = min((s.address for s in text.sections), default=text.address) - text.address - _MACH_HEADER
        tables = _unwind_tables(cputype, frameless, space)
        place = LinkedSection(b"__eh_frame", text.address + _MACH_HEADER, len(tables), 3, _COALESCED)
        segments[0] = text._replace(sections=(place, *text.sections)) if tables else text
    name = install_name.encode("utf-8", "replace")[:1024] + b"\0"
    name += bytes(-len(name) % 8)
    commands = [
        struct.pack("<6I", _LC_ID_DYLIB, 24 + len(name), 24, 0, 0, 0) + name,
        struct.pack("<2I16s", _LC_UUID, 24, uuid.bytes),
        struct.pack("<6I", _LC_BUILD_VERSION, 24, _MACOS, 11 << 16, 11 << 16, 0),
    ]
    sizes = [72 + 80 * len(s.sections) for s in segments]
    start = _MACH_HEADER + sum(map(len, commands)) + sum(sizes)
    commands = [*(_segment(s, start, executable=executable, hollow=hollow) for s in segments), *commands]
    body = b"".join(commands)
    header = struct.pack("<8I", 0xFEED_FACF, cputype, layout.cpusubtype, _MH_DYLIB, len(commands), len(body), 0, 0)
    with path.open("xb") as file:
        file.write(header + body + tables)
        if not hollow:
            file.truncate(segments[0].size)


def _segment(segment: LinkedSegment, tables: int, *, executable: bool, hollow: bool) -> bytes:
    code = segment.name == b"__TEXT"
    protection = _READ | (_EXECUTE if code and executable else 0 if code else _WRITE)
    content = segment.size if code and not hollow else 0

    def offset(section: LinkedSection) -> int:
        if section.flags == _COALESCED:
            return tables
        return section.address - segment.address if content else 0

    sections = b"".join(
        struct.pack(
            "<16s16s2Q8I",
            *(s.name, segment.name, s.address, s.size),
            *(offset(s), s.align, 0, 0, s.flags, 0, 0, 0),
        )
        for s in segment.sections
    )
    command = struct.pack(
        "<2I16s4Q4I",
        *(_LC_SEGMENT_64, 72 + len(sections), segment.name, segment.address, segment.size, 0, content),
        *(protection, protection, len(segment.sections), 0),
    )
    return command + sections


def _unwind_tables(cputype: int, functions: Sequence[Function], space: int) -> bytes:
    """Return an `__eh_frame` by which functions keep a frame, but at some addresses do not.

    Only there: a function that calls itself, and has just been entered, keeps frames in its other calls.
    DWARF 5, 6.4; addresses are absolute. As many of the functions as fit into `space` bytes.
    """
    # DW_CFA_def_cfa: the frame pointer and 16. DW_CFA_offset: it was saved there, and the return address above it.
    # Without a frame, that one is on top of the stack, on arm64 in lr (DW_CFA_same_value).
    if cputype == CPU_TYPE_X86_64:
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
