"""Mach-O files without code, as many as a test wants: a header, a UUID, a segment."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from uuid import UUID

__all__ = ["tiny_image"]

_CPU = {"arm64e": (0x0100_000C, 0x8000_0002), "x86_64": (0x0100_0007, 3), "x86_64h": (0x0100_0007, 8)}
"""CPU type and subtype (<mach/machine.h>)."""


def tiny_image(folder: Path, arch: str, uuid: UUID, salt: int = 0) -> Path:
    """Write a dylib (struct mach_header_64, segment_command_64, uuid_command); `salt` changes size and bytes."""
    size = 4096 + salt % 37 * 512
    segment = struct.pack("<2I16s4Q4I", 0x19, 72, b"__TEXT", 0x1_8000_0000, 1 << 14, 0, size, 5, 5, 0, 0)
    commands = segment + struct.pack("<2I", 0x1B, 24) + uuid.bytes
    head = struct.pack("<8I", 0xFEEDFACF, *_CPU[arch], 6, 2, len(commands), 0x85, 0)
    file = folder / f"{uuid.hex}-{arch}-{salt}"
    file.write_bytes((head + commands + random.Random(salt).randbytes(64)).ljust(size, b"\0"))
    return file
