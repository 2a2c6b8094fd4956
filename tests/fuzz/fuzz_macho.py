"""Identification of hostile files: thin, universal, either byte order."""

from __future__ import annotations

import struct

from symcache.errors import SymcacheError
from symcache.macho import code_fingerprint, identify_bytes

__all__ = ["SEEDS", "one_input"]


def _thin(order: str, magic: int, commands: bytes, ncmds: int) -> bytes:
    header = struct.pack(order + "7I", magic, 0x0100_000C, 0x8000_0002, 6, ncmds, len(commands), 0)
    return header + (bytes(4) if magic == 0xFEEDFACF else b"") + commands


def SEEDS() -> list[bytes]:
    """Return one small image of each shape."""
    seeds = []
    for order in "<>":
        uuid = struct.pack(order + "2I", 0x1B, 24) + bytes(range(16))
        name = struct.pack(order + "6I", 0xD, 32, 24, 0, 0, 0) + b"libz\0\0\0\0"
        section = (
            b"__text".ljust(16, b"\0") + b"__TEXT".ljust(16, b"\0") + struct.pack(order + "2Q8I", 0, 8, 200, *[0] * 7)
        )
        segment = struct.pack(order + "2I", 0x19, 152) + b"__TEXT".ljust(16, b"\0")
        segment += struct.pack(order + "4Q4I", 0, 4096, 0, 4096, 5, 5, 1, 0) + section
        symtab = struct.pack(order + "6I", 2, 24, 100, 3, 150, 20)
        seeds += [_thin(order, m, uuid + name + segment + symtab, 4) for m in (0xFEEDFACE, 0xFEEDFACF)]
    thin = seeds[1]
    seeds.append(struct.pack(">7I", 0xCAFEBABE, 1, 0x0100_000C, 2, 64, len(thin), 2) + bytes(36) + thin)
    seeds.append(struct.pack(">4I2Q2I", 0xCAFEBABF, 1, 0x0100_000C, 2, 64, len(thin), 2, 0) + bytes(24) + thin)
    return seeds


def one_input(data: bytes) -> None:
    """Identify `data`, as a whole file and as the start of a larger one."""
    for size in (len(data), len(data) + (1 << 32)):
        try:
            for piece in identify_bytes(data, size):
                if piece.offset + piece.size > size:
                    raise AssertionError("a slice lies outside of its file")
                code_fingerprint(data[piece.offset :], piece.size)
        except SymcacheError:
            pass
