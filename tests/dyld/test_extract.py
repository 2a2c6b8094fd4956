"""Images out of caches: what goes wrong with one, where files go, and what is carried over."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.dyld import Extracted, SharedCache, exports, extract_all, extract_image, image_writer, pointers
from symcache.dyld import Image as CacheImage
from symcache.dyld.output import file_names, safe_parts
from symcache.dyld.trie import walk
from symcache.errors import SharedCacheError, StorageError
from tests.cachewriter.trie import Export, trie_bytes
from tests.dyld.macho_reader import LC_EXPORTS_TRIE, MachO, Segment, read
from tests.dyld.tiny import PAGE, Cache, Image, Symbol, linkedit_command


def _extract(tmp_path: Path, *images: Image, **options: object):
    with SharedCache.open(Cache(list(images), **options).write(tmp_path)) as cache:  # type: ignore[arg-type]
        return extract_all(cache, tmp_path / "out", jobs=1)


def test_one_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    broken = Image("/usr/lib/broken", UUID(int=2), commands=[struct.pack("<2I", 0x2A, 4)])
    encrypted = Image("/usr/lib/encrypted", UUID(int=3), commands=[struct.pack("<6I", 0x2C, 24, 1, 2, 3, 0)])
    report = _extract(tmp_path, Image("/usr/lib/good", UUID(int=1)), broken, encrypted)
    assert [e.path for e in report.extracted] == ["/usr/lib/good", "/usr/lib/encrypted"]
    assert [f.path for f in report.failed] == ["/usr/lib/broken"]
    assert "load command" in report.failed[0].reason
    assert not (tmp_path / "out/usr/lib/broken").exists()


@pytest.mark.parametrize(
    "path", ["/../../escape", "/usr/../../../escape", "/a/./b", "/bad\x07name", "/", "", "//", "/x\u0085y"]
)
def test_unsafe_names_fail_their_image_and_nothing_leaves_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "inner").mkdir()
    cache = Cache([Image(path, UUID(int=1)), Image("/usr/lib/good", UUID(int=2))])
    with SharedCache.open(cache.write(tmp_path / "cache")) as opened:
        report = extract_all(opened, tmp_path / "inner/out", jobs=1)
    assert [f.path for f in report.failed] == [path]
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"cache/dyld_shared_cache_x86_64", "inner/out/usr/lib/good"}


def test_odd_but_harmless_names_are_kept() -> None:
    assert safe_parts("/System/Library/A B.framework/Versions/Å/名前 (1)…") == [
        "System", "Library", "A B.framework", "Versions", "Å", "名前 (1)…",
    ]  # fmt: skip
    assert safe_parts("//usr///lib/x") == ["usr", "lib", "x"]
    with pytest.raises(SharedCacheError, match="255"):
        safe_parts("/" + "x" * 256)


def test_links_that_stand_in_the_way_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / "out/usr").mkdir(parents=True)
    (tmp_path / "out/usr/lib").symlink_to(elsewhere)
    (tmp_path / "out/plain").symlink_to(target)
    report = _extract(
        tmp_path, Image("/usr/lib/a", UUID(int=1)), Image("/plain", UUID(int=2)), Image("/ok", UUID(int=3))
    )
    assert [f.path for f in report.failed] == ["/usr/lib/a"]
    assert list(elsewhere.iterdir()) == [] and target.read_text() == "untouched"
    assert not (tmp_path / "out/plain").is_symlink() and (tmp_path / "out/ok").is_file()


def test_a_file_where_another_image_needs_a_folder_fails_that_image_only(tmp_path: Path) -> None:
    report = _extract(tmp_path, Image("/a", UUID(int=1)), Image("/a/b", UUID(int=2)), Image("/c", UUID(int=3)))
    assert [e.path for e in report.extracted] == ["/a", "/c"]
    assert [f.path for f in report.failed] == ["/a/b"]


def test_two_images_of_one_path_are_both_written(tmp_path: Path) -> None:
    images = [
        Image("/usr/lib/twin", UUID(int=1)),
        Image("/usr//lib/twin", UUID(int=2)),
        Image("/usr/lib/twin~2", UUID(int=3)),
    ]
    report = _extract(tmp_path, *images)
    assert not report.failed
    assert len({e.file for e in report.extracted}) == 3
    assert [read(e.file).uuid for e in report.extracted] == [i.uuid for i in images]


def test_existing_files_are_replaced_whole(tmp_path: Path) -> None:
    old = tmp_path / "out/usr/lib/a"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x" * 10_000_000)
    report = _extract(tmp_path, Image("/usr/lib/a", UUID(int=1)))
    assert old.stat().st_size == report.extracted[0].size < 10_000_000
    assert [p.name for p in old.parent.iterdir()] == ["a"], "temporary files are left"


def test_an_output_that_is_a_file_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="out"):
        _extract(tmp_path, Image("/a", UUID(int=1)))


def test_images_are_chosen_by_path_or_name(tmp_path: Path) -> None:
    images = [
        Image(p, UUID(int=n + 1))
        for n, p in enumerate(("/usr/lib/libz.1.dylib", "/usr/lib/liba", "/opt/libz.2.dylib", "/opt/[brackets]"))
    ]
    with SharedCache.open(Cache(images).write(tmp_path)) as cache:
        for pattern, wanted in (
            *(("libz*", [0, 2]), ("/usr/*", [0, 1]), ("*", [0, 1, 2, 3]), ("LIBZ*", []), ("z", [])),
            *(("[b]*", []), ("[brackets]", [3]), ("/opt/[brackets]", [3])),
        ):
            report = extract_all(cache, tmp_path / "out", image=pattern)
            assert [e.path for e in report.extracted] == [images[i].path for i in wanted]


def test_an_alias_chooses_its_image(tmp_path: Path) -> None:
    images = [Image("/usr/lib/libSystem.B.dylib", UUID(int=1)), Image("/usr/lib/liba", UUID(int=2))]
    cache = Cache(images, header_size=0x68, aliases=[("/usr/lib/libSystem.dylib", 0)])
    with SharedCache.open(cache.write(tmp_path)) as opened:
        for pattern in ("libSystem.dylib", "/usr/lib/libSystem.dylib", "libSystem*"):
            report = extract_all(opened, tmp_path / "out", image=pattern)
            assert [e.path for e in report.extracted] == ["/usr/lib/libSystem.B.dylib"]


def test_several_processes_make_the_same_as_one(tmp_path: Path) -> None:
    images = [Image(f"/usr/lib/lib{n}", UUID(int=n + 1), defined=[Symbol(f"_f{n}")]) for n in range(140)]
    images[77].commands = [struct.pack("<2I", 0x2A, 4)]
    progress: list[tuple[int, int]] = []
    path = Cache(images).write(tmp_path)
    with SharedCache.open(path) as cache:
        one = extract_all(cache, tmp_path / "one", jobs=1)
        two = extract_all(cache, tmp_path / "two", jobs=3, progress=lambda *done: progress.append(done))
    assert [f.path for f in one.failed] == [f.path for f in two.failed] == ["/usr/lib/lib77"]
    assert [(e.path, e.uuid, e.size, e.arch) for e in one.extracted] == [
        (e.path, e.uuid, e.size, e.arch) for e in two.extracted
    ]
    assert all(a.file.read_bytes() == b.file.read_bytes() for a, b in zip(one.extracted, two.extracted, strict=True))
    assert progress[-1] == (140, 140) and progress == sorted(progress)


def test_a_child_process_that_cannot_go_on_is_an_error_not_a_hang(tmp_path: Path) -> None:
    images = [Image(f"/usr/lib/lib{n}", UUID(int=n + 1)) for n in range(140)]
    path = Cache(images).write(tmp_path)
    with SharedCache.open(path) as cache:
        path.unlink()
        with pytest.raises(StorageError):
            extract_all(cache, tmp_path / "out", jobs=2)


def test_the_header_says_no_more_that_it_is_in_a_cache(tmp_path: Path) -> None:
    made = read(_extract(tmp_path, Image("/a", UUID(int=1))).extracted[0].file)
    assert made.flags == 0x85


_POINT_NOWHERE = (
    *(0x3, 0xA, 0x16, 0x1D, 0x1E, 0x21, 0x2B, 0x2C, 0x2E, 0x31, 0x80000034, 0x80000035, 0x36, 0x37, 0x38, 0x3A),
)
_SAY_ALL_THEMSELVES = (
    *range(0x4, 0xA), 0xC, 0xD, 0xE, 0xF, *range(0x10, 0x16), 0x17, 0x80000018, 0x1A, 0x8000001C, 0x8000001F, 0x20,
    0x80000023, 0x24, 0x25, 0x27, 0x80000028, 0x2A, 0x2D, 0x2F, 0x30, 0x32, 0x39,
)  # fmt: skip


def test_commands_that_would_point_nowhere_are_gone_and_the_rest_is_whole(tmp_path: Path) -> None:
    """All of Apple's loader.h but those that are made anew, and LC_UUID, which is there anyway."""
    more = [linkedit_command(cmd) for pair in zip(_POINT_NOWHERE, _SAY_ALL_THEMSELVES) for cmd in pair]  # noqa: B905
    more += [linkedit_command(cmd) for cmd in _SAY_ALL_THEMSELVES[len(_POINT_NOWHERE) :]]
    made = read(_extract(tmp_path, Image("/a", UUID(int=1), commands=more)).extracted[0].file)
    own = [0x19, 0x19, 0x19, 0xD, 0x1B, 2, 0xB]
    assert [cmd for cmd, _ in made.commands] == [*own, *_SAY_ALL_THEMSELVES]
    assert [data for _, data in made.commands[len(own) :]] == [linkedit_command(cmd) for cmd in _SAY_ALL_THEMSELVES]
    assert not any(made.data[made.commands_end : made.commands_end + 16 * len(_POINT_NOWHERE)])


