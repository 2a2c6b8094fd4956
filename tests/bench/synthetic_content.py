"""What shared caches hold, made by numpy: symbol names, chained pointers, exports, load commands."""

from __future__ import annotations

import struct
from uuid import UUID

import numpy as np

__all__ = ["OS", "chained_pointers", "exports_trie", "load_commands", "names", "spread"]

OS = 26
"""Of which macOS all says that it is."""
_PAGE = 0x4000
_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$", np.uint8)
_CPUS = {"arm64e": (0x0100_000C, 0x8000_0002), "x86_64": (0x0100_0007, 3)}
_DELTA_MASK = 0x00FF_FF00_0000_0000


def spread(rng: np.random.Generator, median: int, count: int, sigma: float, least: int) -> np.ndarray:
    """Return whole numbers as sizes of system libraries are spread: most are small, a few are huge."""
    return np.maximum(rng.lognormal(np.log(median), sigma, count), least).astype(np.int64)


def names(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return letters that repeat themselves as much as names of functions do."""
    syllables = _ALPHABET[rng.integers(0, len(_ALPHABET), (4096, 8), np.uint8)]
    letters: np.ndarray = syllables[rng.integers(0, len(syllables), size // 8 + 1, np.uint16)].reshape(-1)
    return letters[:size].copy()


def chained_pointers(
    rng: np.random.Generator, version: int, size: int, base: int, text_vm: int, text_size: int
) -> tuple[np.ndarray, bytes]:
    """Return (words, slide info of a version) for `size` bytes of whole pages: a word in two points into the text."""
    page_size = 0x1000 if version == 2 else _PAGE
    a_page = page_size // 8
    is_pointer = rng.random(size // 8) < 0.5
    words = np.where(is_pointer, np.uint64(0), rng.integers(0, 1 << 16, size // 8, np.uint64))
    at = np.flatnonzero(is_pointer)
    step = np.zeros(len(at), np.uint64)
    step[:-1] = np.where(at[1:] // a_page == at[:-1] // a_page, np.diff(at), 0)
    # Neighbours point to neighbours.
    near = at.astype(np.uint64) * np.uint64(32) + rng.integers(0, 1 << 14, len(at), np.uint64)
    offset = near % np.uint64(text_size) + np.uint64(text_vm - base)
    auth = rng.random(len(at)) < 0.3
    diversity = rng.choice(rng.integers(0, 1 << 16, 500, np.uint64), len(at))
    if version == 2:
        words[at] = offset | step << np.uint64(41)  # counts four bytes
    elif version == 3:
        signed = offset | diversity << np.uint64(32) | np.uint64(1 << 63)
        words[at] = np.where(auth, signed, offset + np.uint64(base)) | step << np.uint64(51)
    else:
        signed = offset | diversity << np.uint64(34) | np.uint64(1 << 63)
        words[at] = np.where(auth, signed, offset) | step << np.uint64(52)
    pages = size // page_size
    starts = np.full(pages, 0x4000 if version == 2 else 0xFFFF, "<u2")
    page, where = np.unique(at // a_page, return_index=True)
    starts[page] = at[where] % a_page * (2 if version == 2 else 8)
    if version == 2:
        head = struct.pack("<6I2Q", 2, page_size, 0x28, pages, 0, 0, _DELTA_MASK, base)
    else:
        head = struct.pack("<3I4xQ", version, page_size, pages, base)
    return words, head + starts.tobytes()


def exports_trie(rng: np.random.Generator, count: int) -> bytes:
    """Return an exports trie of `count` names that share prefixes in groups of 16."""

    def uleb(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def name(length: int) -> bytes:
        return bytes(_ALPHABET[rng.integers(0, 52, length)])

    leaves = [(name(20), uleb(0) + uleb(int(rng.integers(0x4000, 1 << 22)))) for _ in range(count)]
    groups = [leaves[i : i + 16] for i in range(0, count, 16)]
    groups = groups[:255]

    def fixed(value: int) -> bytes:  # always four bytes, so that offsets do not move what they point at
        return bytes([value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21])

    heads = [b"_" + name(12) for _ in groups]
    position = 2 + sum(len(h) + 1 + 4 for h in heads)
    root, body = bytearray(b"\0" + bytes([len(groups)])), bytearray()
    for head, group in zip(heads, groups, strict=True):
        root += head + b"\0" + fixed(position)
        node, nodes = bytearray(b"\0" + bytes([len(group)])), bytearray()
        inner = position + 2 + sum(len(edge) + 1 + 4 for edge, _ in group)
        for edge, payload in group:
            node += edge + b"\0" + fixed(inner + len(nodes))
            nodes += uleb(len(payload)) + payload + b"\0"
        body += node + nodes
        position = inner + len(nodes)
    return bytes(root + body)


def load_commands(
    arch: str,
    platform: int,
    segments: list[tuple[bytes, int, int, int, int, bytes, int, int]],
    linkedit: tuple[int, int, int],
    path: str,
    uuid: UUID,
    tables: tuple[tuple[int, ...], ...],
) -> bytes:
    """Return Mach header and load commands of a dylib.

    `segments`: name, address, size, file offset, protection, and its one section's name, address and size. `linkedit`:
    address, size, file offset. `tables`: payloads of LC_SYMTAB, LC_DYSYMTAB (symbols; indirect ones),
    LC_FUNCTION_STARTS and LC_DYLD_EXPORTS_TRIE.
    """
    found = []
    for name, vmaddr, vmsize, fileoff, protection, section, addr, size in segments:
        found.append(
            struct.pack("<2I16s4Q4I", 0x19, 152, name, vmaddr, vmsize, fileoff, vmsize, protection, protection, 1, 0)
            + struct.pack(
                "<16s16s2Q8I",
                section,
                name,
                addr,
                size,
                fileoff + addr - vmaddr,
                2,
                0,
                0,
                0x80000400 if name == b"__TEXT" else 0,
                0,
                0,
                0,
            )
        )
    vmaddr, vmsize, fileoff = linkedit
    found.append(struct.pack("<2I16s4Q4I", 0x19, 72, b"__LINKEDIT", vmaddr, vmsize, fileoff, vmsize, 1, 1, 0, 0))
    for command, dylib in ((0xD, path), (0xC, "/usr/lib/libSystem.B.dylib"), (0xC, "/usr/lib/libobjc.A.dylib")):
        text = dylib.encode() + b"\0"
        text += bytes(-len(text) % 8)
        found.append(struct.pack("<6I", command, 24 + len(text), 24, 2, 0x10000, 0x10000) + text)
    symtab, dysymtab, indirect, starts, trie = tables
    found += [
        struct.pack("<2I16s", 0x1B, 24, uuid.bytes),
        struct.pack("<6I", 0x32, 24, platform, OS << 16, OS << 16, 0),
        struct.pack("<6I", 0x2, 24, *symtab),
        struct.pack("<20I", 0xB, 80, *dysymtab, *(0,) * 6, *indirect, *(0,) * 4),
        struct.pack("<4I", 0x26, 16, *starts),
        struct.pack("<4I", 0x29, 16, starts[0], 0),
        struct.pack("<4I", 0x80000033, 16, *trie),
    ]
    commands = b"".join(found)
    flags = 0x8000_0085
    return struct.pack("<8I", 0xFEEDFACF, *_CPUS[arch], 6, len(found), len(commands), flags, 0) + commands
