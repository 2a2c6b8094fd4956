"""Breakpad symbol files tell what LLVM's own tools read from the same binary and dSYM, and other readers take them."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID

import pytest
from symbolic.debuginfo import Archive

from symcache.errors import IntegrityError, StorageError
from symcache.library import Library, ingest, stage_paths
from symcache.macho import LC, mach_header, sections
from symcache_server.convert.breakpad import make_symbol_file
from symcache_server.convert.child import stop_making
from tests.server.convert.breakpad_file import SymbolFile, parse
from tests.support.http import request
from tests.support.servers import BASES, CACHES, SHARED_UUID, Samples, Server, serve, uuid_of
from tests.support.toolchain import dsym, lipo, need_toolchain

_INLINED = """
static inline int square(int x) {
  volatile int y = x;
  return y * x;
}
static inline int cube(int x) { return square(x) * x; }
"""
_SOURCES = {
    "first.cpp": """
#include "include/inlined.h"
int second(int);
namespace ledger {
struct Entry { int sum(int); int value; };
int Entry::sum(int x) { return square(x) + value; }
template <class T> __attribute__((noinline)) T twice(T x) { return square(x) + cube(x); }
}
__attribute__((noinline)) static int local(int x) { volatile int y = x; return y + cube(x); }
extern "C" int answer(int x) {
  int r = ledger::twice(x);
  for (int i = 0; i < x; i++) {
    r += cube(square(i));
    r += local(i) + second(i);
  }
  return r;
}
""",
    "second.cpp": """
#include "include/inlined.h"
int second(int x) { return square(x) + 7; }
int table[] = {1, 2, 3};
""",
}
_UNWINDING = {
    # Unwinding that the compact form has no code for, so that __eh_frame tells.
    "x86_64": "push %rbx\n.cfi_def_cfa_offset 16\n.cfi_offset %rbx, -16\nmov %rsp, %rbx\n.cfi_def_cfa %rbx, 16\n"
    "sub $64, %rsp\nmov %rbx, %rsp\n.cfi_def_cfa %rsp, 16\npop %rbx\n.cfi_def_cfa_offset 8\nret\n",
    "arm64": "str x19, [sp, #-48]!\n.cfi_def_cfa_offset 48\n.cfi_offset x19, -48\nmov x19, sp\n.cfi_def_cfa x19, 48\n"
    "sub sp, sp, #64\nmov sp, x19\n.cfi_def_cfa sp, 48\nldr x19, [sp], #48\n.cfi_def_cfa_offset 0\nret\n",
}
_LLDB = """
import json, sys
import lldb
lldb.SBDebugger.Initialize()
debugger = lldb.SBDebugger.Create()
target = debugger.CreateTarget(sys.argv[1], sys.argv[3], "", False, lldb.SBError())
result = lldb.SBCommandReturnObject()
debugger.GetCommandInterpreter().HandleCommand(f"target symbols add -s {sys.argv[1]} {sys.argv[2]}", result)
module = target.GetModuleAtIndex(0)
places = []
for address in map(int, sys.argv[4:]):
    line = module.ResolveFileAddress(address).GetLineEntry()
    places.append([str(line.GetFileSpec()), line.GetLine()])