@pytest.mark.parametrize(
    ("start", "size", "stays"),
    [
        (0, 1, False),
        (0x3FFF0, 0x10, False),
        (0x3FFF0, 0x11, True),
        (-1, 0x10, True),
        (0x40000, 1, True),
        (8, 0, True),
        (8, 0xFFFF_FFFF, True),
    ],
)
def test_what_looks_like_a_new_command_of_the_link_edit_is_gone(
    tmp_path: Path, start: int, size: int, stays: bool
) -> None:
    link_edit = 3 * PAGE
    command = linkedit_command(0x7A, link_edit + start, size)
    longer = command[:4] + struct.pack("<I", 24) + command[8:] + bytes(8)
    image = Image("/a", UUID(int=1), commands=[command, longer, linkedit_command(0x39, link_edit, 8)])
    made = read(_extract(tmp_path, image).extracted[0].file)
    assert [data for _, data in made.commands[7:]] == [command] * stays + [longer, linkedit_command(0x39, link_edit, 8)]


def test_dyld_itself_is_an_image_like_others(tmp_path: Path) -> None:
    """Since macOS 13: filetype 7, no LC_ID_DYLIB."""
    image = Image("/usr/lib/dyld", UUID(int=1), filetype=7, without={"id"}, defined=[Symbol("__dyld_start")])
    made = read(_extract(tmp_path, image).extracted[0].file)
    assert made.filetype == 7 and made.symbols[0].name == "__dyld_start"


