"""Names of addresses are those that LLDB gives; inlined calls and lines those of llvm-symbolizer."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from symcache.dyld import SharedCache, extract_all
from symcache.macho import LC, identify, mach_header, text_address
from symcache.symbolicate import ImageNames, NamesFolder, NameSource, call_offsets
from tests.support.apple import apple_caches
from tests.support.toolchain import dsym, lipo, need_toolchain
from tests.symbolicate.comparing import content, differing, need_lldb
from tests.symbolicate.lldb_names import lldb_names

_SOURCE = """
#define APART __attribute__((noinline))
extern "C" int elsewhere(int);
int table[64] = {1, 2, 3};
static inline int square(int x) { volatile int y = x; return y * x; }
static inline int cube(int x) { return square(x) * x; }
namespace ledger {
struct Entry { APART int sum(int); int value; };
int Entry::sum(int x) { return cube(x) + value + table[x & 63]; }
template <class T> APART T twice(T x) { return square(x) + cube(x); }
}
APART static int hidden(int x) { volatile int y = x; return y + cube(x) + elsewhere(y); }
APART static int hidden_too(int x) { volatile int y = x; return y * hidden(x + 1); }
extern "C" APART int answer(int x) { return hidden_too(x) + ledger::twice(x); }
extern "C" APART int last(int x) { ledger::Entry e{x}; return e.sum(answer(x)); }
"""
_ARCHES = ("arm64", "x86_64")


@dataclass
class Built:
    """One dylib, what is left of it for customers, and the inner file of its dSYM."""

    arch: str
    whole: Path
    stripped: Path
    without_symbols: Path
    without_starts: Path
    dsym: Path


def _run(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=_ARCHES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    need_toolchain()
    folder, arch = tmp_path_factory.mktemp("names"), request.param
    (folder / "ledger.cpp").write_text(_SOURCE)
    _run("clang-19", "-target", f"{arch}-apple-macos12", "-g", "-O2", "-c", folder / "ledger.cpp", "-o", folder / "o")
    link = ("ld64.lld-19", "-arch", arch, "-platform_version", "macos", "12.0", "12.0", "-undefined", "dynamic_lookup")
    whole, stripped, exporting, without = (folder / name for name in ("whole", "stripped", "exporting", "without"))
    _run(*link, "-dylib", folder / "o", "-o", whole)
    _run(*link, "-dylib", "-no_function_starts", folder / "o", "-o", without)
    inner = next((dsym(whole) / "Contents" / "Resources" / "DWARF").iterdir())
    _run("llvm-strip-19", "-x", whole, "-o", stripped)
    exporting.write_bytes(_without_symbols(whole.read_bytes()))
    return Built(arch, whole, stripped, exporting, without, inner)


def _without_symbols(image: bytes) -> bytes:
    """Return an image without symbol table: what it exports stands in the trie only."""
    data, header = bytearray(image), mach_header(image)
    assert header
    for command in header.load_commands(data, {LC.SYMTAB, LC.DYSYMTAB}):
        data[command.body : command.offset + command.cmdsize] = bytes(command.cmdsize - 8)
    return bytes(data)


@pytest.fixture(scope="module")
def names_folder(tmp_path_factory: pytest.TempPathFactory) -> NamesFolder:
    return NamesFolder(tmp_path_factory.mktemp("folder"), 1 << 30)


def _open(folder: NamesFolder, *files: Path) -> ImageNames:
    uuid = identify(files[-1])[0].uuid
    assert uuid
    return folder.open(uuid, [content(file) for file in files])


def _code(file: Path) -> list[int]:
    """Return the offset of every byte of code, by llvm-objdump."""
    base = text_address(file.read_bytes())
    rows = [row.split() for row in _run("llvm-objdump-19", "-h", file).splitlines()]
    bounds = [(int(r[3], 16) - (base or 0), int(r[2], 16)) for r in rows if len(r) == 5 and r[4] == "TEXT"]
    return [offset for start, size in bounds for offset in range(start, start + size)]


def _text_end(file: Path) -> int:
    row = next(r.split() for r in _run("llvm-objdump-19", "-h", file).splitlines() if " __text " in r)
    return int(row[3], 16) + int(row[2], 16) - (text_address(file.read_bytes()) or 0)


def test_names_are_those_of_lldb(built: Built, names_folder: NamesFolder) -> None:
    need_lldb()
    files = {
        built.whole: {NameSource.SYMBOL},
        built.stripped: {NameSource.SYMBOL, NameSource.FUNCTION_START},
        built.without_symbols: {NameSource.EXPORT, NameSource.FUNCTION_START},
    }
    offsets = _code(built.whole)
    lldb = lldb_names([(file, built.arch, offsets) for file in files])
    for (file, sources), told in zip(files.items(), lldb, strict=True):
        found = _open(names_folder, file).look_up(np.array(offsets))
        assert differing(offsets, found, told) == []
        assert {location.source for location in found if location} == sources


def test_images_of_apples_caches_have_the_names_that_lldb_gives(tmp_path: Path, names_folder: NamesFolder) -> None:
    need_lldb()
    with SharedCache.open(apple_caches() / "arm64e-mac" / "dyld_shared_cache_arm64e") as cache:
        extract_all(cache, tmp_path / "images", jobs=1)
    file = max((f for f in (tmp_path / "images").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    offsets = list(range(0, _text_end(file), 4))
    offsets = offsets[:: max(1, len(offsets) // 400)]
    found = _open(names_folder, file).look_up(np.array(offsets))
    known = [(o, location) for o, location in zip(offsets, found, strict=True) if location]
    assert len(known) > 100
    (told,) = lldb_names([(file, "arm64e", [o for o, _ in known])])
    assert differing([o for o, _ in known], [location for _, location in known], told) == []


def test_inlined_calls_and_lines_are_those_of_llvm(built: Built, names_folder: NamesFolder) -> None:
    offsets = _code(built.whole)
    command = ["llvm-symbolizer-19", f"--obj={built.dsym}", "--inlines", "--output-style=JSON", "--no-demangle"]
    requests = "\n".join(map(hex, offsets))
    lines = subprocess.run(command, input=requests, capture_output=True, text=True, check=True).stdout.splitlines()
    depths = set()
    for offset, line, location in zip(
        offsets, lines, _open(names_folder, built.dsym, built.whole).look_up(np.array(offsets)), strict=True
    ):
        frames = [(f["FunctionName"], f["FileName"], f["Line"]) for f in json.loads(line)["Symbol"] if f["FileName"]]
        told = location if location and location.source is NameSource.DWARF else None
        assert ([(c.symbol, c.file, c.line or 0) for c in told.calls] if told else []) == frames, hex(offset)
        depths.add(len(frames))
    assert depths >= {0, 1, 2, 3}


def test_functions_tell_where_they_begin_and_end(built: Built, names_folder: NamesFolder) -> None:
    rows = _run("llvm-dwarfdump-19", "--debug-info", "--name=answer", built.dsym)
    low, high = (int(rows.split(f"DW_AT_{side}_pc\t(")[1].split(")")[0], 16) for side in ("low", "high"))
    for files in ((built.dsym, built.whole), (built.whole,)):
        for location in _open(names_folder, *files).look_up(np.array([low, high - 1])):
            assert location
            assert (location.calls[-1].function, location.start) == ("answer", low)
            assert location.size == high - low or (
                location.source is NameSource.SYMBOL and location.size > high - low - 1
            )  # type: ignore[operator]


def test_where_nothing_tells_function_starts_a_name_is_a_guess(built: Built, names_folder: NamesFolder) -> None:
    names = _open(names_folder, built.without_starts)
    at = int(
        next(r for r in _run("llvm-nm-19", built.without_starts).splitlines() if r.endswith("_answer")).split()[0], 16
    )
    first, inside = names.look_up(np.array([at, at + 4]))
    assert first and inside
    assert (first.source, first.calls[-1].symbol, first.size) == (NameSource.SYMBOL, "answer", None)
    assert (inside.source, inside.calls[-1].symbol, inside.size) == (NameSource.NEAREST, "answer", None)


def test_what_is_no_code_has_no_name(built: Built, names_folder: NamesFolder) -> None:
    data = int(next(r for r in _run("llvm-nm-19", built.whole).splitlines() if r.endswith("_table")).split()[0], 16)
    code = _code(built.whole)
    offsets = [
        -1,
        0,
        min(code) - 1,
        data,
        max(code) + 1,
        0x7FFF_FFFF,
        0xFFFF_FFFF,
        1 << 32,
        (1 << 32) + code[0],
        1 << 62,
    ]
    for files in ((built.whole,), (built.dsym, built.whole)):
        assert _open(names_folder, *files).look_up(np.array(offsets)) == [None] * len(offsets)


def test_calls_to_other_images_have_their_names(built: Built, names_folder: NamesFolder) -> None:
    rows = [row.split() for row in _run("llvm-objdump-19", "-h", built.whole).splitlines()]
    stubs = next(int(r[3], 16) for r in rows if len(r) == 5 and r[1] == "__stubs")
    (location,) = _open(names_folder, built.whole).look_up(np.array([stubs]))
    assert location
    assert (location.calls[0].function, location.calls[0].symbol) == ("symbol stub for: elsewhere", "elsewhere")


def test_the_dsym_is_told_first_and_the_binary_what_it_lacks(built: Built, names_folder: NamesFolder) -> None:
    """Of a dSYM without its binary nothing tells where functions begin that have no DWARF."""
    code = np.array(_code(built.whole))
    both = _open(names_folder, built.dsym, built.stripped).look_up(code)
    assert {location.source for location in both if location} >= {NameSource.DWARF, NameSource.SYMBOL}
    named = {location.calls[-1].function for location in both if location}
    assert {"hidden(int)", "hidden_too(int)", "symbol stub for: elsewhere"} <= named
    assert not any(name.startswith("fun_") for name in named)


def test_the_uuid_chooses_the_slice_of_a_universal_file(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, names_folder: NamesFolder
) -> None:
    need_toolchain()
    images = []
    for arch in _ARCHES:
        source, image = tmp_path / f"{arch}.c", tmp_path / arch
        source.write_text(f"int of_{arch}(int x) {{ return x; }}\n")
        _run("clang-19", "-target", f"{arch}-apple-macos12", "-c", source, "-o", tmp_path / "o")
        _run(
            "ld64.lld-19",
            "-arch",
            arch,
            "-platform_version",
            "macos",
            "12.0",
            "12.0",
            "-dylib",
            tmp_path / "o",
            "-o",
            image,
        )
        images.append(image)
    both = lipo(tmp_path / "both", *images)
    for arch, image in zip(_ARCHES, images, strict=True):
        uuid = identify(image)[0].uuid
        assert uuid
        names = names_folder.open(uuid, [content(both)])
        offsets = np.array(_code(image)[:1])
        assert [location.calls[0].symbol for location in names.look_up(offsets) if location] == [f"of_{arch}"]


def test_images_in_the_upper_half_of_memory_have_names(tmp_path: Path, names_folder: NamesFolder) -> None:
    """Kernel extensions lie there."""
    need_toolchain()
    source, image = tmp_path / "high.c", tmp_path / "high"
    source.write_text("int high(int x) { return x; }\n")
    _run("clang-19", "-target", "x86_64-apple-macos12", "-c", source, "-o", tmp_path / "o")
    link = ("ld64.lld-19", "-arch", "x86_64", "-platform_version", "macos", "12.0", "12.0", "-dylib")
    _run(*link, "-image_base", "0xffffff8000200000", tmp_path / "o", "-o", image)
    offsets = _code(image)
    assert {
        location and location.calls[0].symbol for location in _open(names_folder, image).look_up(np.array(offsets))
    } == {"high"}


def test_return_addresses_are_lowered_into_the_call() -> None:
    assert call_offsets(np.array([0x1004, 0x1006, 4]), "arm64e").tolist() == [0x1000, 0x1000, 0]
    assert call_offsets(np.array([0x1004, 1]), "x86_64").tolist() == [0x1003, 0]
    assert call_offsets(np.array([0x1004]), "i386").tolist() == [0x1003]
