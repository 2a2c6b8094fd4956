"""Valid caches with bytes changed or cut off: what the property test and the fuzz target feed to the reader."""

from __future__ import annotations

import functools
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.cli.cache_json import cache_json
from symcache.dyld import SharedCache, find_caches
from symcache.dyld.image_writer import Extractor
from symcache.dyld.output import file_names
from symcache.errors import SymcacheError
from tests.bench.synthetic_cache import Shape, build
from tests.dyld.tiny import PAGE, Cache, Image, Symbol

__all__ = ["Base", "apple_bases", "bases", "extract_everything", "own_bases"]

_RECORD = struct.Struct("<BBIQ")
_SETTERS = {0: "<B", 1: "<H", 2: "<I", 3: "<Q"}
_TRUNCATE, _FILL = 4, 5
_LARGEST = 2 << 20
"""Bytes of all files of a cache that Apple's builder made: every input is written and read again."""


@dataclass(frozen=True)
class Base:
    """A valid cache in memory, and where in it a changed byte matters most: (name of the file, start, size)."""

    main: str
    files: dict[str, bytes]
    regions: tuple[tuple[str, int, int], ...]

    def patched(self, program: bytes) -> dict[str, bytes]:
        """The files after every 14-byte record of `program`: kind, region, offset in it, value."""
        changed = {name: bytearray(data) for name, data in self.files.items()}
        for at in range(0, len(program) - _RECORD.size + 1, _RECORD.size):
            kind, region, offset, value = _RECORD.unpack_from(program, at)
            name, start, size = self.regions[region % len(self.regions)]
            data = changed[name]
            place = start + offset % max(size, 1)
            if kind % 6 == _TRUNCATE:
                del data[place:]
            elif kind % 6 == _FILL:
                length = value % 64
                data[place : place + length] = bytes([value >> 8 & 0xFF]) * len(data[place : place + length])
            elif place + 8 <= len(data):
                shape = _SETTERS[kind % 6]
                struct.pack_into(shape, data, place, value % (1 << 8 * struct.calcsize(shape)))
        return {name: bytes(data) for name, data in changed.items()}


@contextmanager
def _on_disk(files: dict[str, bytes]) -> Iterator[Path]:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="symcache-hostile-", dir=fast) as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)


def extract_everything(main: str, files: dict[str, bytes], *, partial: bool = False) -> int:
    """Make every image, and return how many could be made; what is wrong must come as an error of our own."""
    with _on_disk(files) as folder:
        try:
            with SharedCache.open(folder / main, partial=partial) as cache:
                cache_json(cache)  # all that there is to say of it
                json.dumps(file_names(cache.images, fold_case=True))
                extractor = Extractor(cache)
                return sum(not isinstance(made, SymcacheError) for _, made in extractor.many(cache.images))
        except SymcacheError as error:
            assert str(error)
            return 0


def _base(folder: Path, main: Path) -> Base:
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.name.startswith(main.name) and f.suffix != ".map"}
    regions = [(name, 0, min(len(data), 0x400)) for name, data in files.items()]
    regions += [(name, 0, len(data)) for name, data in files.items()]
    data = files[main.name]
    size, count, old_at, old_count = struct.unpack_from("<4I", data, 0x10)
    images_at, images = struct.unpack_from("<2I", data, 0x1C0) if size >= 0x1C8 else (old_at, old_count)
    regions.append((main.name, size, images_at - size))
    regions.append((main.name, images_at, images * 0x40))
    maps = []
    for name, data in files.items():
        at, count = struct.unpack_from("<2I", data, 0x10)
        maps += [(name, *struct.unpack_from("<3Q", data, at + i * 0x20)) for i in range(count)]
        local_symbols = struct.unpack_from("<Q", data, 0x48)[0]
        if local_symbols:
            regions.append((name, local_symbols, 0x100))
        if at >= 0x140:
            slides = struct.unpack_from("<I", data, 0x138)[0]
            regions += [
                (name, *struct.unpack_from("<2Q", data, slides + i * 0x38 + 0x18))
                for i in range(count)
                if struct.unpack_from("<Q", data, slides + i * 0x38 + 0x20)[0]
            ]
        elif at >= 0x48 and (slide := struct.unpack_from("<2Q", data, 0x38))[1]:
            regions.append((name, *slide))
    data = files[main.name]
    for i in range(images):
        address = struct.unpack_from("<Q", data, images_at + i * 0x20)[0]
        for name, start, length, offset in maps:
            if start <= address < start + length and not name.endswith(".symbols"):
                regions.append((name, offset + address - start, 0x600))
    return Base(main.name, files, tuple(regions))


def _tiny() -> list[Cache]:
    """Small caches of old and new forms: unmapped locals, alias records and trie, chains of every version."""

    def images() -> list[Image]:
        words = struct.pack("<4Q", 1, 2 | 1 << 40, 3, 4)
        return [
            Image(
                f"/usr/lib/lib{n}",
                UUID(int=n + 1),
                locals=[Symbol("<redacted>", 0x0E)],
                defined=[Symbol(f"_f{n}", value=n), Symbol("_g" * 40)],
                undefined=[Symbol("_malloc", 1, 0, 0)],
                unmapped=[Symbol(f"_l{n}", 0x0E)],
                indirect=[3, 0x8000_0000, 1],
                function_starts=b"\x80\x20\x10\0",
                trie=b"\0\1_r\0\6\5\x08\1_t\0\0",
                data=words,
                commands=[struct.pack("<6I", 0xC, 32, 24, 0, 0, 0) + b"/x".ljust(8, b"\0")],
            )
            for n in range(2)
        ]

    extras = struct.pack(
        "<6I2Q8H2H", 2, 0x1000, 0x28, 8, 0x38, 2, 0xFFFF << 40, 0x1000, 0x8000, *(0x4000,) * 7, 0, 0x8002
    )
    small = struct.pack("<6I2Q2H", 4, PAGE, 0x28, 2, 0x2C, 0, 0xC000_0000, 0x1000, 0, 0)
    chained = struct.pack("<3I4xQ2H", 5, PAGE, 2, 0x1_8000_0000, 0, 0xFFFF)
    paths = b"\0\1/usr/lib/\0\x0d\0\1x\0\x12\1\0\0"
    return [
        Cache(images(), header_size=0x138, slide=extras, aliases=[("/usr/lib/alias", 0)], room=0x2000),
        Cache(images(), arch="arm64_32", base=0x1A00_0000, slide=small, room=0x2000),
        Cache(images(), arch="arm64e", header_size=0x228, base=0x1_8000_0000, slide=chained, trie=paths, room=0x2000),
    ]


@functools.cache
def own_bases() -> tuple[Base, ...]:
    """Small caches to start from that are made here."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        shape = Shape(images=4, size=400_000, symbols=40, largest_symbols=300, pointers=300)
        main = build(Path(folder), shape)
        found.append(_base(main.parent, main))
        for number, cache in enumerate(_tiny()):
            main = cache.write(Path(folder) / str(number))
            found.append(_base(main.parent, main))
    return tuple(found)


@functools.cache
def apple_bases() -> tuple[Base, ...]:
    """Those that Apple's builder made, where they are known."""
    root = os.environ.get("SYMCACHE_TEST_CACHES")
    mains = [main for f in sorted(Path(root).iterdir()) for main in find_caches(f)[:1]] if root else []
    found = [_base(main.parent, main) for main in mains]
    return tuple(base for base in found if sum(map(len, base.files.values())) <= _LARGEST)


def bases() -> tuple[Base, ...]:
    """All of them, in an order that stays."""
    return own_bases() + apple_bases()