@pytest.mark.parametrize(
    "without",
    [{"symtab"}, {"symtab", "dysymtab"}, {"dysymtab"}, {"symtab", "dysymtab", "linkedit"}, {"data"}],
    ids=lambda names: "-".join(sorted(names)),
)
def test_images_that_lack_the_usual_commands(tmp_path: Path, without: set[str]) -> None:
    image = Image("/a", UUID(int=1), without=without, defined=[Symbol("_a")])
    report = _extract(tmp_path, image)
    assert not report.failed
    made = read(report.extracted[0].file)
    assert [s.name for s in made.symbols] == ([] if "symtab" in without else ["_a"])


def test_special_entries_of_the_indirect_table_stay(tmp_path: Path) -> None:
    special = [0x8000_0000, 0x4000_0000, 0xC000_0000]
    image = Image(
        "/a",
        UUID(int=1),
        locals=[Symbol("<redacted>", 0x0E)] * 2,
        defined=[Symbol("_d")],
        undefined=[Symbol("_u", 1, 0, 0)],
        unmapped=[Symbol(f"_l{n}", 0x0E) for n in range(5)],
        indirect=[*special, 3, 2],
    )
    made = read(_extract(tmp_path, image, header_size=0x138).extracted[0].file)
    assert made.indirect[:3] == special
    assert [made.symbols[i].name for i in made.indirect[3:]] == ["_u", "_d"]