print(json.dumps({"added": result.Succeeded(), "from": str(module.GetSymbolFileSpec()), "places": places}))
"""


@dataclass
class Built:
    """A dylib with functions inlined into each other, of several files, and the inner file of its dSYM."""

    dylib: Path
    dsym: Path
    arch: str
    symbols: SymbolFile
    body: bytes


def _run(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def _build(folder: Path, arch: str) -> tuple[Path, Path]:
    need_toolchain()
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "inlined.h").write_text(_INLINED)
    unwinding = (
        f".globl _odd\n.p2align 2\n_odd:\n.cfi_startproc\n{_UNWINDING[arch]}.cfi_endproc\n.subsections_via_symbols\n"
    )
    objects = []
    for name, text in {**_SOURCES, "odd.s": unwinding}.items():
        (folder / name).write_text(text)
        objects.append(folder / f"{name}.o")
        flags = [] if name == "odd.s" else ["-g", "-O2", "-fno-vectorize", "-fno-unroll-loops"]
        _run("clang-19", "-target", f"{arch}-apple-macos12", *flags, "-c", folder / name, "-o", objects[-1])
    dylib = folder / f"libledger-{arch}.dylib"
    version = ("-platform_version", "macos", "12.0", "12.0", "-undefined", "dynamic_lookup")
    _run(
        "ld64.lld-19", "-arch", arch, *version, "-dylib", "-install_name", f"@rpath/{dylib.name}", *objects, "-o", dylib
    )
    bundle = dsym(dylib)
    return dylib, next((bundle / "Contents" / "Resources" / "DWARF").iterdir())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Both architectures, served by one server: its answers."""
    folder = tmp_path_factory.mktemp("breakpad")
    built = {arch: _build(folder / arch, arch) for arch in _UNWINDING}
    with Library.open(folder / "library", create=True) as library:
        ingest(library, stage_paths([file for pair in built.values() for file in pair], folder / "scratch"))
    with serve(folder / "library", folder / "server") as server:
        found = {}
        for arch, (dylib, inner) in built.items():
            answer = request(server.url, _path(uuid_of(dylib), dylib.name))
            assert answer.status == 200, answer.body
            found[arch] = Built(dylib, inner, arch, parse(answer.body), answer.body)
    return found


@pytest.fixture(params=sorted(_UNWINDING))
def built(request: pytest.FixtureRequest, images: dict[str, Built]) -> Iterator[Built]:
    return images[request.param]


def _path(uuid: UUID, name: str) -> str:
    return f"/{name}/{uuid.hex.upper()}0/{name}.sym"


def _demangled(name: str) -> str:
    return _run("llvm-cxxfilt-19", name).strip() if name.startswith("_Z") else name


def _nm(image: Path) -> dict[str, int]:
    rows = [line.split() for line in _run("llvm-nm-19", "--defined-only", image).splitlines()]
    return {_demangled(name.removeprefix("_")): int(address, 16) for address, _, name in rows}


def _frames(image: Path, addresses: list[int]) -> list[list[tuple[str, str, int]]]:
    command = ["llvm-symbolizer-19", f"--obj={image}", "--inlines", "--output-style=JSON"]
    asked = "\n".join(map(hex, addresses))
    lines = subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
    symbols = [json.loads(line)["Symbol"] for line in lines]
    return [[(s["FunctionName"], s["FileName"], s["Line"]) for s in found] for found in symbols]


def test_every_address_has_the_frames_that_llvm_finds(built: Built) -> None:
    addresses = [a for f in built.symbols.functions for line in f.lines for a in (line[0], line[0] + line[1] - 1)]
    expected = _frames(built.dsym, addresses)
    assert [[tuple(frame) for frame in built.symbols.frames(a)] for a in addresses] == expected
    assert {len(frames) for frames in expected} >= {1, 2, 3}  # inlined twice over, from the other file
    assert {Path(f).name for f in built.symbols.files.values()} == {"first.cpp", "second.cpp", "inlined.h"}
    assert "int ledger::twice<int>(int)" in built.symbols.names()


def test_functions_have_the_extent_that_dwarf_tells(built: Built) -> None:
    text = _run("llvm-dwarfdump-19", "--debug-info", built.dsym)
    extents = re.findall(r"DW_TAG_subprogram\n\s+DW_AT_low_pc\s+\((\w+)\)\n\s+DW_AT_high_pc\s+\((\w+)\)", text)
    expected = [(int(low, 16), int(high, 16)) for low, high in extents]
    assert len(expected) >= 5
    assert sorted(expected) == [(f.address, f.address + f.size) for f in built.symbols.functions]


def test_what_is_no_function_with_lines_is_public(built: Built) -> None:
    assert built.symbols.names() == _nm(built.dylib)
    assert set(built.symbols.public.values()) == {"odd", "table"}
    assert not set(built.symbols.public) & {f.address for f in built.symbols.functions}
    assert built.symbols.module == f"MODULE mac {built.arch} {uuid_of(built.dylib).hex.upper()}0 {built.dylib.name}"


