"""The cache writer against what does not know it: tables, a disassembler, an emulator, Apple's builder."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.cachewriter import HEADER_SIZES, BuiltCache, CacheOptions, build_cache
from tests.cachewriter.disassembly import addresses_in_code
from tests.cachewriter.emulate import Emulator
from tests.cachewriter.plainreader import PlainCache, trie, uleb
from tests.cachewriter.samples import ALIASES, PROBES, sample, samples
from tests.cachewriter.variants import VARIANTS, built


def test_every_header_size_and_slide_version_is_covered() -> None:
    options = list(VARIANTS.values())
    assert {o.header_size for o in options} >= set(HEADER_SIZES)
    assert {o.slide for o in options} == {0, 1, 2, 3, 4, 5}
    assert {o.arch for o in options} >= {"i386", "x86_64", "x86_64h", "arm64", "arm64e", "arm64_32"}
    assert {o.unmapped_locals for o in options} == {None, "same-file", ".symbols"}


# Tagged pointers need an operating system that ignores the tag.
@pytest.mark.parametrize("identity", [i for i, o in VARIANTS.items() if not o.high8])
def test_cache_code_runs_as_its_source_does(identity: str, right_answers: ctypes.CDLL) -> None:
    cache_ = built(identity)
    emulator = Emulator(cache_, slide=0x1234000)
    for path, names in PROBES.items():
        expected = cache_.expected(path)
        for name in names:
            (address,) = (s.value for s in expected.symbols if s.name == f"_{name}")
            for argument in (0, 1, 5, 8, 300):
                assert emulator.call(address, argument) == getattr(right_answers, name)(argument), f"{name}({argument})"


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "arm64_32", "i386"])
def test_two_layouts_differ_and_behave_alike(arch: str, right_answers: ctypes.CDLL) -> None:
    size = 0x98 if arch == "i386" else 0x200
    one, two = (build_cache(sample(o), o) for o in (CacheOptions(arch, size), CacheOptions(arch, size, layout_seed=9)))
    emulators = [Emulator(one), Emulator(two)]
    moved_apart = []
    for path, names in PROBES.items():
        places = [c.placed_image(path) for c in (one, two)]
        distances = [[cache - original for _, original, cache, _ in p.segments] for p in places]
        first, second = ([d - row[0] for d in row] for row in distances)
        moved_apart.append(first != second)
        for name in names:
            answers = []
            for cache_, emulator in zip((one, two), emulators, strict=True):
                (address,) = (s.value for s in cache_.expected(path).symbols if s.name == f"_{name}")
                answers.append([emulator.call(address, x) for x in range(6)])
            assert answers[0] == answers[1] == [getattr(right_answers, name)(x) for x in range(6)]
    assert sum(moved_apart) >= len(PROBES) - 1, "segments lie as far apart in one layout as in the other"


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("path", [p for p in PROBES if "base" not in p])
def test_moved_code_refers_to_the_same_things(arch: str, path: str) -> None:
    options = CacheOptions(arch, 0x228, layout_seed=3)
    cache_ = build_cache(sample(options), options)
    place = cache_.placed_image(path)
    before = next(i for i in cache_.images if i.path == path)
    segments = sorted((original, size, cache) for _, original, cache, size in place.segments)

    def in_cache(address: int) -> int:
        return next(c + address - o for o, size, c in reversed(segments) if o <= address)

    crossing = 0
    for section in before.text.sections:
        if not section.code:
            continue
        original = before.text.content[section.addr - before.text.vmaddr :][: section.size]
        moved = cache_.read(in_cache(section.addr), section.size)
        old = addresses_in_code(original, section.addr, arch)
        assert addresses_in_code(moved, in_cache(section.addr), arch) == [in_cache(a) for a in old]
        crossing += sum(1 for a in old if before.segment_of(a) != before.segments.index(before.text))
    assert crossing >= 2, "the sample has nothing to re-encode"


def test_tables_follow_the_format(variant: tuple[BuiltCache, PlainCache]) -> None:
    cache_, plain = variant
    options = cache_.options
    arch = options.magic or options.arch
    assert plain.header("magic") == ("dyld_v1" + str(arch).rjust(8) + "\0").encode()
    assert plain.header("mappingOffset") == options.header_size
    for file, data in plain.files.items():
        end = plain.header("codeSignatureOffset", file) or len(data)
        for m in (m for m in plain.mappings if m.file == file):
            assert m.offset + m.size <= end
            assert m.address % 0x1000 == m.size % 0x1000 == m.offset % 0x1000 == 0
        if options.header_size >= 0x48:
            assert not plain.broken_pages(file)
    ordered = sorted(plain.mappings, key=lambda m: m.address)
    assert all(a.address + a.size <= b.address for a, b in itertools.pairwise(ordered))
    base = plain.mappings[0].address
    for suffix, uuid, offset in plain.subcaches:
        first = next(m for m in plain.mappings if m.file == suffix)
        assert plain.header("uuid", suffix) == uuid == cache_.file_uuids[suffix]
        assert (first.address, first.offset) == (base + offset, 0)
        assert plain.files[suffix][:16] == plain.files[""][:16]
        assert plain.header("sharedRegionSize", suffix) == 0
    if options.header_size >= 0xF8:
        assert plain.header("sharedRegionStart") == base
        assert plain.header("sharedRegionSize") >= ordered[-1].address + ordered[-1].size - base
    if options.unmapped_locals == ".symbols":
        assert plain.header("uuid", ".symbols") == plain.header("symbolFileUUID") != bytes(16)


def test_image_tables_agree(variant: tuple[BuiltCache, PlainCache]) -> None:
    cache_, plain = variant
    options = cache_.options
    placed = {p.path: p.address for p in cache_.placed}
    assert plain.images == placed
    if options.header_size >= 0x98:
        sizes = {p.path: next(s for n, _, _, s in p.segments if n == "__TEXT") for p in cache_.placed}
        assert plain.image_texts == [(p.uuid, p.address, sizes[p.path], p.path) for p in cache_.placed]
    if options.header_size < 0x140:
        first = min(plain.header("imagesOffsetOld"), 0x10000)
        assert first < 0x10000
        extra = set(plain.rows) - set(placed.items())
        assert extra == {(alias, placed[path]) for alias, path in options.aliases.items()}
    if options.header_size >= 0x138 and options.dylibs_trie:
        order = [p.path for p in cache_.placed]
        assert plain.paths == {p: order.index(p) for p in order} | {a: order.index(p) for a, p in ALIASES.items()}


def test_pointers_decode_to_what_the_writer_placed(variant: tuple[BuiltCache, PlainCache]) -> None:
    cache_, plain = variant
    raw = {m.address: plain.files[m.file][m.offset : m.offset + m.size] for m in plain.mappings}
    told = {address: content for address, content, _ in cache_.memory()}
    assert {m.address: hashlib.sha256(c).digest() for m, c in plain.memory} == {
        a: hashlib.sha256(c).digest() for a, c in told.items()
    }
    if cache_.options.slide > 1:
        assert any(raw[a] != c for a, c in told.items()), "no pointer was encoded"
    slid = cache_.memory(slide=0x4000)
    width = 8 if cache_.options.is64 else 4
    changed = 0
    for (address, before, _), (other, after, _) in zip(cache_.memory(), slid, strict=True):
        assert other == address + 0x4000
        for at in range(0, len(before), width):
            if before[at : at + width] != after[at : at + width]:
                changed += 1
    assert changed == sum(len(r.pointers) for r in cache_.layout.regions) > 30


def test_images_hold_what_went_in(variant: tuple[BuiltCache, PlainCache]) -> None:
    cache_, plain = variant
    for path, address in plain.images.items():
        image, told = plain.commands(address), cache_.expected(path)
        assert image.flags & 0x80000000
        assert (image.cputype, image.cpusubtype) == cache_.options.cpu
        assert image.filetype == told.filetype == (7 if path == "/usr/lib/dyld" else 6)
        uuid = image.find(0x1B)
        assert (uuid[8:24] if uuid else bytes(16)) == told.uuid
        segments = [(s.name, s.vmaddr, len(s.content)) for s in told.segments]
        assert [(n, a, size) for n, a, size, _ in image.segments if n != "__LINKEDIT"] == segments
        for name, vmaddr, _, fileoff in image.segments:
            home = next(m for m in plain.mappings if m.address <= vmaddr < m.address + m.size)
            assert fileoff == home.offset + vmaddr - home.address, f"{name} of {path}"
        for segment in told.segments:
            assert plain.read(segment.vmaddr, len(segment.content)) == segment.content
        lines, indirect = plain.symbols(image)
        assert sorted(lines) == sorted(s.line for s in told.symbols)
        if cache_.options.unmapped_locals is None:
            assert indirect == told.indirect_symbols
        assert plain.payload(image, 0x26) == told.function_starts
        assert plain.payload(image, 0x29) == told.data_in_code
        assert not image.find(0x1D, 0x1E, 0x80000034), "a command that points nowhere"


@cache
def _names(file: Path) -> list[str]:
    done = subprocess.run(["llvm-nm-19", "-j", "-p", "-a", file], check=True, capture_output=True, text=True)
    return sorted(done.stdout.split("\n")[:-1])


def test_symbols_have_the_names_that_llvm_reads(variant: tuple[BuiltCache, PlainCache]) -> None:
    cache_, plain = variant
    for dylib in sample(cache_.options):
        lines, _ = plain.symbols(plain.commands(plain.images[dylib.path]))
        assert sorted(line.split(" ", 4)[4] for line in lines) == _names(dylib.file)


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "i386", "arm64_32"])
def test_exports_name_the_symbols_they_did(arch: str, tmp_path: Path) -> None:
    options = CacheOptions(arch, 0x98 if arch == "i386" else 0x200, layout_seed=1)
    cache_ = build_cache(sample(options), options)
    plain = PlainCache(cache_.write(tmp_path))
    for path, address in plain.images.items():
        image = plain.commands(address)
        kinds = (0x80000022, 0x22) if image.find(0x80000022, 0x22) else (0x80000033,)
        leaves = trie(plain.payload(image, *kinds))
        lines, _ = plain.symbols(image)
        values = {line.split(" ", 4)[4]: int(line.split(" ")[0], 16) for line in lines}
        assert leaves or path == "/usr/lib/dyld"
        for name, payload in leaves.items():
            flags, at = uleb(payload, 0)
            if not flags & 8:
                assert address + uleb(payload, at)[0] == values[name], name


def test_unmapped_locals_leave_redacted_entries_behind(tmp_path: Path) -> None:
    options = CacheOptions("x86_64", 0x200, unmapped_locals=".symbols")
    plain = PlainCache(build_cache(sample(options), options).write(tmp_path))
    image = plain.commands(plain.images["/usr/lib/libplain.dylib"])
    symtab = image.find(0x2)
    assert symtab
    symoff, count, stroff, _ = struct.unpack_from("<4I", symtab, 8)
    names = []
    for i in range(count):
        (strx,) = struct.unpack("<I", plain.linkedit(image, symoff + 16 * i, 4))
        names.append(plain.linkedit(image, stroff + strx, 60).split(b"\0")[0].decode())
    assert names.count("<redacted>") == 2, "plain_first and plain_second"
    assert "_plain_local" not in names and "_plain_first" not in names


def test_a_narrow_delta_mask_needs_page_extras(tmp_path: Path) -> None:
    options = VARIANTS["i386-0x98-slide_version=2-delta_mask=0xc0000000"]
    plain = PlainCache(build_cache(sample(options), options).write(tmp_path))
    mapping = plain.mappings[1]
    extras = struct.unpack_from("<I", plain.files[""], mapping.slide_offset + 0x14)[0]
    assert extras > 1


def test_authenticated_pointers_vary() -> None:
    options = CacheOptions("arm64e", 0x228, slide_version=3, authenticated=0.5)
    cache_ = build_cache(sample(options), options)
    signed = [p.auth for r in cache_.layout.regions for p in r.pointers if p.auth]
    plain = [p for r in cache_.layout.regions for p in r.pointers if not p.auth]
    assert plain and {a.key for a in signed} == {0, 1, 2, 3}
    assert {a.address_diversity for a in signed} == {False, True} and len({a.diversity for a in signed}) > 5


def test_same_options_give_the_same_bytes_and_a_build_its_own_uuid() -> None:
    options = CacheOptions("x86_64", 0x228, split="v2")
    one, again = (build_cache(sample(options), options) for _ in range(2))
    other = build_cache(sample(options), CacheOptions("x86_64", 0x228, split="v2", build="22G121"))
    assert one.files == again.files
    assert one.uuid != other.uuid and len(set(one.file_uuids.values())) == len(one.file_uuids)


def test_development_twin_shares_the_subcaches_but_one(tmp_path: Path) -> None:
    options = CacheOptions("arm64e", 0x200, split="v2-kinds", cache_type=2, development=True)
    main = build_cache(sample(options), options).write(tmp_path)
    customer, twin = PlainCache(main), PlainCache(main.with_name(main.name + ".development"))
    assert customer.header("uuid") != twin.header("uuid")
    assert (customer.header("cacheSubType"), twin.header("cacheSubType")) == (1, 0)
    assert customer.subcaches[:-1] == twin.subcaches[:-1] and customer.images == twin.images
    (stub, uuid, _), (other, other_uuid, _) = customer.subcaches[-1], twin.subcaches[-1]
    assert (stub, other) == (".05", ".05.development") and uuid != other_uuid == twin.header("uuid", other)
    assert [m.flags for m in customer.mappings if m.file == stub] == [8], "TEXT_STUBS"


@pytest.mark.parametrize(
    "options",
    [
        CacheOptions("x86_64", 0x138, split="v2"),
        CacheOptions("x86_64", 0x1C8, split="v2"),
        CacheOptions("x86_64", 0x28, slide_version=2),
        CacheOptions("x86_64", 0x48, unmapped_locals="same-file"),
        CacheOptions("arm64", 0x140, unmapped_locals=".symbols"),
        CacheOptions("arm64_32", 0x200, slide_version=3),
        CacheOptions("arm64e", 0x200, slide_version=4),
        CacheOptions("arm64", 0x228, split=("." + "x" * 31,)),
    ],
)
def test_what_the_format_cannot_say_is_refused(options: CacheOptions) -> None:
    with pytest.raises(ValueError, match=r"."):
        build_cache([], options)


def test_a_library_of_another_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="cputype"):
        build_cache(list(samples("arm64")), CacheOptions("x86_64", 0x228))


def test_imports_that_nothing_exports_become_null(tmp_path: Path) -> None:
    options = CacheOptions("arm64", 0x228)
    only = [d for d in sample(options) if d.path == "/usr/lib/libweak.dylib"]
    cache_ = build_cache(only, options)
    names = {name for _, name in cache_.missing}
    assert {"_base_double", "_never_there"} <= names and "_weak_value" not in names
    whole = build_cache(sample(options), options)
    assert whole.missing == [("/usr/lib/libweak.dylib", "_never_there")]


def test_single_symbols_are_re_exported() -> None:
    cache_ = build_cache(list(samples("x86_64")), CacheOptions("x86_64", 0x228))
    bare = next(p.path for p in cache_.placed if "bare" in p.path)
    assert cache_.expected(bare).reexports == [("_base_add", "_base_add"), ("_renamed", "_base_double")]
    assert "_base_double 0b 0 0000 _renamed" in cache_.expected(bare).symbol_lines


@pytest.mark.parametrize("number", range(8))
def test_the_i386_linker_makes_files_that_llvm_reads(number: int) -> None:
    input_ = samples("i386")[number]
    done = subprocess.run(
        ["llvm-objdump-19", "--macho", "--bind", "--rebase", "--exports-trie", "--private-headers", str(input_.file)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr
    names = subprocess.run(["llvm-nm-19", "-gUj", str(input_.file)], check=True, capture_output=True, text=True)
    assert {n for n in names.stdout.split() if n not in done.stdout} == set()
