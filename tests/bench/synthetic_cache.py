"""A large shared cache in the shape of a system's own, made by numpy in seconds: a load for benchmarks, not for tests.

One arm64e file: header of 0x200 bytes, version 3 slide info, symbols in the images, one string pool for all. Sizes
follow what system libraries have: most are small, a few are huge. Code is noise and no name means anything.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

__all__ = ["Shape", "build"]

BASE = 0x1_8000_0000
_PAGE = 0x4000
_NLIST = np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u8")])
_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$", np.uint8)
_COMMANDS_ROOM = 0x1000


@dataclass(frozen=True)
class Shape:
    """How much of what: medians an image, but for the file's size and the one image that is largest."""

    images: int = 1000
    size: int = 1_150_000_000
    symbols: int = 1500
    largest_symbols: int = 200_000
    pointers: int = 5000
    name_length: int = 38
    seed: int = 1


def build(folder: Path, shape: Shape = Shape()) -> Path:
    """Write `dyld_shared_cache_arm64e` into `folder` and return it."""
    rng = np.random.default_rng(shape.seed)
    n = shape.images
    symbols = _spread(rng, shape.symbols, n, 1.0, 20)
    symbols[n // 2] = shape.largest_symbols
    pointers = _spread(rng, shape.pointers, n, 1.0, 16)
    locals_, undefined = symbols * 4 // 10, symbols * 2 // 10
    defined = symbols - locals_ - undefined
    tries = [_trie(rng, count) for count in (12, 40, 120, 400, 1200, 4000)]
    trie_of = [min(range(len(tries)), key=lambda k: abs((12, 40, 120, 400, 1200, 4000)[k] - d)) for d in defined]

    # Names: of each defined symbol its own, of the undefined ones out of what others define.
    own = int((locals_ + defined).sum())
    lengths = np.clip(rng.lognormal(np.log(shape.name_length), 0.55, own), 3, 1000).astype(np.int64)
    ends = np.cumsum(lengths + 1) + 1
    pool = _ALPHABET[rng.integers(0, len(_ALPHABET), int(ends[-1]), np.uint8)]
    pool[0] = 0
    pool[ends - 1] = 0
    starts = ends - lengths - 1
    pool[starts] = ord("_")

    nlists = np.zeros(int(symbols.sum()), _NLIST)
    first = np.cumsum(symbols) - symbols
    place = np.arange(len(nlists)) - np.repeat(first, symbols)
    is_local = place < np.repeat(locals_, symbols)
    is_undefined = place >= np.repeat(symbols - undefined, symbols)
    nlists["type"] = np.where(is_local, 0x0E, np.where(is_undefined, 0x01, 0x0F))
    nlists["sect"] = ~is_undefined
    nlists["strx"][~is_undefined] = starts
    popular = rng.choice(starts, 20_000)
    nlists["strx"][is_undefined] = popular[rng.integers(0, len(popular), int(is_undefined.sum()))]
    function_starts = [rng.integers(4, 0x7F, int(k), np.uint8).tobytes() + b"\0" for k in symbols - undefined]
    indirect = [
        (s - u + rng.integers(0, max(1, u), 2 * int(u))).astype("<u4") for s, u in zip(symbols, undefined, strict=True)
    ]

    # Data: a word in two is a pointer; both mappings have as many.
    words = pointers  # in each of the two segments, half of them pointers
    text_total = shape.size - len(pool) - nlists.nbytes - int(words.sum()) * 16 - sum(map(len, function_starts))
    text_sizes = _spread(rng, 100, n, 1.0, 20).astype(float)
    text_sizes = (text_sizes / text_sizes.sum() * text_total).astype(np.int64)
    text_sizes = np.maximum(text_sizes, _COMMANDS_ROOM * 2)
    text_sizes += -text_sizes % 0x1000

    paths = [
        f"/System/Library/Frameworks/Bench{i:04}.framework/Versions/A/Bench{i:04}"
        if i % 3
        else f"/usr/lib/libbench{i:04}.dylib"
        for i in range(n)
    ]
    tables = 0x200 + 4 * 0x20 + 4 * 0x38
    images_at, texts_at = tables, tables + n * 0x20
    strings_at = texts_at + n * 0x20
    path_offsets = strings_at + np.cumsum([0] + [len(p) + 1 for p in paths[:-1]])
    head_size = strings_at + sum(len(p) + 1 for p in paths)
    head_size += -head_size % _PAGE

    text_at = head_size + np.cumsum(text_sizes) - text_sizes
    text_end = int(text_at[-1] + text_sizes[-1])
    text_end += -text_end % _PAGE
    data_sizes = words * 8
    data_at = np.cumsum(data_sizes) - data_sizes
    data_size = int(data_sizes.sum())
    data_size += -data_size % _PAGE
    const_file, data_file = text_end, text_end + data_size
    link_file = data_file + data_size
    const_vm, data_vm = BASE + 0x4000_0000, BASE + 0x6000_0000
    link_vm = BASE + 0x8000_0000

    link = bytearray()
    slide_at = []
    chains = []
    for _ in range(2):
        chain, info = _chains(rng, data_size, text_end)
        chains.append(chain)
        slide_at.append((link_file + len(link), len(info)))
        link += info + bytes(-len(info) % 8)

    def append(data: bytes) -> int:
        at = link_file + len(link)
        link.extend(data)
        link.extend(bytes(-len(data) % 8))
        return at

    trie_at = [append(t) for t in tries]
    starts_at = [append(f) for f in function_starts]
    indirect_at = [append(i.tobytes()) for i in indirect]
    symbols_at = append(b"")
    pool_at = symbols_at + nlists.nbytes
    link_size = len(link) + nlists.nbytes + len(pool)
    link_size += -link_size % _PAGE
    nlists["value"] = np.where(
        is_undefined,
        0,
        np.repeat(BASE + text_at + _COMMANDS_ROOM, symbols)
        + place * 16 % np.repeat(text_sizes - _COMMANDS_ROOM, symbols),
    )

    mappings = [
        (BASE, text_end, 0, 0, 0, 0, 5, 5),
        (const_vm, data_size, const_file, *slide_at[0], 4, 3, 1),
        (data_vm, data_size, data_file, *slide_at[1], 1, 3, 3),
        (link_vm, link_size, link_file, 0, 0, 0, 1, 1),
    ]
    uuids = [UUID(bytes=rng.bytes(16), version=4) for _ in range(n)]
    path = folder / "dyld_shared_cache_arm64e"
    tile = rng.bytes(8 << 20)
    with path.open("wb") as file:
        for at in range(0, text_end, len(tile)):
            file.write(tile[: text_end - at])
        for chain in chains:
            file.write(chain.data)
        file.write(link)
        file.write(nlists.data)
        file.write(pool.data)
        file.truncate(link_file + link_size)
        file.seek(0)
        file.write(_header(rng, mappings, images_at, texts_at, n).ljust(head_size, b"\0"))
        for i in range(n):
            address = BASE + int(text_at[i])
            file.seek(images_at + i * 0x20)
            file.write(struct.pack("<3Q2I", address, 0, 0, path_offsets[i], 0))
            file.seek(texts_at + i * 0x20)
            file.write(struct.pack("<16sQ2I", uuids[i].bytes, address, text_sizes[i], path_offsets[i]))
            file.seek(int(path_offsets[i]))
            file.write(paths[i].encode() + b"\0")
            segments = [
                (
                    b"__TEXT",
                    address,
                    text_sizes[i],
                    text_at[i],
                    5,
                    b"__text",
                    address + _COMMANDS_ROOM,
                    text_sizes[i] - _COMMANDS_ROOM,
                ),
                (
                    b"__DATA_CONST",
                    const_vm + data_at[i],
                    data_sizes[i],
                    const_file + data_at[i],
                    3,
                    b"__const",
                    const_vm + data_at[i],
                    data_sizes[i],
                ),
                (
                    b"__DATA",
                    data_vm + data_at[i],
                    data_sizes[i],
                    data_file + data_at[i],
                    3,
                    b"__data",
                    data_vm + data_at[i],
                    data_sizes[i],
                ),
            ]
            tables_of = (
                (symbols_at + int(first[i]) * 16, symbols[i], pool_at, len(pool)),
                (0, locals_[i], locals_[i], defined[i], symbols[i] - undefined[i], undefined[i]),
                (indirect_at[i], len(indirect[i])),
                (starts_at[i], len(function_starts[i])),
                (trie_at[trie_of[i]], len(tries[trie_of[i]])),
            )
            commands = _commands(segments, (link_vm, link_size, link_file), paths[i], uuids[i], tables_of)
            file.seek(int(text_at[i]))
            file.write(commands)
    return path


def _spread(rng: np.random.Generator, median: int, count: int, sigma: float, least: int) -> np.ndarray:
    return np.maximum(rng.lognormal(np.log(median), sigma, count), least).astype(np.int64)


def _chains(rng: np.random.Generator, size: int, text_end: int) -> tuple[np.ndarray, bytes]:
    """Return (words with chained pointers, version 3 slide info) for `size` bytes of whole pages."""
    a_page = _PAGE // 8
    is_pointer = rng.random(size // 8) < 0.5
    words = np.where(is_pointer, np.uint64(0), rng.integers(0, 1 << 16, size // 8, np.uint64))
    at = np.flatnonzero(is_pointer)
    step = np.zeros(len(at), np.uint64)
    step[:-1] = np.where(at[1:] // a_page == at[:-1] // a_page, np.diff(at), 0)
    offset = rng.integers(0, text_end, len(at), np.uint64)
    auth = rng.random(len(at)) < 0.3
    diversity = rng.integers(0, 1 << 16, len(at), np.uint64)
    plain = offset + np.uint64(BASE)
    signed = offset | diversity << np.uint64(32) | np.uint64(1 << 63)
    words[at] = np.where(auth, signed, plain) | step << np.uint64(51)
    pages = size // _PAGE
    starts = np.full(pages, 0xFFFF, "<u2")
    page, where = np.unique(at // a_page, return_index=True)
    starts[page] = at[where] % a_page * 8
    return words, struct.pack("<3I4xQ", 3, _PAGE, pages, BASE) + starts.tobytes()


def _trie(rng: np.random.Generator, count: int) -> bytes:
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


def _header(rng: np.random.Generator, mappings: list[tuple[int, ...]], images_at: int, texts_at: int, n: int) -> bytes:
    head = bytearray(0x200)
    head[:16] = b"dyld_v1  arm64e\0"
    struct.pack_into("<2I", head, 0x10, 0x200, len(mappings))
    head[0x58:0x68] = rng.bytes(16)
    struct.pack_into("<Q", head, 0x68, 1)
    struct.pack_into("<2Q", head, 0x88, texts_at, n)
    struct.pack_into("<I", head, 0xD8, 1)
    last = mappings[-1]
    struct.pack_into("<2Q", head, 0xE0, BASE, last[0] + last[1] - BASE)
    struct.pack_into("<2I", head, 0x138, 0x200 + len(mappings) * 0x20, len(mappings))
    struct.pack_into("<I", head, 0x16C, 14 << 16)
    struct.pack_into("<2I", head, 0x1C0, images_at, n)
    for address, size, offset, _, _, _, most, initial in mappings:
        head += struct.pack("<3Q2I", address, size, offset, most, initial)
    for mapping in mappings:
        head += struct.pack("<6Q2I", *mapping)
    return bytes(head)


def _commands(
    segments: list[tuple[bytes, int, int, int, int, bytes, int, int]],
    linkedit: tuple[int, int, int],
    path: str,
    uuid: UUID,
    tables: tuple[tuple[int, ...], ...],
) -> bytes:
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
    for command, name in ((0xD, path), (0xC, "/usr/lib/libSystem.B.dylib"), (0xC, "/usr/lib/libobjc.A.dylib")):
        text = name.encode() + b"\0"
        text += bytes(-len(text) % 8)
        found.append(struct.pack("<6I", command, 24 + len(text), 24, 2, 0x10000, 0x10000) + text)
    symtab, dysymtab, indirect, starts, trie = tables
    found += [
        struct.pack("<2I16s", 0x1B, 24, uuid.bytes),
        struct.pack("<6I", 0x32, 24, 1, 14 << 16, 14 << 16, 0),
        struct.pack("<6I", 0x2, 24, *symtab),
        struct.pack("<20I", 0xB, 80, *dysymtab, *(0,) * 6, *indirect, *(0,) * 4),
        struct.pack("<4I", 0x26, 16, *starts),
        struct.pack("<4I", 0x29, 16, starts[0], 0),
        struct.pack("<4I", 0x80000033, 16, *trie),
    ]
    commands = b"".join(found)
    flags = 0x8000_0085
    return struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0x80000002, 6, len(found), len(commands), flags, 0) + commands


if __name__ == "__main__":
    build(Path(sys.argv[1]))
