"""Stand-ins for modules that nobody has: a Mach-O with the real UUID, name and text range, and nothing in it.

Without one the debugger takes return addresses in that module for data and ends the backtrace there; with one the
chain goes on, and the frame at least names its module.
"""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

__all__ = ["HEADER_SIZE", "write_placeholder"]

HEADER_SIZE = 0x1000
"""First bytes of __TEXT, which the section `__text` leaves out, if nothing is known of the image."""
_MH_DYLIB = 6
_LC_ID_DYLIB, _LC_UUID, _LC_SEGMENT_64, _LC_BUILD_VERSION = 0xD, 0x1B, 0x19, 0x32
_CODE = 0x8000_0400
"""S_ATTR_PURE_INSTRUCTIONS | S_ATTR_SOME_INSTRUCTIONS."""
_READ, _EXECUTE = 1, 4
_MACOS = 1
_MAX_TEXT = 1 << 30


def write_placeholder(
    path: Path,
    cputype: int,
    uuid: UUID,
    install_name: str,
    text_size: int,
    *,
    executable: bool,
    base: int = 0,
    skipped: int = HEADER_SIZE,
) -> None:
    """Write a dylib for `cputype` whose __TEXT begins at address `base` and has `text_size` bytes (holes on disk).

    The section `__text` leaves out the first `skipped` bytes.
    `executable` is what it says of its segment; see `symcache.dump.backing`.
    """
    protection = _READ | _EXECUTE if executable else _READ
    size = max(2 * HEADER_SIZE, min(text_size, _MAX_TEXT) & -HEADER_SIZE)
    name = install_name.encode("utf-8", "replace")[:1024] + b"\0"
    name += bytes(-len(name) % 8)
    section = struct.pack(
        "<16s16s2Q8I", b"__text", b"__TEXT", base + skipped, size - skipped, skipped, 4, 0, 0, _CODE, 0, 0, 0
    )
    segment = struct.pack(
        "<2I16s4Q4I", _LC_SEGMENT_64, 72 + len(section), b"__TEXT", base, size, 0, size, protection, protection, 1, 0
    )
    commands = [
        segment + section,
        struct.pack("<2I4I", _LC_ID_DYLIB, 24 + len(name), 24, 0, 0, 0) + name,
        struct.pack("<2I16s", _LC_UUID, 24, uuid.bytes),
        struct.pack("<6I", _LC_BUILD_VERSION, 24, _MACOS, 11 << 16, 11 << 16, 0),
    ]
    body = b"".join(commands)
    subtype = 3 if cputype == 0x0100_0007 else 0
    header = struct.pack("<8I", 0xFEED_FACF, cputype, subtype, _MH_DYLIB, len(commands), len(body), 0, 0)
    with path.open("xb") as file:
        file.write(header + body)
        file.truncate(size)