def test_another_reader_of_breakpad_files_finds_the_same(built: Built, tmp_path: Path) -> None:
    file = tmp_path / "ledger.sym"
    file.write_bytes(built.body)
    (found,) = Archive.open(str(file)).iter_objects()
    assert (found.file_format, found.arch) == ("breakpad", built.arch)
    assert found.debug_id == str(uuid_of(built.dylib))
    assert found.features == {"symtab", "debug", "unwind"}
    lines = found.make_symcache()
    addresses = [line[0] for f in built.symbols.functions for line in f.lines]
    for address, frames in zip(addresses, _frames(built.dsym, addresses), strict=True):
        assert [(s.symbol, s.full_path.replace("/./", "/"), s.line) for s in lines.lookup(address)] == frames


def test_unwinding_is_what_the_eh_frame_says(built: Built) -> None:
    """Rows of llvm-dwarfdump, such as `0x431: CFA=RBX+16: RBX=[CFA-16], RIP=[CFA-8]`."""
    text = _run("llvm-dwarfdump-19", "--eh-frame", built.dylib)
    odd = _nm(built.dylib)["odd"]
    rows = {int(at, 16): rules for at, rules in re.findall(r"^  (0x[0-9a-f]+): CFA=(.*)$", text, re.MULTILINE)}
    expected = {}
    for address, row in rows.items():
        if address >= odd:
            place, *saved = re.split(r": |, ", row)
            register, offset = re.fullmatch(r"(\w+?)([+-]\d+)?", place).groups()  # type: ignore[union-attr]
            rules = {rule.partition("=")[0]: rule.partition("=")[2] for rule in saved if rule}
            expected[address] = (_register(register), int(offset or 0), rules.get("RBX") or rules.get("W19"))
    assert len(expected) >= 4
    found = {}
    for address, _, rules in built.symbols.cfi:
        if address >= odd and (cfa := re.search(r"\.cfa: \$?(\w+) (-?\d+) \+", rules)):
            saved = re.search(r"\$?(?:rbx|x19): \.cfa (-?\d+) \+ \^", rules)
            found[address] = (cfa[1], int(cfa[2]), f"[CFA{saved[1]}]" if saved else None)
    assert {a: row[:2] for a, row in found.items()} == {a: row[:2] for a, row in expected.items()}
    assert {row[2] for row in found.values()} == {row[2] for row in expected.values()}


def _register(name: str) -> str:
    return name.lower() if not re.fullmatch(r"W\d+|WSP", name) else name.lower().replace("w", "x").replace("xsp", "sp")


def _with_both(image: bytes, arch: str) -> bytes:
    """Return an image whose `__unwind_info` tells a frame of every function for which it referred to `__eh_frame`.

    It is what linkers make that keep both. Source: UNWIND_X86_64_MODE_…, UNWIND_ARM64_MODE_…
    (<mach-o/compact_unwind_encoding.h>).
    """
    section = next(s for s in sections(image[: 1 << 16], len(image)) if s.sectname == "__unwind_info")
    referring, frame = {"x86_64": (0x04, 0x01), "arm64": (0x03, 0x04)}[arch]
    words = list(struct.unpack_from(f"<{section.size // 4}I", image, section.offset))
    encodings = range(7, 7 + words[2]) if words[2] else range(0)
    changed = [n for n in (*encodings, *range(7 + words[2], len(words))) if words[n] >> 24 == referring]
    for number in changed:
        words[number] = frame << 24
    assert changed
    whole = bytearray(image)
    struct.pack_into(f"<{len(words)}I", whole, section.offset, *words)
    return bytes(whole)


def test_where_both_tell_how_to_unwind_the_exact_one_is_told(built: Built, tmp_path: Path) -> None:
    both, target = tmp_path / "both", tmp_path / "both.sym"
    both.write_bytes(_with_both(built.dylib.read_bytes(), built.arch))
    with both.open("rb") as file:
        make_symbol_file([file.fileno()], uuid_of(built.dylib), built.arch, "both", target)
    assert sorted(parse(target.read_bytes()).cfi) == sorted(built.symbols.cfi)


