"""Mach-O files outside of shared caches, made of real code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import lief
import numpy as np

__all__ = ["machine_code", "write_dylibs"]


def machine_code() -> bytes:
    """Return real code and data, so that compression finds what it finds in system libraries."""
    roots = [Path(lief.__file__).parent, Path(np.__file__).parent]
    found = [f.read_bytes() for root in roots for f in sorted(root.rglob("*.so"))]
    return b"".join(found)


def write_dylibs(folder: Path, code: bytes, count: int, median: int, seed: int = 7) -> Iterator[tuple[Path, UUID]]:
    """Write dylibs of x86_64: a header, code of a lognormal size, and a symbol table over a string pool."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sizes = np.clip(rng.lognormal(np.log(median), 1.0, count), 4096, 24 << 20).astype(int)
    for number, size in enumerate(sizes.tolist()):
        start = int(rng.integers(0, max(1, len(code) - size)))
        file = folder / f"{number}.dylib"
        uuid = UUID(int=(seed << 64) + number + 1)
        file.write_bytes(_dylib(uuid, code[start : start + size], symbols=size // 400))
        yield file, uuid


def _dylib(uuid: UUID, code: bytes, symbols: int) -> bytes:
    text = 4096 + len(code) + -len(code) % 4096
    nlists = np.zeros(symbols, np.dtype([("strx", "<u4"), ("rest", "<u4"), ("value", "<u8")]))
    nlists["strx"] = 1 + 24 * np.arange(symbols)
    nlists["value"] = 0x1000 + 16 * np.arange(symbols)
    pool = b"\0" + b"".join(b"_function_number_%06d\0\0" % n for n in range(symbols)) + b"\0"
    linkedit = nlists.tobytes() + pool
    commands = (
        struct.pack("<2I16s4Q4I", 0x19, 72, b"__TEXT", 0, text, 0, text, 5, 5, 0, 0)
        + struct.pack("<2I16s4Q4I", 0x19, 72, b"__LINKEDIT", text, 1 << 24, text, len(linkedit), 1, 1, 0, 0)
        + struct.pack("<6I", 0x2, 24, text, symbols, text + nlists.nbytes, len(pool))
        + struct.pack("<2I", 0x1B, 24)
        + uuid.bytes
    )
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100_0007, 3, 6, 4, len(commands), 0, 0)
    return (header + commands).ljust(4096, b"\0") + code.ljust(text - 4096, b"\0") + linkedit