def test_locals_of_an_old_cache_are_found_by_the_file_offset_of_the_image(tmp_path: Path) -> None:
    images = [
        Image(f"/{n}", UUID(int=n + 1), unmapped=[Symbol(f"_l{n}", 0x0E, n)], defined=[Symbol("_d")]) for n in range(3)
    ]
    report = _extract(tmp_path, *images, header_size=0x68)
    assert [read(e.file).symbols[0].name for e in report.extracted] == ["_l0", "_l1", "_l2"]


def _terminal(flags: int, rest: bytes) -> bytes:
    payload = bytes([flags]) + rest
    return bytes([len(payload)]) + payload + b"\0"


def test_individually_reexported_symbols_become_symbols_between_defined_and_undefined(tmp_path: Path) -> None:
    reexport_renamed = _terminal(0x08, b"\x01_target\0")
    reexport_same = _terminal(0x08, b"\x01\0")
    whole_dylib = _terminal(0x08, b"\x02_hidden\0")
    weak, thread_local = _terminal(0x0C, b"\x01_target\0"), _terminal(0x09, b"\x01\0")
    plain = _terminal(0, b"\x80\x20")
    edges = [
        (b"_renamed", reexport_renamed),
        (b"_same", reexport_same),
        (b"_weak", weak),
        (b"_whole", whole_dylib),
        (b"_thread_local", thread_local),
        (b"_d", plain),
    ]
    at = 2 + sum(len(e) + 2 for e, _ in edges)
    trie, leaves = bytearray([0, len(edges)]), bytearray()
    for edge, leaf in edges:
        trie += edge + b"\0" + bytes([at + len(leaves)])
        leaves += leaf
    dylib = lambda cmd: struct.pack("<6I", cmd, 32, 24, 0, 0, 0) + b"/x\0\0\0\0\0\0"  # noqa: E731
    image = Image(
        "/a",
        UUID(int=1),
        defined=[Symbol("_d")],
        undefined=[Symbol("_u", 1, 0, 0)],
        indirect=[1, 0],
        trie=bytes(trie + leaves) + bytes(5),
        commands=[dylib(0xC), dylib(0x20), dylib(0x8000001F)],  # a lazy one has no ordinal
    )
    made = read(_extract(tmp_path, image).extracted[0].file)
    assert [s.name for s in made.symbols] == ["_d", "_renamed", "_same", "_weak", "_u"]
    assert [made.string(s.value) for s in made.symbols[1:4]] == ["_target", "_same", "_target"]
    assert all((s.type, s.sect, s.desc) == (0x0B, 0, 0) for s in made.symbols[1:4])
    assert made.dysymtab[:6] == (0, 0, 0, 4, 4, 1)
    assert [made.symbols[i].name for i in made.indirect] == ["_u", "_d"]
    assert made.payload(LC_EXPORTS_TRIE)[: len(trie)] == trie


def test_exports_stand_under_one_command_only(tmp_path: Path) -> None:
    """A debugger gives up on a file whose LC_DYLD_INFO and LC_DYLD_EXPORTS_TRIE both have exports."""
    info = struct.pack("<12I", 0x80000022, 48, *(5, 5, 6, 6, 7, 7, 8, 8), 9, 9)
    both = Image("/a", UUID(int=1), trie=b"\0\0", commands=[info])
    made = read(_extract(tmp_path, both).extracted[0].file)
    assert struct.unpack_from("<10I", made.command(0x80000022) or b"", 8) == (0,) * 10
    assert made.payload(LC_EXPORTS_TRIE) == b"\0\0"


def test_zero_fill_that_no_file_backs_is_zero_and_recorded(tmp_path: Path) -> None:
    image = Image("/a", UUID(int=1), data=b"real" + bytes(PAGE - 8) + b"tail", data_vmsize=PAGE + 0x3210)
    report = _extract(tmp_path, image)
    assert report.extracted[0].unbacked == 0x3210
    made = read(report.extracted[0].file)
    data = made.bytes_of(made.segment("__DATA"))
    assert (
        data[:4] == b"real" and data[PAGE - 4 : PAGE] == b"tail" and not any(data[PAGE:]) and len(data) == PAGE + 0x3210
    )


_ZERO_FILL = 1