def test_exports_are_public_where_the_symbol_table_is_gone(built: Built, tmp_path: Path) -> None:
    image, target = bytearray(built.dylib.read_bytes()), tmp_path / "stripped.sym"
    header = mach_header(image)
    assert header
    (symtab,) = header.load_commands(image, {LC.SYMTAB})
    header.structs.symtab.pack_into(image, symtab.body, 0, 0, 0, 0)
    (tmp_path / "stripped").write_bytes(image)
    with (tmp_path / "stripped").open("rb") as file:
        make_symbol_file([file.fileno()], uuid_of(built.dylib), built.arch, "stripped", target)
    rows = [row.split() for row in _run("llvm-objdump-19", "--macho", "--exports-trie", built.dylib).splitlines()]
    exports = {
        _demangled(row[1].removeprefix("_")): int(row[0], 16) for row in rows if len(row) >= 2 and row[1][0] == "_"
    }
    assert parse(target.read_bytes()).names() == exports
    assert exports.keys() >= {"odd", "table", "answer", "second(int)"}


def test_intel_of_32_bits_has_the_name_that_breakpad_gives_it(built: Built, tmp_path: Path) -> None:
    with built.dylib.open("rb") as file:
        make_symbol_file([file.fileno()], UUID(int=1), "i386", "old", tmp_path / "old.sym")
    assert parse((tmp_path / "old.sym").read_bytes()).module == f"MODULE mac x86 {UUID(int=1).hex.upper()}0 old"


def test_functions_with_a_frame_are_unwound_by_it(built: Built) -> None:
    answer = built.symbols.names()["answer"]
    (rules,) = [rules for at, size, rules in built.symbols.cfi if size and at <= answer < at + size]
    frame = {
        "x86_64": ".cfa: $rbp 16 + $rbp: .cfa -16 + ^ .ra: .cfa -8 + ^",
        "arm64": ".cfa: x29 16 + x29: .cfa -16 + ^",
    }
    assert rules.startswith(frame[built.arch])


def test_lldb_reads_lines_from_the_file(built: Built, tmp_path: Path) -> None:
    pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")
    image, file = tmp_path / "libledger.dylib", tmp_path / "libledger.dylib.sym"
    image.write_bytes(built.dylib.read_bytes())
    file.write_bytes(built.body)
    functions = [f.address for f in built.symbols.functions]
    command = [sys.executable, "-I", "-c", _LLDB, image, file, f"{built.arch}-apple-macosx", *map(str, functions)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ))
    told = json.loads(done.stdout)
    assert (told["added"], told["from"]) == (True, str(file))
    assert [tuple(place) for place in told["places"]] == [frames[-1][1:] for frames in _frames(built.dsym, functions)]


def test_debug_info_may_lie_in_the_binary_itself(built: Built, tmp_path: Path) -> None:
    target = tmp_path / "alone.sym"
    with built.dsym.open("rb") as alone:
        make_symbol_file([alone.fileno()], uuid_of(built.dsym), built.arch, built.dylib.name, target)
    symbols = parse(target.read_bytes())
    assert (symbols.functions, symbols.public) == (built.symbols.functions, built.symbols.public)


