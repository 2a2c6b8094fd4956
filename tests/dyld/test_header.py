"""What a header says, by its own size, and which files belong to a cache."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import SharedCache, companions, extract_all, find_caches, is_cache_name
from symcache.errors import SharedCacheError
from tests.dyld.macho_reader import read
from tests.dyld.tiny import PAGE, Cache, Image, Symbol

SIZES = (0x28, 0x48, 0x68, 0x70, 0x78, 0x98, 0xF8, 0x118, 0x138, 0x140, 0x1C8, 0x200, 0x208, 0x228, 0x238, 0x260)
ARCHS = ("i386", "x86_64", "x86_64h", "arm64", "arm64e", "arm64_32", "arm64ex1")


def _images(count: int = 3) -> list[Image]:
    return [
        Image(
            f"/usr/lib/lib{n}.dylib",
            UUID(int=n + 1),
            locals=[Symbol(f"_local{n}", 0x0E, 0x4321)],
            defined=[Symbol(f"_f{n}", 0x0F, 0x1234)],
            undefined=[Symbol("_malloc", 0x01, 0, 0, 0x100)],
            function_starts=b"\x80\x20\x10\0",
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("size", SIZES, ids=hex)
def test_each_header_size_lists_and_extracts_its_images(tmp_path: Path, size: int) -> None:
    cache = Cache(_images(), header_size=size, base=0x1_8000_0000)
    with SharedCache.open(cache.write(tmp_path)) as opened:
        assert [(i.path, i.uuid, i.address) for i in opened.images] == [
            (i.path, i.uuid, cache.text_address(n)) for n, i in enumerate(cache.images)
        ]
        assert opened.uuid == (cache.uuid if size >= 0x68 else None)
        assert opened.os_version == ("13.6.1" if size >= 0x1C8 else "")
        assert opened.main.header.platform == (1 if size >= 0xF8 else 0)
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert not report.failed
    for image, extracted in zip(cache.images, report.extracted, strict=True):
        made = read(extracted.file)
        assert made.uuid == image.uuid
        assert [s.name for s in made.symbols] == [s.name for s in image.locals + image.defined + image.undefined]


@pytest.mark.parametrize("arch", ARCHS)
def test_word_size_comes_from_the_images_not_from_the_name(tmp_path: Path, arch: str) -> None:
    cache = Cache(_images(), arch=arch, base=0x1A00_0000)
    with SharedCache.open(cache.write(tmp_path)) as opened:
        assert opened.arch == arch
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert not report.failed
    for number, extracted in enumerate(report.extracted):
        made = read(extracted.file)
        assert made.wide == (arch not in {"i386", "arm64_32"})
        assert (made.cputype, made.cpusubtype) == cache.cpu
        assert made.segments[0].vmaddr == cache.text_address(number)
        assert {s.name: s.value for s in made.symbols}[f"_local{number}"] == 0x4321


def test_unknown_cpu_subtype_is_kept_as_it_is(tmp_path: Path) -> None:
    cache = Cache([Image("/usr/lib/a", UUID(int=1), cpusubtype=0x8000_0077)], arch="arm64e")
    with SharedCache.open(cache.write(tmp_path)) as opened:
        report = extract_all(opened, tmp_path / "out")
    assert read(report.extracted[0].file).cpusubtype == 0x8000_0077
    assert report.extracted[0].arch.startswith("cpu-")


def test_names_of_main_files() -> None:
    for name in (
        "dyld_shared_cache_arm64e", "dyld_shared_cache_arm64e.development", "dyld_shared_cache_arm64e_x1",
        "dyld_sim_shared_cache_x86_64", "dyld_shared_cache_rosetta",
    ):  # fmt: skip
        assert is_cache_name(name), name
    for name in (
        "dyld_shared_cache_arm64e.01", "dyld_shared_cache_x86_64.1", "dyld_shared_cache_arm64e.02.dylddata",
        "dyld_shared_cache_arm64e.map", "dyld_shared_cache_arm64e.atlas", "dyld_shared_cache_arm64e.symbols",
        "aot_shared_cache", "aot_shared_cache.0", "dyld_shared_cache_", "dyld_shared_cache_a/b",
        "dyld_shared_cache_arm64e.01.development", "dyld_shared_cache_arm64e\n",
    ):  # fmt: skip
        assert not is_cache_name(name), name


def test_only_main_files_are_found_in_a_folder(tmp_path: Path) -> None:
    for name in (
        "dyld_shared_cache_x86_64",
        "dyld_shared_cache_x86_64.01",
        "dyld_shared_cache_arm64e.map",
        "aot_shared_cache",
    ):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_caches(tmp_path)] == ["dyld_shared_cache_x86_64"]
    assert find_caches(tmp_path / "nowhere") == []


def _main_head(size: int, entries: bytes, count: int, *, cache_type: int = 0, symbols: bytes = bytes(16)) -> bytes:
    head = bytearray(size)
    head[:16] = b"dyld_v1  arm64e\0"
    struct.pack_into("<2I", head, 0x10, size, 1)
    struct.pack_into("<Q", head, 0x68, cache_type)
    struct.pack_into("<2I", head, 0x188, size + 0x20, count)
    head[0x190:0x1A0] = symbols
    return bytes(head) + struct.pack("<3Q2I", 0x180000000, 0x4000, 0, 5, 5) + entries


_SUFFIXES = [".01", ".02.dylddata", ".03.dyldreadonly", ".04.dyldlinkedit", ".05", ".100", ".77.something-new"]


@pytest.mark.parametrize("size", [0x200, 0x208, 0x228, 0x238], ids=hex)
def test_names_of_subcaches_stand_in_the_header(size: int) -> None:
    entries = b"".join(
        struct.pack("<16sQ32s", UUID(int=n + 1).bytes, (n + 1) << 32, s.encode()) for n, s in enumerate(_SUFFIXES)
    )
    found = companions("dyld_shared_cache_arm64e", _main_head(size, entries, len(_SUFFIXES)))
    assert [(c.name, c.uuid, c.vm_offset, c.optional) for c in found] == [
        (f"dyld_shared_cache_arm64e{s}", UUID(int=n + 1), (n + 1) << 32, False) for n, s in enumerate(_SUFFIXES)
    ]


def test_names_of_macos_12_subcaches_are_numbers_without_padding() -> None:
    entries = b"".join(struct.pack("<16sQ", UUID(int=n + 1).bytes, n << 32) for n in range(12))
    found = companions("dyld_shared_cache_x86_64", _main_head(0x1C8, entries, 12))
    assert [c.name for c in found][8:] == [f"dyld_shared_cache_x86_64.{n}" for n in (9, 10, 11, 12)]
    assert [c.uuid for c in found] == [UUID(int=n + 1) for n in range(12)]


def test_layout_of_entries_depends_on_the_header_size_not_on_the_cache_type() -> None:
    entry = struct.pack("<16sQ32s", UUID(int=1).bytes, 1 << 32, b".01")
    for cache_type in (0, 1, 2):
        found = companions("dyld_shared_cache_arm64e", _main_head(0x200, entry, 1, cache_type=cache_type))
        assert [c.suffix for c in found] == [".01"]


def test_a_development_main_of_a_universal_cache_shares_companions_with_the_customers() -> None:
    entry = struct.pack("<16sQ32s", UUID(int=1).bytes, 1 << 32, b".01")
    symbols = UUID(int=9).bytes
    for cache_type, first in ((2, "dyld_shared_cache_arm64e.01"), (1, "dyld_shared_cache_arm64e.development.01")):
        head = _main_head(0x200, entry, 1, cache_type=cache_type, symbols=symbols)
        found = companions("dyld_shared_cache_arm64e.development", head)
        assert [c.name for c in found] == [first, "dyld_shared_cache_arm64e.symbols"]
        assert [c.optional for c in found] == [False, True]


def test_no_symbols_file_is_expected_where_the_header_names_none() -> None:
    assert companions("dyld_shared_cache_arm64e", _main_head(0x200, b"", 0)) == []


@pytest.mark.parametrize("suffix", [b"../../etc/passwd", b".01/../../x", b"", b"01", b".\x01", b"...", b".\xff\xfe"])
def test_a_suffix_that_is_no_file_name_is_refused(suffix: bytes) -> None:
    entry = struct.pack("<16sQ32s", bytes(16), 0, suffix)
    with pytest.raises(SharedCacheError, match="no file name"):
        companions("dyld_shared_cache_arm64e", _main_head(0x200, entry, 1))


def test_companions_are_found_behind_the_tables_of_thousands_of_images(tmp_path: Path) -> None:
    """The builder puts the table of sub-caches behind those of the images, 64 bytes an image."""
    entry = struct.pack("<16sQ32s", UUID(int=5).bytes, 1 << 32, b".01")
    head = bytearray(_main_head(0x200, b"", 1))
    struct.pack_into("<I", head, 0x188, 4000 * 0x40)
    found = companions("dyld_shared_cache_arm64e", bytes(head).ljust(4000 * 0x40, b"\0") + entry)
    assert [c.name for c in found] == ["dyld_shared_cache_arm64e.01"]


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ({0: b"dyld_v9 x86_64\0\0"}, "not a dyld shared cache"),
        ({7: b"../../.."}, "no name"),
        ({7: b"     ppc"}, "PowerPC"),
        ({0x10: struct.pack("<I", 0x20)}, "mappingOffset 0x20"),
        ({0x10: struct.pack("<I", 0xFFFFFFFF)}, "mappingOffset 0xffffffff"),
        ({0x14: struct.pack("<I", 0)}, "mappingCount 0"),
        ({0x14: struct.pack("<I", 1 << 31)}, "mappingCount 2147483648"),
        ({0x13C: struct.pack("<I", 2)}, "mappingWithSlideCount 2"),
        ({0x138: struct.pack("<I", 0xFFFFFFF0)}, "mappings with slide info"),
        ({0x1C4: struct.pack("<I", 0xFFFFFFFF)}, "imagesCount 4294967295"),
        ({0x1C0: struct.pack("<I", 0xFFFFFFF0)}, "image table"),
        ({0x90: struct.pack("<Q", 1 << 60)}, "imagesTextCount"),
        ({0x18C: struct.pack("<I", 1 << 30)}, "subCacheArrayCount 1073741824"),
        ({0x28: struct.pack("<2Q", 1 << 40, 5)}, "code signature"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_absurd_headers_are_refused_by_name_field_and_value(
    tmp_path: Path, patches: dict[int, bytes], message: str
) -> None:
    path = Cache(_images(), patches=patches).write(tmp_path)
    with pytest.raises(SharedCacheError, match=message) as caught:
        SharedCache.open(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 0x20, 0x100, 0x1FF, 0x300, PAGE, 3 * PAGE, 8 * PAGE + 1])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(Cache(_images()).build()[:size])
    with pytest.raises(SharedCacheError, match="dyld_shared_cache_x86_64") as raised:
        SharedCache.open(path)
    assert ("copy the file again" if size > 7 else "copy") in raised.value.hint


def test_overlapping_mappings_are_refused(tmp_path: Path) -> None:
    cache = Cache(_images(), extra_mappings=[(0x7FF8_0000_2000, 0x1000, 0, 1)])
    with pytest.raises(SharedCacheError, match="overlaps"):
        SharedCache.open(cache.write(tmp_path))


def test_a_field_that_the_header_ends_inside_of_is_not_there(tmp_path: Path) -> None:
    """What follows the header is the table of mappings: read as fields it would give absurd but plausible numbers."""
    for size in (0x58, 0x60, 0x67):
        with SharedCache.open(Cache(_images(), header_size=size).write(tmp_path)) as opened:
            assert opened.uuid is None and opened.main.header.local_symbols_offset == 0


@pytest.mark.parametrize("content", [bytes(0x8000), b"", b"#!/bin/sh\n", b"\xcf\xfa\xed\xfe" + bytes(600)])
def test_what_is_no_cache_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    """A copy of a compressed or sparse file may be all zeros."""
    path = tmp_path / "dyld_shared_cache_arm64e"
    path.write_bytes(content)
    with pytest.raises(SharedCacheError, match="dyld_shared_cache_arm64e"):
        SharedCache.open(path)
