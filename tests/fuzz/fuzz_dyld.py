"""Shared caches: patches to valid ones, opened and extracted in memory.

An input is one byte that chooses a valid cache, and 14-byte records of what to change in it: see tests/dyld/hostile.py.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from symcache.dyld import tables_end
from symcache.errors import SymcacheError
from tests.dyld.hostile import bases, extract_everything

__all__ = ["SEEDS", "one_input"]


def SEEDS() -> list[bytes]:
    """Every base as it is, and with one number of each region changed."""
    seeds = []
    for number, base in enumerate(bases()):
        seeds.append(bytes([number]))
        for region in range(len(base.regions)):
            for kind, offset, value in ((2, 0x10, 0xFFFF_FFFF), (3, 0x18, 1 << 40), (1, 0x28, 0), (4, 0x40, 0)):
                seeds.append(bytes([number]) + struct.pack("<BBIQ", kind, region, offset, value))
    return seeds


def one_input(data: bytes) -> None:
    """Extract everything; only errors that are not our own come out."""
    if not data:
        return
    base = bases()[data[0] % len(bases())]
    files = base.patched(data[1:113])
    with suppress(SymcacheError):
        tables_end(files[base.main], base.main)
    extract_everything(base.main, files, partial=bool(data[0] & 0x80))
