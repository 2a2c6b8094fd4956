"""Opening a cache of several files, its address space, its images and their other names."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import SharedCache, extract_all
from symcache.errors import SharedCacheError
from tests.dyld.macho_reader import read
from tests.dyld.tiny import PAGE, Cache, Image, Symbol

BASE = 0x1_8000_0000
SUB = 0x4000_0000
SYMBOLS = UUID(int=0x5EED)


def _trie(paths: dict[str, int]) -> bytes:
    """One node a path below the root: enough for a reader, though no builder would."""
    root = bytearray([0, len(paths)])
    at = 2 + sum(len(p) + 1 + 4 for p in paths)
    leaves = bytearray()
    for path, index in paths.items():
        place = at + len(leaves)
        root += (
            path.encode() + b"\0" + bytes([place & 0x7F | 0x80, place >> 7 & 0x7F | 0x80, place >> 14 & 0x7F | 0x80, 0])
        )
        leaves += bytes([1, index, 0])
    return bytes(root + leaves)


def _several_files(
    folder: Path, *, suffix: str = ".01", header: int = 0x200, symbols: bool = True
) -> tuple[Path, Cache]:
    """A main file with an image of its own, a sub-cache that holds the data of another, and `.symbols`."""
    sub = Cache([Image("/never/listed", UUID(int=7), data=b"in the sub-cache")], arch="arm64e", base=BASE + SUB)
    sub.uuid = UUID(int=0xB0B)
    images = [
        Image(
            "/usr/lib/a",
            UUID(int=1),
            locals=[Symbol("<redacted>", 0x0E, 0x100)],
            defined=[Symbol("_a")],
            indirect=[1, 0],
        ),
        Image("/usr/lib/b", UUID(int=2), data_vmaddr=sub.data_address(0), data_vmsize=16),
    ]
    main = Cache(images, arch="arm64e", base=BASE, header_size=header)
    out = bytearray(main.build())
    entry = struct.pack("<16sQ", sub.uuid.bytes, SUB)
    if header > 0x1C8:
        entry += suffix.encode().ljust(32, b"\0")
    place = PAGE - 0x100
    out[place : place + len(entry)] = entry
    struct.pack_into("<2I", out, 0x188, place, 1)
    if symbols:
        out[0x190:0x1A0] = SYMBOLS.bytes
        images[0].unmapped = [Symbol("_local_one", 0x0E, 0x111), Symbol("_local_two", 0x0E, 0x222)]
        holder = Cache(images, arch="arm64e", base=BASE, uuid=SYMBOLS, header_size=header)
        (folder / "dyld_shared_cache_arm64e.symbols").write_bytes(holder.build())
        images[0].unmapped = None
    path = folder / "dyld_shared_cache_arm64e"
    path.write_bytes(out)
    path.with_name(path.name + suffix).write_bytes(sub.build())
    return path, sub


def test_an_image_whose_segments_lie_in_several_files(tmp_path: Path) -> None:
    path, sub = _several_files(tmp_path)
    with SharedCache.open(path) as cache:
        report = extract_all(cache, tmp_path / "out")
    assert not report.failed
    made = read(report.extracted[1].file)
    assert made.bytes_of(made.segment("__DATA")) == b"in the sub-cache"
    assert made.segment("__DATA").vmaddr == sub.data_address(0)


@pytest.mark.parametrize(
    ("header", "suffix"), [(0x1C8, ".1"), (0x200, ".01"), (0x228, ".03.dyldreadonly"), (0x238, ".123")]
)
def test_companions_by_what_the_header_says(tmp_path: Path, header: int, suffix: str) -> None:
    path, _ = _several_files(tmp_path, suffix=suffix, header=header)
    with SharedCache.open(path) as cache:
        assert [p.suffix for p in cache.files] == ["", suffix, ".symbols"]


def test_unmapped_locals_take_the_place_of_the_redacted_ones(tmp_path: Path) -> None:
    path, _ = _several_files(tmp_path)
    with SharedCache.open(path) as cache:
        report = extract_all(cache, tmp_path / "out")
    made = read(report.extracted[0].file)
    assert [(s.name, s.value) for s in made.symbols] == [("_local_one", 0x111), ("_local_two", 0x222), ("_a", 0)]
    assert made.dysymtab[:6] == (0, 2, 2, 1, 3, 0)
    # The second entry named a redacted local: which one it was, nobody knows.
    assert made.indirect == [2, 0x8000_0000]


def test_without_the_symbols_file_the_redacted_ones_stay_and_it_is_said(tmp_path: Path) -> None:
    path, _ = _several_files(tmp_path)
    (tmp_path / "dyld_shared_cache_arm64e.symbols").unlink()
    with SharedCache.open(path) as cache:
        assert any(".symbols" in w and str(SYMBOLS).upper() in w for w in cache.warnings)
        report = extract_all(cache, tmp_path / "out")
    assert [s.name for s in read(report.extracted[0].file).symbols] == ["<redacted>", "_a"]


def test_no_warning_where_no_symbols_file_is_due(tmp_path: Path) -> None:
    path, _ = _several_files(tmp_path, symbols=False)
    with SharedCache.open(path) as cache:
        assert cache.warnings == [] and cache.missing == []


def test_a_missing_subcache_is_named_with_the_uuid_it_must_have(tmp_path: Path) -> None:
    path, sub = _several_files(tmp_path)
    path.with_name(path.name + ".01").unlink()
    with pytest.raises(
        SharedCacheError, match=rf"dyld_shared_cache_arm64e\.01 \(UUID {str(sub.uuid).upper()}\) is missing"
    ):
        SharedCache.open(path)
    with SharedCache.open(path, partial=True) as cache:
        assert [m.companion.suffix for m in cache.missing] == [".01"]
        report = extract_all(cache, tmp_path / "out")
    assert [e.path for e in report.extracted] == ["/usr/lib/a", "/usr/lib/b"]
    assert [e.unbacked for e in report.extracted] == [0, 16]


def test_a_companion_of_another_build_is_refused(tmp_path: Path) -> None:
    path, sub = _several_files(tmp_path)
    sub.uuid = UUID(int=0xBAD)
    path.with_name(path.name + ".01").write_bytes(sub.build())
    with pytest.raises(
        SharedCacheError, match=r"\.01: UUID 00000000-0000-0000-0000-000000000BAD.*was expected"
    ) as caught:
        SharedCache.open(path)
    assert "different macOS builds" in caught.value.hint


def test_a_companion_at_the_wrong_place_is_refused(tmp_path: Path) -> None:
    path, sub = _several_files(tmp_path)
    sub.base += PAGE
    path.with_name(path.name + ".01").write_bytes(sub.build())
    with pytest.raises(SharedCacheError, match="lies at 0x1c0004000 where the main file expects 0x1c0000000"):
        SharedCache.open(path)


def test_a_subcache_given_as_main_file_is_refused_with_the_right_name(tmp_path: Path) -> None:
    path, _ = _several_files(tmp_path)
    with pytest.raises(SharedCacheError, match="not the name of a main") as caught:
        SharedCache.open(path.with_name(path.name + ".01"))
    assert str(path) in caught.value.hint


def test_a_renamed_subcache_that_repeats_the_image_list_is_refused(tmp_path: Path) -> None:
    """Every x86_64 sub-cache lists all images; none of them lies in it."""
    cache = Cache([Image("/a", UUID(int=1))])
    out = bytearray(cache.build())
    at, _ = struct.unpack_from("<2I", out, 0x1C0)
    struct.pack_into("<Q", out, at, cache.base - (1 << 30))
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with pytest.raises(SharedCacheError, match="outside of the file"):
        SharedCache.open(path)


def test_a_range_is_read_within_one_mapping_only(tmp_path: Path) -> None:
    path, sub = _several_files(tmp_path)
    with SharedCache.open(path) as cache:
        assert bytes(cache.space.view(sub.data_address(0), 16, "test")) == b"in the sub-cache"
        with pytest.raises(SharedCacheError, match="run over the end"):
            cache.space.view(sub.data_address(0) + PAGE - 8, 16, "test")


@pytest.mark.parametrize("paths_in_images", [False, True])
@pytest.mark.parametrize("aliases_first", [False, True])
@pytest.mark.parametrize("size", [0x28, 0x68, 0xF8, 0x138])
def test_alias_records_of_old_caches_are_told_from_images(
    tmp_path: Path, size: int, aliases_first: bool, paths_in_images: bool
) -> None:
    images = [Image("/usr/lib/libA.1.dylib", UUID(int=1)), Image("/usr/lib/libB.dylib", UUID(int=2))]
    aliases = [("/usr/lib/libA.dylib", 0), ("/usr/lib/old/libA.dylib", 0)]
    cache = Cache(
        images, header_size=size, aliases=aliases, aliases_first=aliases_first, paths_in_images=paths_in_images
    )
    with SharedCache.open(cache.write(tmp_path)) as opened:
        assert sorted(i.path for i in opened.images) == ["/usr/lib/libA.1.dylib", "/usr/lib/libB.dylib"]
        assert {p: opened.images[i].path for p, i in opened.aliases.items()} == {
            path: images[n].path for path, n in aliases
        }
        report = extract_all(opened, tmp_path / "out")
    assert len(report.extracted) == 2 and not report.failed


def test_aliases_of_newer_caches_stand_in_the_trie(tmp_path: Path) -> None:
    images = [Image("/usr/lib/libA.1.dylib", UUID(int=1)), Image("/usr/lib/libB.dylib", UUID(int=2))]
    trie = _trie({"/usr/lib/libA.1.dylib": 0, "/usr/lib/libA.dylib": 0, "/usr/lib/libB.dylib": 1, "/nowhere": 99})
    with SharedCache.open(Cache(images, trie=trie + b"\xff" * 13).write(tmp_path)) as opened:
        assert len(opened.images) == 2
        assert opened.aliases == {"/usr/lib/libA.dylib": 0}


@pytest.mark.parametrize(
    "trie",
    [
        b"\x00\x01a\x00\x00",  # an edge back to the root
        b"\x00\x01a\x00\x7f",  # beyond the end
        b"\x00\x02a\x00\x08b\x00\x08\x01\x00\x00",  # two edges to one node
        b"\x00\x01aaaa",  # an edge without end
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a number without end
    ],
)
def test_a_broken_trie_costs_the_aliases_and_is_said(tmp_path: Path, trie: bytes) -> None:
    with SharedCache.open(Cache([Image("/a", UUID(int=1))], trie=trie).write(tmp_path)) as opened:
        assert [i.path for i in opened.images] == ["/a"]
        assert opened.aliases == {} and any("aliases are not known" in w for w in opened.warnings)


def test_names_that_grow_with_every_edge_of_a_trie_are_refused(tmp_path: Path) -> None:
    """A chain of nodes with long edges and many children each would take the square of its size in names."""
    nodes, edge = 60, b"x" * 500
    stride = 2 + len(edge) + 1 + 3 + 200 * 5
    out = bytearray()
    for n in range(1, nodes + 1):
        deeper = bytes([n * stride & 0x7F | 0x80, n * stride >> 7 & 0x7F | 0x80, n * stride >> 14])
        out += bytes([0, 201]) + edge + b"\0" + deeper + (b"y\0" + deeper) * 200
        assert len(out) == n * stride
    out += b"\0\0"
    with SharedCache.open(Cache([Image("/a", UUID(int=1))], trie=bytes(out)).write(tmp_path)) as opened:
        assert opened.aliases == {} and any("aliases are not known" in w for w in opened.warnings)


def test_images_without_uuid_or_with_one_in_the_commands_alone(tmp_path: Path) -> None:
    cache = Cache([Image("/none", None), Image("/one", UUID(int=1))])
    out = bytearray(cache.build())
    texts_at = struct.unpack_from("<Q", out, 0x88)[0]
    out[texts_at + 0x20 : texts_at + 0x30] = bytes(16)
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        report = extract_all(opened, tmp_path / "out")
    assert [read(e.file).uuid for e in report.extracted] == [None, UUID(int=1)]


def test_a_table_that_names_another_uuid_than_the_image_fails_the_image(tmp_path: Path) -> None:
    cache = Cache([Image("/a", UUID(int=1)), Image("/b", UUID(int=2))])
    out = bytearray(cache.build())
    texts_at = struct.unpack_from("<Q", out, 0x88)[0]
    out[texts_at] ^= 0xFF
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        report = extract_all(opened, tmp_path / "out")
    assert [f.path for f in report.failed] == ["/a"] and "LC_UUID" in report.failed[0].reason
    assert not (tmp_path / "out" / "a").exists()
    assert [e.path for e in report.extracted] == ["/b"]


def test_an_empty_list_of_images_is_no_error_of_the_cache(tmp_path: Path) -> None:
    out = bytearray(Cache([Image("/a", UUID(int=1))]).build())
    struct.pack_into("<2I", out, 0x1C0, 0x200, 0)
    struct.pack_into("<2Q", out, 0x88, 0, 0)
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        assert opened.images == []
        assert extract_all(opened, tmp_path / "out").extracted == []


def test_twelve_subcaches_keep_the_order_of_the_header(tmp_path: Path) -> None:
    """Sorted by name, `.10` would come before `.2`, and UUIDs would be held against the wrong ones."""
    out = bytearray(Cache([Image("/a", UUID(int=1))], arch="arm64e", base=BASE, header_size=0x1C8).build())
    entries = b""
    for n in range(12):
        sub = Cache([Image("/x", UUID(int=2))], arch="arm64e", base=BASE + (n + 1) * SUB, uuid=UUID(int=0x100 + n))
        (tmp_path / f"dyld_shared_cache_arm64e.{n + 1}").write_bytes(sub.build())
        entries += struct.pack("<16sQ", UUID(int=0x100 + n).bytes, (n + 1) * SUB)
    out[PAGE - 0x200 : PAGE - 0x200 + len(entries)] = entries
    struct.pack_into("<2I", out, 0x188, PAGE - 0x200, 12)
    path = tmp_path / "dyld_shared_cache_arm64e"
    path.write_bytes(out)
    with SharedCache.open(path) as cache:
        assert [p.header.uuid for p in cache.files[1:]] == [UUID(int=0x100 + n) for n in range(12)]


def test_the_file_name_and_the_magic_may_spell_an_architecture_differently(tmp_path: Path) -> None:
    path = Cache([Image("/a", UUID(int=1))], arch="arm64ex1", header_size=0x238).write(
        tmp_path, "dyld_shared_cache_arm64e_x1"
    )
    with SharedCache.open(path) as cache:
        assert cache.arch == "arm64ex1"
        assert extract_all(cache, tmp_path / "out").extracted[0].arch == "arm64e.x1"


def test_images_of_one_name_in_different_folders_are_different_images(tmp_path: Path) -> None:
    paths = [
        "/System/Library/Frameworks/UIKit.framework/Versions/A/UIKit",
        "/System/iOSSupport/System/Library/Frameworks/UIKit.framework/Versions/A/UIKit",
    ]
    images = [Image(path, UUID(int=n + 1)) for n, path in enumerate(paths)]
    with SharedCache.open(Cache(images).write(tmp_path)) as cache:
        report = extract_all(cache, tmp_path / "out", image="UIKit")
    assert [str(e.file.relative_to(tmp_path / "out")) for e in report.extracted] == [p[1:] for p in paths]


def test_a_subcache_called_symbols_is_checked_like_any_other(tmp_path: Path) -> None:
    path, _ = _several_files(tmp_path, suffix=".symbols", symbols=False)
    with SharedCache.open(path) as cache:
        assert not extract_all(cache, tmp_path / "out").failed
    sub = path.with_name(path.name + ".symbols")
    sub.write_bytes(sub.read_bytes()[:-1])
    with pytest.raises(SharedCacheError, match="mapping ends at"):
        SharedCache.open(path)
