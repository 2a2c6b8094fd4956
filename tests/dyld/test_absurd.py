"""Caches that are small and would keep a reader busy for hours, or fill its memory."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import numpy as np
import pytest

from symcache.dyld import Image, SharedCache, SymbolSource, extract_all, gather_strings, read_local_symbols
from symcache.dyld.exports import may_reexport, single_reexports
from symcache.dyld.mach_image import parse_image
from symcache.dyld.output import file_names
from symcache.errors import SharedCacheError
from symcache.macho import LITTLE_64
from tests.dyld.tiny import PAGE, Cache
from tests.dyld.tiny import Image as TinyImage

_MOST_SECONDS = 20
_T = TypeVar("_T")
_BASE = 0x7FF8_0000_0000


def _soon(work: Callable[[], _T]) -> _T:
    start = time.process_time()
    try:
        return work()
    finally:
        assert time.process_time() - start < _MOST_SECONDS


def test_images_that_all_have_one_path_get_names_of_their_own() -> None:
    images = [Image(n, "/usr/lib/A", None, n, 0) for n in range(60_000)]
    names = _soon(lambda: file_names(images))
    assert len(set(names)) == len(images)
    assert names[:3] == ["/usr/lib/A", "/usr/lib/A~2", "/usr/lib/A~3"]
    some = [Image(0, path, None, 0, 0) for path in ("/A~2", "/a", "/A", "/a", "/A~2")]
    assert file_names(some, fold_case=True) == ["/A~2", "/a", "/A~3", "/a~4", "/A~2~2"]


def test_a_trie_that_looks_like_reexports_everywhere() -> None:
    trie = b"\0\0" + b"\3\x08\1\0" * 400_000
    assert _soon(lambda: may_reexport(trie))
    image = parse_image(struct.pack("<8I", 0xFEEDFACF, 0x01000007, 3, 6, 0, 0, 0, 0), "/a")
    assert single_reexports(image, trie) is None  # the walk tells


def test_a_trie_of_megabytes_is_walked_without_a_look() -> None:
    trie = b"\x08" * (17 << 20)
    tracemalloc.start()
    try:
        assert may_reexport(trie)  # for all that is known
        assert tracemalloc.get_traced_memory()[1] < len(trie)
    finally:
        tracemalloc.stop()


def test_thousands_of_images_that_share_an_endless_list_of_commands(tmp_path: Path) -> None:
    """Each header has one command of its own, which leads to the list that all have in common."""
    images, common = 6_000, 60_000
    header = 0x70
    table = header + 3 * 0x20
    heads = table + images * 0x20 + 16
    last = heads + images * 40
    size = (last + common * 8 + 0xFFF) & ~0xFFF
    out = bytearray(size + 0x2000)
    out[:16] = b"dyld_v1  x86_64\0"
    struct.pack_into("<4I", out, 0x10, header, 3, table, images)
    for number, row in enumerate([(0, size, 0, 5), (0x4000_0000, 0x1000, size, 3), (0x8000_0000, 0x1000, size, 1)]):
        offset, length, place, protection = row
        struct.pack_into("<3Q2I", out, header + number * 0x20, _BASE + offset, length, place, protection, protection)
    out[heads - 16 : heads - 13] = b"/a\0"
    for number in range(images):
        at = heads + number * 40
        struct.pack_into("<3QI", out, table + number * 0x20, _BASE + at, 0, 0, heads - 16)
        commands = (common, last + common * 8 - at - 32)
        struct.pack_into("<10I", out, at, 0xFEEDFACF, 0x01000007, 3, 6, *commands, 0, 0, 0x99, last - at - 32)
    out[last : last + common * 8] = struct.pack("<2I", 0x99, 8) * common
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with pytest.raises(SharedCacheError, match="load commands"):
        _soon(lambda: SharedCache.open(path))


def test_names_all_over_a_pool_of_nothing() -> None:
    pool, symbols = np.zeros(80 << 20, np.uint8), np.zeros(20_000, LITTLE_64.nlist)
    symbols["n_strx"] = np.arange(1, 20_001) * 4096
    tracemalloc.start()
    try:
        places, pieces, size = gather_strings(SymbolSource(symbols, pool, "/a"), 1)
        assert tracemalloc.get_traced_memory()[1] < len(pool) // 2
    finally:
        tracemalloc.stop()
    assert (len(set(places.tolist())), b"".join(pieces), size) == (20_000, bytes(20_000), 20_000)


def test_an_image_of_absurdly_many_commands(tmp_path: Path) -> None:
    cache = Cache([TinyImage(f"/{n}", UUID(int=n + 1)) for n in range(8)])
    path = cache.write(tmp_path)
    out = bytearray(path.read_bytes())
    struct.pack_into("<2I", out, PAGE + 16, 11_000, 88_000)
    out[PAGE + 32 : PAGE + 32 + 88_000] = struct.pack("<2I", 0x99, 8) * 11_000
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        report = extract_all(opened, tmp_path / "out", image="/0", jobs=1)
    assert "ncmds 11000" in report.failed[0].reason


def test_local_symbols_of_more_images_than_there_can_be(tmp_path: Path) -> None:
    cache = Cache([TinyImage("/a", UUID(int=1), unmapped=[])])
    path = cache.write(tmp_path)
    out = bytearray(path.read_bytes()) + bytes(2 << 20)
    place = struct.unpack_from("<Q", out, 0x48)[0]
    struct.pack_into("<I", out, place + 0x14, 100_001)
    path.write_bytes(out)
    with SharedCache.open(path) as opened, pytest.raises(SharedCacheError, match="100001 images"):
        read_local_symbols(opened.main)


def test_a_file_whose_bytes_are_mapped_again_and_again(tmp_path: Path) -> None:
    cache = Cache([TinyImage("/a", UUID(int=1))])
    size = len(cache.build())
    cache.extra_mappings = [(_BASE + (number << 32), size, 0, 3) for number in range(1, 17)]
    with pytest.raises(SharedCacheError, match="larger together"):
        SharedCache.open(cache.write(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "dyld_shared_cache_arm64e"
    os.mkfifo(path)
    with pytest.raises(SharedCacheError, match="no ordinary file"):
        SharedCache.open(path)
