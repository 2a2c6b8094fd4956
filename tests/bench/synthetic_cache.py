"""Large shared caches in the shape of a system's own, made by numpy in seconds: a load for benchmarks, not for tests.

One file or several: headers of 0x200 bytes, slide info of version 2, 3 or 5, symbols in the images, one string pool a
part. Sizes follow what system libraries have: most are small, a few are huge. Code is noise, or what the caller has,
and no name means anything.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import numpy as np

from tests.bench.synthetic_content import OS, chained_pointers, exports_trie, load_commands, names, spread

__all__ = ["Shape", "build"]

_BASES = {"arm64e": 0x1_8000_0000, "x86_64": 0x7FF8_0000_0000}
_PAGE = 0x4000
_SPACING = 1 << 25
"""Mappings begin at multiples of it."""
_NLIST = np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u8")])
_COMMANDS_ROOM = 0x1000


@dataclass(frozen=True)
class Shape:
    """How much of what: medians an image, but for the size of all files and the one image a part that is largest."""

    arch: str = "arm64e"
    images: int = 1000
    size: int = 1_150_000_000
    slide: int = 3
    parts: int = 1
    """Files with code; the images of each have data and link edit of their own."""
    separate: bool = False
    """Data and link edit of each part lie in files of their own."""
    platform: int = 1
    prefix: str = ""
    """Of all paths."""
    symbols: int = 1500
    largest_symbols: int = 200_000
    pointers: int = 5000
    name_length: int = 38
    seed: int = 1


@dataclass
class _File:
    """A file of a cache. `mappings` are as dyld_cache_mapping_and_slide_info has them."""

    path: Path
    suffix: str
    uuid: UUID
    mappings: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    path: str
    uuid: UUID
    address: int
    size: int
    """Of its text."""


def build(folder: Path, shape: Shape = Shape(), code: bytes = b"") -> Path:
    """Write `dyld_shared_cache_ARCH` and its companions into `folder` and return the main file.

    `code` fills the text of images, over and over.
    """
    rng = np.random.default_rng(shape.seed)
    code = code or rng.bytes(8 << 20)
    kinds = ("", ".dylddata", ".dyldlinkedit") if shape.separate else ("",)
    files = []
    for number in range(shape.parts * len(kinds)):
        suffix = f".{number:02}{kinds[number % len(kinds)]}" if number else ""
        path = folder / f"dyld_shared_cache_{shape.arch}{suffix}"
        path.write_bytes(b"")
        files.append(_File(path, suffix, UUID(bytes=rng.bytes(16), version=4)))
    images: list[_Image] = []
    address = _BASES[shape.arch]
    for number in range(shape.parts):
        ours = files[number * len(kinds) : (number + 1) * len(kinds)]
        first, end = (shape.images * n // shape.parts for n in (number, number + 1))
        paths = [
            f"{shape.prefix}/System/Library/Frameworks/Bench{i:04}.framework/Versions/A/Bench{i:04}"
            if i % 3
            else f"{shape.prefix}/usr/lib/libbench{i:04}.dylib"
            for i in range(first, end)
        ]
        # Mappings, companions and images: what lies before the text of the main file.
        head = _PAGE if number else _padded(0x1000 + 0x100 * shape.images)
        new, address = _write_part(rng, shape, paths, (ours[0], ours[len(ours) // 2], ours[-1]), head, address, code)
        images += new
    for file in files:
        with file.path.open("r+b") as opened:
            opened.write(_header(shape, file, files, images))
    return files[0].path


def _write_part(
    rng: np.random.Generator,
    shape: Shape,
    paths: list[str],
    files: tuple[_File, _File, _File],
    head: int,
    text_vm: int,
    code: bytes,
) -> tuple[list[_Image], int]:
    """Write some images to the files for text, data and link edit; return them, and where the next may lie."""
    n, base = len(paths), _BASES[shape.arch]
    symbols = spread(rng, shape.symbols, n, 1.0, 20)
    symbols[n // 2] = shape.largest_symbols
    pointers = spread(rng, shape.pointers, n, 1.0, 16)
    locals_, undefined = symbols * 4 // 10, symbols * 2 // 10
    defined = symbols - locals_ - undefined
    tries = [exports_trie(rng, count) for count in (12, 40, 120, 400, 1200, 4000)]
    trie_of = [min(range(len(tries)), key=lambda k: abs((12, 40, 120, 400, 1200, 4000)[k] - d)) for d in defined]

    # Names: of each defined symbol its own, of the undefined ones out of what others define.
    own = int((locals_ + defined).sum())
    lengths = np.clip(rng.lognormal(np.log(shape.name_length), 0.55, own), 3, 1000).astype(np.int64)
    ends = np.cumsum(lengths + 1) + 1
    pool = names(rng, int(ends[-1]))
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
    text_total = shape.size // shape.parts - len(pool) - nlists.nbytes - int(words.sum()) * 16
    text_total -= sum(map(len, function_starts))
    text_sizes = spread(rng, 100, n, 1.0, 20).astype(float)
    text_sizes = (text_sizes / text_sizes.sum() * text_total).astype(np.int64)
    text_sizes = np.maximum(text_sizes, _COMMANDS_ROOM * 2)
    text_sizes += -text_sizes % 0x1000

    text_at = head + np.cumsum(text_sizes) - text_sizes
    text_end = _padded(int(text_at[-1] + text_sizes[-1]))
    data_sizes = words * 8
    data_at = np.cumsum(data_sizes) - data_sizes
    data_size = _padded(int(data_sizes.sum()))
    const_vm = text_vm + _padded(text_end, _SPACING)
    data_vm = const_vm + _padded(data_size, _SPACING)
    link_vm = data_vm + _padded(data_size, _SPACING)

    # In the files: text; two mappings of data, and their slide info; link edit.
    text_file, data_file, link_file = files
    const_at = _PAGE if data_file is not text_file else text_end
    slide_at = const_at + 2 * data_size
    chained = [chained_pointers(rng, shape.slide, data_size, base, text_vm, text_end) for _ in range(2)]
    infos = [info for _, info in chained]
    link_at = _PAGE if link_file is not data_file else _padded(slide_at + len(infos[0]) + len(infos[1]))
    link = bytearray()

    def append(data: bytes) -> int:
        at = link_at + len(link)
        link.extend(data)
        link.extend(bytes(-len(data) % 8))
        return at

    trie_at = [append(t) for t in tries]
    starts_at = [append(f) for f in function_starts]
    indirect_at = [append(i.tobytes()) for i in indirect]
    symbols_at = append(b"")
    pool_at = symbols_at + nlists.nbytes
    link_size = _padded(len(link) + nlists.nbytes + len(pool))
    nlists["value"] = np.where(
        is_undefined,
        0,
        np.repeat(text_vm + text_at + _COMMANDS_ROOM, symbols)
        + place * 16 % np.repeat(text_sizes - _COMMANDS_ROOM, symbols),
    )

    second = slide_at + len(infos[0])
    text_file.mappings.append((text_vm, text_end, 0, 0, 0, 0, 5, 5))
    data_file.mappings.append((const_vm, data_size, const_at, slide_at, len(infos[0]), 4, 3, 1))
    data_file.mappings.append((data_vm, data_size, const_at + data_size, second, len(infos[1]), 1, 3, 3))
    link_file.mappings.append((link_vm, link_size, link_at, 0, 0, 0, 1, 1))
    with text_file.path.open("r+b") as file:
        for at in range(0, text_end, len(code)):
            file.write(code[: text_end - at])
    with data_file.path.open("r+b") as file:
        file.seek(const_at)
        for words, _ in chained:
            file.write(words.data)
        for info in infos:
            file.write(info)
    with link_file.path.open("r+b") as file:
        file.seek(link_at)
        for piece in (link, nlists.data, pool.data):
            file.write(piece)
        file.truncate(link_at + link_size)
    images = [
        _Image(path, UUID(bytes=rng.bytes(16), version=4), text_vm + int(at), int(size))
        for path, at, size in zip(paths, text_at, text_sizes, strict=True)
    ]
    with text_file.path.open("r+b") as file:
        file.write(bytes(head))
        for i, image in enumerate(images):
            room = _COMMANDS_ROOM
            data = [
                (name, vm + data_at[i], data_sizes[i], at + data_at[i], 3, section, vm + data_at[i], data_sizes[i])
                for name, section, vm, at in (
                    (b"__DATA_CONST", b"__const", const_vm, const_at),
                    (b"__DATA", b"__data", data_vm, const_at + data_size),
                )
            ]
            text = (image.address, image.size, text_at[i], 5, b"__text", image.address + room, image.size - room)
            tables = (
                (symbols_at + int(first[i]) * 16, symbols[i], pool_at, len(pool)),
                (0, locals_[i], locals_[i], defined[i], symbols[i] - undefined[i], undefined[i]),
                (indirect_at[i], len(indirect[i])),
                (starts_at[i], len(function_starts[i])),
                (trie_at[trie_of[i]], len(tries[trie_of[i]])),
            )
            segments, linkedit = [(b"__TEXT", *text), *data], (link_vm, link_size, link_at)
            commands = (shape.arch, shape.platform, segments, linkedit, image.path, image.uuid, tables)
            file.seek(int(text_at[i]))
            file.write(load_commands(*commands))
    return images, link_vm + _padded(link_size, _SPACING)


def _padded(size: int, unit: int = _PAGE) -> int:
    return size + -size % unit


def _header(shape: Shape, file: _File, files: list[_File], images: list[_Image]) -> bytes:
    """Return header and tables of one file; the main file's are about all of them."""
    base = _BASES[shape.arch]
    is_main = file is files[0]
    others, listed = (files[1:], images) if is_main else ([], [])
    mappings_end = 0x200 + len(file.mappings) * 0x58
    images_at = mappings_end + len(others) * 0x38
    texts_at = images_at + len(listed) * 0x20
    paths_at = texts_at + len(listed) * 0x20
    head = bytearray(0x200)
    head[:16] = b"dyld_v1" + shape.arch.rjust(8).encode() + b"\0"
    struct.pack_into("<2I", head, 0x10, 0x200, len(file.mappings))
    head[0x58:0x68] = file.uuid.bytes
    struct.pack_into("<Q", head, 0x68, 1)
    struct.pack_into("<2Q", head, 0x88, texts_at, len(listed))
    struct.pack_into("<I", head, 0xD8, shape.platform)
    end = max(m[0] + m[1] for f in files for m in f.mappings)
    struct.pack_into("<2Q", head, 0xE0, file.mappings[0][0], end - base if is_main else 0)
    struct.pack_into("<2I", head, 0x138, 0x200 + len(file.mappings) * 0x20, len(file.mappings))
    struct.pack_into("<I", head, 0x16C, OS << 16)
    struct.pack_into("<2I", head, 0x188, mappings_end, len(others))
    struct.pack_into("<2I", head, 0x1C0, images_at, len(listed))
    for address, size, offset, _, _, _, most, initial in file.mappings:
        head += struct.pack("<3Q2I", address, size, offset, most, initial)
    for mapping in file.mappings:
        head += struct.pack("<6Q2I", *mapping)
    for other in others:
        head += struct.pack("<16sQ32s", other.uuid.bytes, other.mappings[0][0] - base, other.suffix.encode())
    texts, names = bytearray(), bytearray()
    for image in listed:
        path_at = paths_at + len(names)
        head += struct.pack("<3Q2I", image.address, 0, 0, path_at, 0)
        texts += struct.pack("<16sQ2I", image.uuid.bytes, image.address, image.size, path_at)
        names += image.path.encode() + b"\0"
    return bytes(head + texts + names)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
