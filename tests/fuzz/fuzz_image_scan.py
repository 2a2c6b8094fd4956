"""Stored images as verification reads them: load commands and symbol tables."""

from __future__ import annotations

import struct

from symcache.errors import SymcacheError
from symcache.verify.image_scan import ImageScan
from symcache.verify.layout import parse_layout

__all__ = ["SEEDS", "one_input"]


def _dylib(order: str, wide: bool) -> bytes:
    word = "Q" if wide else "I"
    sizes = (0, 0x1000, 0, 0x200)
    cmd, size = (0x19, 72) if wide else (0x1, 56)
    segment = struct.pack(f"{order}2I16s4{word}4I", cmd, size, b"__TEXT", *sizes, 5, 5, 0, 0)
    linkedit = struct.pack(f"{order}2I16s4{word}4I", cmd, size, b"__LINKEDIT", 0x1000, 0x1000, 0x200, 0x80, 1, 1, 0, 0)
    symtab = struct.pack(order + "6I", 2, 24, 0x200, 2, 0x240, 16)
    dysymtab = struct.pack(order + "20I", 0xB, 80, *[0] * 18)
    commands = segment + linkedit + symtab + dysymtab
    head = struct.pack(order + "7I", 0xFEEDFACF if wide else 0xFEEDFACE, 7, 3, 6, 4, len(commands), 0)
    body = (head + (bytes(4) if wide else b"") + commands).ljust(0x200, b"\0")
    nlist = struct.pack(f"{order}IBBH{word}", 1, 0xF, 1, 0, 0x100)
    return body + (nlist * 2).ljust(0x40, b"\0") + b"\0_one\0_two\0".ljust(0x40, b"\0")


def SEEDS() -> list[bytes]:
    """Return an image of each shape."""
    return [_dylib(order, wide) for order in "<>" for wide in (False, True)]


def one_input(data: bytes) -> None:
    """Read `data` as an image."""
    try:
        layout = parse_layout(data, len(data))
    except SymcacheError:
        return
    list(layout.problems(len(data)))
    scan = ImageScan(layout)
    for start in range(0, len(data), 37):
        scan.feed(data[start : start + 37])
    list(scan.problems())