def _data(tmp_path: Path, *images: Image, **options: object) -> tuple[Extracted, MachO, Segment]:
    """Extract the first of the images; return it, the file and its __DATA."""
    report = _extract(tmp_path, *images, **options)
    assert not report.failed
    made = read(report.extracted[0].file)
    return report.extracted[0], made, made.segment("__DATA")


@pytest.mark.parametrize(
    ("sections", "content", "size"),
    [
        ([(0, 16, 0), (16, PAGE - 16, _ZERO_FILL)], b"", 0x1000),
        ([(0, 0x1001, 0), (0x1008, 0x100, _ZERO_FILL)], b"", 0x2000),
        ([(0, 0x1000, 0), (0x1000, 0x100, 0xC), (0x1100, 0x2000, 0x12)], b"", 0x1000),
        ([(0, PAGE, _ZERO_FILL)], b"", 0),
        ([(0, PAGE, _ZERO_FILL)], bytes(0x1800) + b"x", 0x2000),
        ([(0, PAGE, _ZERO_FILL)], bytes(PAGE - 1) + b"x", PAGE),
        ([(0, 0x1000, 0), (0x1000, 0x2000, _ZERO_FILL), (0x3000, 8, 0)], b"", PAGE),
        ([(0, 0x1000, 0), (PAGE, 0, 0)], b"", 0x1000),
        ([], b"", 0),
        ([], b"x", 0x1000),
    ],
)
def test_zero_fill_at_the_end_of_a_segment_is_not_written(
    tmp_path: Path, sections: list[tuple[int, int, int]], content: bytes, size: int
) -> None:
    _, made, data = _data(tmp_path, Image("/a", UUID(int=1), data=content, data_sections=sections))
    assert (data.vmsize, data.filesize, data.fileoff) == (PAGE, size, PAGE)
    assert made.segment("__LINKEDIT").fileoff == PAGE + size
    assert made.bytes_of(data) == content.ljust(PAGE, b"\0")
    offsets = [0 if flags or start >= size else data.fileoff + start for start, _, flags in sections]
    assert [section.offset for section in data.sections] == offsets


def test_a_pointer_to_the_cache_itself_is_kept_though_it_is_stored_as_zeros(tmp_path: Path) -> None:
    """The last pointer of a chain, whose target is at offset 0, has no bit set."""
    chain = struct.pack("<3I4xQ2H", 5, PAGE, 2, 0x1_8000_0000, 0xFFFF, 0x100)
    images = [
        Image("/a", UUID(int=1), data_vmsize=2 * PAGE, data_sections=[(0, 2 * PAGE, _ZERO_FILL)]),
        Image("/b", UUID(int=2), without={"data"}),
    ]
    _, made, data = _data(tmp_path, *images, arch="arm64e", base=0x1_8000_0000, slide=chain)
    assert made.bytes_of(data) == bytes(PAGE + 0x100) + struct.pack("<Q", 0x1_8000_0000) + bytes(PAGE - 0x108)


def test_zero_fill_that_no_file_backs_costs_nothing_and_is_no_loss(tmp_path: Path) -> None:
    size = 200 << 20
    sections = [(0, 16, 0), (PAGE, size, _ZERO_FILL)]
    image = Image("/a", UUID(int=1), data=b"real", data_vmsize=PAGE + size, data_sections=sections)
    extracted, made, data = _data(tmp_path, image)
    assert (data.vmsize, data.filesize) == (PAGE + size, 0x1000)
    assert made.data[data.fileoff :][:4] == b"real"
    assert extracted.size == len(made.data) < 0x10000
    assert extracted.unbacked == 0


def test_segments_that_no_cache_could_hold_are_refused(tmp_path: Path) -> None:
    report = _extract(
        tmp_path, Image("/a", UUID(int=1), data_vmsize=1 << 40), Image("/b", UUID(int=2), data_vmsize=1 << 28)
    )
    assert [f.path for f in report.failed] == ["/a", "/b"]
    assert all("__DATA" in f.reason for f in report.failed)


def test_empty_segments_take_no_place(tmp_path: Path) -> None:
    made = read(_extract(tmp_path, Image("/a", UUID(int=1), data_vmsize=0)).extracted[0].file)
    assert (made.segment("__DATA").fileoff, made.segment("__DATA").filesize) == (0, 0)