def test_damaged_debug_info_makes_no_damaged_file(images: dict[str, Built], tmp_path: Path) -> None:
    built = images["x86_64"]
    whole = built.dsym.read_bytes()
    dwarf = [s for s in sections(whole[: 1 << 16], len(whole)) if s.segname == "__DWARF"]
    random_bytes = random.Random(7)
    for turn in range(6):
        data = bytearray(whole)
        for section in dwarf:
            for _ in range(1 + section.size // 40):
                data[section.offset + random_bytes.randrange(section.size)] = random_bytes.randrange(256)
        damaged, target = tmp_path / f"{turn}", tmp_path / f"{turn}.sym"
        damaged.write_bytes(data)
        with damaged.open("rb") as one, built.dylib.open("rb") as two:
            try:
                make_symbol_file([one.fileno(), two.fileno()], UUID(int=turn), "x86_64", "x\ny", target)
            except IntegrityError:
                assert not target.exists()
                continue
        symbols = parse(target.read_bytes())
        assert symbols.module.endswith(r" x\ny")
        assert {f.address for f in symbols.functions} | set(symbols.public) >= set(_nm(built.dylib).values())


def test_a_binary_of_another_server_has_its_symbol_file_here(server: Server, samples: Samples, tmp_path: Path) -> None:
    here = parse(request(server.url, _path(samples.uuid, "libanswer.dylib")).body)
    Library.open(tmp_path / "empty", create=True).close()
    with serve(tmp_path / "empty", tmp_path / "front", "--upstream", server.url) as front:
        for name in ("libanswer.dylib", "another"):
            answer = request(front.url, _path(samples.uuid, name))
            assert unquote(answer.headers["x-symcache-upstream"]) == server.url
            assert parse(answer.body) == here
        assert request(front.url, _path(UUID(int=3), "x")).status == 404


def test_of_a_universal_file_one_slice_is_told(images: dict[str, Built], tmp_path: Path) -> None:
    both = lipo(tmp_path / "both", *(built.dylib for built in images.values()))
    for arch, built in images.items():
        with both.open("rb") as file:
            make_symbol_file([file.fileno()], uuid_of(built.dylib), arch, "both", tmp_path / arch)
        assert parse((tmp_path / arch).read_bytes()).names() == _nm(built.dylib)
        assert parse((tmp_path / arch).read_bytes()).cfi == built.symbols.cfi


def test_a_server_that_stops_waits_for_no_symbol_file(
    images: dict[str, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, target = images["arm64"], tmp_path / "made" / "cut.sym"
    target.parent.mkdir()
    endless = tmp_path / "python"
    endless.write_text("#!/bin/sh\nexec sleep 600\n")
    endless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(endless))

    def make() -> None:
        with built.dsym.open("rb") as one, built.dylib.open("rb") as two:
            make_symbol_file([one.fileno(), two.fileno()], uuid_of(built.dylib), "arm64", "cut", target)

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make)
        while not making.done():
            stop_making()
            time.sleep(0.01)
    with pytest.raises(StorageError, match="ended from outside"):
        making.result()
    assert list(target.parent.iterdir()) == []


def test_a_dsym_alone_has_a_symbol_file(images: dict[str, Built], tmp_path: Path) -> None:
    built = images["arm64"]
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_paths([built.dsym], tmp_path / "scratch"))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        symbols = parse(request(server.url, _path(uuid_of(built.dylib), built.dylib.name)).body)
    assert symbols.module == built.symbols.module
    assert (symbols.functions, symbols.public, symbols.cfi) == (built.symbols.functions, built.symbols.public, [])


def test_one_file_in_every_layout(server: Server, samples: Samples) -> None:
    digits = samples.uuid.hex
    for path in (_path(samples.uuid, "libanswer.dylib"), f"/{digits[:2]}/{digits[2:]}/breakpad"):
        answer = request(server.url, path)
        assert answer.status == 200
        symbols = parse(answer.body)
        assert symbols.module == f"MODULE mac x86_64 {digits.upper()}0 libanswer.dylib"
        assert symbols.names() == _nm(samples.dylib)
        assert {f.name for f in symbols.functions} == {"answer", "other"}
        head = request(server.url, path, method="HEAD")
        assert head.headers["content-length"] == str(len(answer.body))
        assert request(server.url, path, headers={"If-None-Match": answer.headers["etag"]}).status == 304
        part = request(server.url, path, headers={"Range": "bytes=0-5"})
        assert (part.status, part.body) == (206, b"MODULE")


def test_addresses_count_from_the_image_whatever_its_cache(server: Server, samples: Samples) -> None:
    for build, cache in CACHES.items():
        symbols = parse(request(server.url, f"/cache/{cache}{_path(SHARED_UUID, 'libmoved.dylib')}").body)
        assert symbols.names() == {name: at - BASES[build] for name, at in _nm(samples.variants[build]).items()}
        assert not symbols.functions  # without debug info nobody knows where a function ends


def test_nobody_has_it_is_a_miss(server: Server) -> None:
    assert request(server.url, _path(UUID(int=3), "x")).status == 404
