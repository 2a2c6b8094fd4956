"""Hostile Mach-O files: thin, universal, either byte order and width; what they hold, and every load command."""

from __future__ import annotations

import struct
from contextlib import suppress

from symcache.errors import MachOError, SymcacheError
from symcache.macho import (
    LoadCommand,
    code_fingerprint,
    file_end,
    identify_bytes,
    mach_header,
    sections,
    text_address,
)

__all__ = ["SEEDS", "one_input"]

_ACCESSORS = (
    LoadCommand.sections,
    LoadCommand.symtab,
    LoadCommand.dysymtab,
    LoadCommand.linkedit_data,
    LoadCommand.dyld_info,
    LoadCommand.uuid,
    LoadCommand.current_version,
    LoadCommand.install_name,
    LoadCommand.note,
)


def _thin(order: str, wide: bool) -> bytes:
    word, cmd = ("Q", 0x19) if wide else ("I", 0x1)
    section = struct.pack(f"{order}16s16s2{word}7I", b"__text", b"__TEXT", 0, 8, 200, *[0] * 6)
    section += bytes(4 if wide else 0)
    segment = struct.pack(f"{order}16s4{word}4I", b"__TEXT", 0, 4096, 0, 4096, 5, 5, 1, 0) + section
    bodies = [
        (0x1B, bytes(range(16))),
        (0xD, struct.pack(order + "4I", 24, 0, 0, 0) + b"libz\0\0\0\0"),
        (cmd, segment),
        (0x2, struct.pack(order + "4I", 100, 3, 150, 20)),
        (0xB, struct.pack(order + "18I", *range(18))),
        (0x22, struct.pack(order + "10I", *range(10))),
        (0x26, struct.pack(order + "2I", 400, 8)),
        (0x31, struct.pack(order + "16s2Q", b"addrable bits", 400, 16)),
        (0x4, struct.pack(order + "4I", 6, 2, 0, 0)),
    ]
    commands = b"".join(struct.pack(order + "2I", cmd, 8 + len(body)) + body for cmd, body in bodies)
    magic = 0xFEEDFACF if wide else 0xFEEDFACE
    header = struct.pack(order + "7I", magic, 0x0100_000C, 0x8000_0002, 6, len(bodies), len(commands), 0)
    return (header + (bytes(4) if wide else b"") + commands).ljust(800, b"\0")


def SEEDS() -> list[bytes]:
    """Return one small image of each shape."""
    seeds = [_thin(order, wide) for order in "<>" for wide in (False, True)]
    thin = seeds[1]
    seeds.append(struct.pack(">7I", 0xCAFEBABE, 1, 0x0100_000C, 2, 64, len(thin), 2) + bytes(36) + thin)
    seeds.append(struct.pack(">4I2Q2I", 0xCAFEBABF, 1, 0x0100_000C, 2, 64, len(thin), 2, 0) + bytes(24) + thin)
    return seeds


def one_input(data: bytes) -> None:
    """Read `data`, as a whole file and as the start of a larger one."""
    for size in (len(data), len(data) + (1 << 32)):
        try:
            for piece in identify_bytes(data, size):
                if piece.offset + piece.size > size:
                    raise AssertionError("a slice lies outside of its file")
                _read(data[piece.offset :], piece.size)
        except SymcacheError:
            pass
    _read(data, len(data))


def _read(image: bytes, size: int) -> None:
    code_fingerprint(image, size)
    text_address(image)
    file_end(image)
    if any(s.offset + s.size > size for s in sections(image, size)):
        raise AssertionError("a section lies outside of its image")
    header = mach_header(image)
    with suppress(MachOError):
        for command in header.load_commands(image) if header else ():
            for accessor in _ACCESSORS:
                with suppress(MachOError):
                    accessor(command)