def test_zero_fill_sections_have_no_offset_and_the_others_follow_their_segment(tmp_path: Path) -> None:
    report = _extract(tmp_path, Image("/a", UUID(int=1)), arch="arm64")
    made = read(report.extracted[0].file)
    for segment in made.segments:
        for section in segment.sections:
            assert section.offset == segment.fileoff + section.addr - segment.vmaddr
    assert made.segment("__DATA").fileoff % 0x4000 == 0


def test_names_that_do_not_end_or_lie_outside_fail_the_image(tmp_path: Path) -> None:
    image = Image("/a", UUID(int=1), defined=[Symbol("_a"), Symbol("_b")], strings=b"\0_a\0_")
    report = _extract(tmp_path, image)
    assert [f.path for f in report.failed] == ["/a"] and "string pool" in report.failed[0].reason


@pytest.mark.parametrize(("symbols", "length"), [(1, 63), (40, 64), (40, 65), (300, 255), (3, 5000), (20, 100_000)])
def test_names_of_any_length_come_over(tmp_path: Path, symbols: int, length: int) -> None:
    if symbols * length > 200_000:
        symbols = 2
    names = [f"_{n:04}".ljust(length, "x") for n in range(symbols)]
    image = Image("/a", UUID(int=1), defined=[Symbol(n) for n in names])
    made = read(_extract(tmp_path, image).extracted[0].file)
    assert [s.name for s in made.symbols] == names


def test_names_that_share_a_place_are_stored_once(tmp_path: Path) -> None:
    cache = Cache([Image("/a", UUID(int=1), defined=[Symbol("_same"), Symbol("_other"), Symbol("_same2")])])
    out = bytearray(cache.build())
    at = next(i for i in range(len(out) - 48) if struct.unpack_from("<IBB", out, i) == (1, 0x0F, 1))
    struct.pack_into("<I", out, at + 32, 1)
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        made = read(extract_all(opened, tmp_path / "out").extracted[0].file)
    assert [s.name for s in made.symbols] == ["_same", "_other", "_same"]
    assert made.data.count(b"_same\0") == 1


def test_overlapping_names_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Every symbol names another tail of one long string: the square of its length in bytes."""
    length = 60_000
    image = Image("/a", UUID(int=1), defined=[Symbol("")] * 5000, strings=b"\0" + b"x" * length + b"\0")
    cache = Cache([image])
    out = bytearray(cache.build())
    found = 0
    for i in range(0, len(out) - 16, 8):
        if struct.unpack_from("<IBBHQ", out, i) == (0, 0x0F, 1, 0, 0):
            found += 1
            struct.pack_into("<I", out, i, 1 + found)
    assert found == 5000
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        report = extract_all(opened, tmp_path / "out")
    assert "overlap" in report.failed[0].reason


def test_one_image_to_a_file_of_its_own(tmp_path: Path) -> None:
    path = Cache([Image("/a", UUID(int=1)), Image("/b", UUID(int=2))]).write(tmp_path)
    with SharedCache.open(path) as cache:
        made = extract_image(cache, cache.images[1], tmp_path / "elsewhere/b.dylib")
    assert made.file == tmp_path / "elsewhere/b.dylib" and read(made.file).uuid == UUID(int=2)


def test_linkedit_may_lie_more_than_4_gib_behind_the_code(tmp_path: Path) -> None:
    image = Image("/a", UUID(int=1), defined=[Symbol("_far", value=5)], function_starts=b"\x80\x20\0\0")
    made = read(_extract(tmp_path, image, linkedit_gap=0x3_4000_0000).extracted[0].file)
    assert [s.name for s in made.symbols] == ["_far"] and made.payload(0x26) == b"\x80\x20\0\0"
    assert made.segment("__LINKEDIT").vmaddr == 0x7FF8_0000_0000 + 0x3_4000_0000


def test_only_the_images_own_part_of_the_shared_linkedit_is_copied(tmp_path: Path) -> None:
    """Its command covers the region of all images; the size of the string pool is that of all names."""
    cache = Cache([Image("/a", UUID(int=1), defined=[Symbol("_mine")])])
    out = bytearray(cache.build())
    symtab = next(at for at in range(PAGE, 2 * PAGE) if out[at : at + 8] == struct.pack("<2I", 2, 24))
    struct.pack_into("<I", out, symtab + 20, 0xFFFF_FFF0)
    path = tmp_path / "dyld_shared_cache_x86_64"
    path.write_bytes(out)
    with SharedCache.open(path) as opened:
        made = read(extract_all(opened, tmp_path / "out").extracted[0].file)
    assert [s.name for s in made.symbols] == ["_mine"]
    assert made.segment("__LINKEDIT").filesize < 100 and len(made.data) < 0x10000


def test_a_changed_byte_of_code_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Code signatures of patched or partly written caches do not fit; the images are still wanted."""
    cache = Cache([Image("/a", UUID(int=1), text=b"\x55\x48")], patches={PAGE + 0x1000: b"\xff"})
    with SharedCache.open(cache.write(tmp_path)) as opened:
        made = read(extract_all(opened, tmp_path / "out").extracted[0].file)
    assert made.data[0x1000:0x1002] == b"\xff\x48"


def test_names_that_differ_in_case_only_do_not_meet_where_the_disk_folds_case() -> None:
    images = [CacheImage(n, p, None, 0, 0) for n, p in enumerate(("/Lib/Foo", "/lib/foo", "/LIB/FOO", "/lib/bar"))]
    assert file_names(images, fold_case=True) == ["/Lib/Foo", "/lib/foo~2", "/LIB/FOO~3", "/lib/bar"]
    assert file_names(images) == ["/Lib/Foo", "/lib/foo", "/LIB/FOO", "/lib/bar"]


def _damage_text(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pointers.DecodedPages.content

    def content(self: pointers.DecodedPages, address: int, size: int) -> list[memoryview]:
        pieces = whole(self, address, size)
        first = bytearray(pieces[0])
        first[-1] ^= 1
        return [memoryview(first), *pieces[1:]]

    monkeypatch.setattr(pointers.DecodedPages, "content", content)


def _damage_linkedit(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytearray], None]) -> None:
    whole = image_writer.rebuild

    def rebuild(*arguments: Any) -> Any:
        linkedit = whole(*arguments)
        data = bytearray(linkedit.data)
        change(data)
        linkedit.data = bytes(data)
        return linkedit

    monkeypatch.setattr(image_writer, "rebuild", rebuild)


def _far_name(data: bytearray) -> None:
    struct.pack_into("<I", data, 0, 0x7FFF_FFFF)


def _no_end(data: bytearray) -> None:
    data[-8:] = b"x" * 8


def _cut(data: bytearray) -> None:
    del data[8:]


@pytest.mark.parametrize("damage", ["text", _far_name, _no_end, _cut], ids=["text", "far-name", "no-end", "cut"])
def test_a_file_that_differs_from_the_cache_never_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    """Whatever goes wrong inside, the last look before the file is written finds it."""
    if damage == "text":
        _damage_text(monkeypatch)
    else:
        _damage_linkedit(monkeypatch, damage)
    report = _extract(tmp_path, Image("/a", UUID(int=1), defined=[Symbol("_a"), Symbol("_b")]))
    assert [f.path for f in report.failed] == ["/a"]
    assert not list((tmp_path / "out").rglob("*"))


_names = st.text("abcXYZ_$.0189\x08\x0b\x0c\x10é", min_size=1, max_size=40).filter(lambda s: len(s.encode()) < 120)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(_names, st.tuples(st.booleans(), st.integers(0, 1 << 32), st.integers(1, 300)), max_size=60),
    st.data(),
)
def test_reexports_are_found_in_any_trie_and_only_there(names: dict[str, Any], data: st.DataObject) -> None:
    """Most tries have none and are never walked: what tells them apart must not miss one."""
    leaves = {
        name: Export(0x08, ordinal=number, imported=data.draw(st.sampled_from(["", "_x", "é\x08", "y" * 130])))
        if reexported
        else Export(0, address=address)
        for name, (reexported, address, number) in names.items()
    }
    trie = trie_bytes({name.encode(): export.payload() for name, export in leaves.items()})
    assert exports.may_reexport(trie) or not any(e.reexport for e in leaves.values())
    if any(e.reexport for e in leaves.values()):
        assert {n.decode() for n, payload in walk(trie, "trie") if payload[0] & 8} == {
            n for n, e in leaves.items() if e.reexport
        }
