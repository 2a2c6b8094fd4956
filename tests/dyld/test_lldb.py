"""LLDB on images that went into a cache and came out again, and on the same images before."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unicorn import arm64_const, x86_const

from symcache.dyld import SharedCache, extract_all
from tests.cachewriter import BuiltCache, CacheOptions, DylibInput, build_cache
from tests.cachewriter.emulate import Emulator
from tests.dyld.macho_reader import read
from tests.support.toolchain import need_toolchain

_SOURCE = """
#define APART __attribute__((noinline))
extern int helper_add(int, int);
int table[64];
int large[1 << 18];
int first_word = 0x12345678;
static volatile int sink;
APART int innermost(int x) { sink += x; return sink; }
APART static int hidden_middle(int x) {
    volatile int room[40];
    room[x & 31] = table[x & 63];
    return innermost(x + room[x & 31]) + 1;
}
APART int public_outer(int x) {
    volatile int room[90];
    room[0] = x;
    table[x & 63] = x;
    return hidden_middle(room[0] * 3) + room[0];
}
APART int uses_helper(int x) { return helper_add(x, table[1]) ^ 5; }
"""
_HELPER = """
int helper_table[8] = {1, 2, 3};
int helper_add(int a, int b) { return a + b + helper_table[a & 7]; }
void binder(void) __asm__("dyld_stub_binder");
void binder(void) {}
"""
_OPTIONS = [
    CacheOptions(arch="x86_64", header_size=0x138),
    CacheOptions(arch="x86_64", header_size=0x228, split="v2", unmapped_locals=".symbols"),
    CacheOptions(arch="arm64e", header_size=0x228, split="v2-kinds", layout_seed=3),
]
_NAMES = ["x86_64-one-file", "x86_64-split-with-symbols", "arm64e-split"]


@dataclass
class Scene:
    options: CacheOptions
    before: Path
    after: Path
    cache: BuiltCache
    path: str = "/usr/lib/libchain.dylib"


def _compile(folder: Path, arch: str, name: str, source: str, *needs: Path) -> Path:
    compiled = "arm64" if arch == "arm64e" else arch
    code, object_file, dylib = folder / f"{name}.c", folder / f"{name}.o", folder / name
    code.write_text(source)
    # arm64 code on Apple systems always keeps frame pointers.
    frames = "-fno-omit-frame-pointer" if compiled == "arm64" else "-fomit-frame-pointer"
    flags = ("-O1", frames, "-fno-optimize-sibling-calls", "-ffreestanding", "-fno-stack-protector")
    target, link = f"{compiled}-apple-macos12", ("-arch", compiled, "-platform_version", "macos", "12.0", "12.0")
    commands = [
        ["clang-19", "-target", target, *flags, "-funwind-tables", "-c", code, "-o", object_file],
        ["ld64.lld-19", *link, "-dylib", "-install_name", f"/usr/lib/{name}", object_file, *needs, "-o", dylib],
    ]
    for command in commands:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return dylib


@pytest.fixture(scope="module", params=_OPTIONS, ids=_NAMES)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need_toolchain()
    if importlib.util.find_spec("lldb") is None:
        pytest.skip("LLDB is not installed for this Python (pip install lldb-for-pwndbg)")
    folder, options = tmp_path_factory.mktemp("lldb"), request.param
    helper = _compile(folder, options.arch, "libhelper.dylib", _HELPER)
    chain = _compile(folder, options.arch, "libchain.dylib", _SOURCE, helper)
    cache = build_cache(
        [DylibInput("/usr/lib/libhelper.dylib", helper), DylibInput("/usr/lib/libchain.dylib", chain)], options
    )
    with SharedCache.open(cache.write(folder / "cache")) as opened:
        report = extract_all(opened, folder / "out", jobs=1)
    assert not report.failed
    after = next(e.file for e in report.extracted if e.path == "/usr/lib/libchain.dylib")
    return Scene(options, chain, after, cache)


def _ask(
    arch: str,
    images: list[tuple[Path, int | None]],
    core: Path | None = None,
    unwind: tuple[int, ...] = (),
    memory: tuple[tuple[int, int], ...] = (),
) -> Any:
    request = {
        "triple": f"{'arm64' if arch.startswith('arm64') else arch}-apple-macosx",
        "images": [[str(path), load] for path, load in images],
        "core": str(core) if core else None,
        "unwind": unwind,
        "memory": memory,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.dyld.lldb_worker"], input=json.dumps(request), capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[2], timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _facts(answer: Any) -> set[tuple[Any, ...]]:
    keys = ("name", "section", "offset", "size", "type", "external")
    return {tuple(s[k] for k in keys) for s in answer["symbols"] if s["section"] and not s["synthetic"]}


def test_symbols_are_those_of_the_image_before_it_went_in(scene: Scene) -> None:
    before, after = _ask(scene.options.arch, [(scene.before, None)]), _ask(scene.options.arch, [(scene.after, None)])
    assert after["uuid"] == before["uuid"]
    names = {s["name"] for s in after["symbols"]}
    assert {"innermost", "hidden_middle", "public_outer", "uses_helper", "table", "helper_add"} <= names
    assert {f for f in _facts(after) if f[1].startswith("__TEXT")} == {
        f for f in _facts(before) if f[1].startswith("__TEXT")
    }
    assert {f[0] for f in _facts(after)} == {f[0] for f in _facts(before)}
    sizes = {(name, size) for _, name, size, _ in before["sections"]}
    assert sizes == {(name, size) for _, name, size, _ in after["sections"]}
    assert {name: data for _, name, _, data in after["sections"]}["__text"]


def test_every_address_of_code_has_the_name_that_it_had(scene: Scene) -> None:
    before, after = _ask(scene.options.arch, [(scene.before, None)]), _ask(scene.options.arch, [(scene.after, None)])
    starts = {s["file_address"]: s["name"] for s in after["symbols"] if s["section"] == "__TEXT.__text"}
    assert starts and all(after["by_address"][str(a)] == name for a, name in starts.items())
    assert sorted(before["by_address"].values()) == sorted(after["by_address"].values())


def test_zero_fill_that_the_file_does_not_hold_reads_as_zeros(scene: Scene) -> None:
    image = read(scene.after)
    data = next(s for s in image.segments if any(section.name == "__common" for section in s.sections))
    assert data.vmsize > 1 << 20 > len(image.data)
    address = {s.name: s.value for s in image.symbols}
    places = (address["_large"], 16), (address["_large"] + (1 << 20) - 64, 64), (address["_first_word"], 4)
    answer = _ask(scene.options.arch, [(scene.after, None)], memory=places)
    assert answer["memory"] == ["00" * 16, "00" * 64, "78563412"]


def test_function_starts_give_bounds_where_there_are_no_symbols(scene: Scene, tmp_path: Path) -> None:
    """With the names stripped, LLDB finds the functions by LC_FUNCTION_STARTS alone."""
    data = bytearray(scene.after.read_bytes())
    image = read(bytes(data))
    at = bytes(data).index(image.command(2) or b"")
    struct.pack_into("<2I", data, at + 8, image.symtab[0], 0)
    at = bytes(data).index(image.command(0xB) or b"")
    struct.pack_into("<6I", data, at + 8, *(0,) * 6)
    exports = image.command(0x80000033)
    if exports:
        struct.pack_into("<2I", data, bytes(data).index(exports) + 8, 0, 0)
    stripped = tmp_path / "libchain.dylib"
    stripped.write_bytes(data)
    whole, bare = _ask(scene.options.arch, [(scene.after, None)]), _ask(scene.options.arch, [(stripped, None)])
    functions = {s["offset"] for s in whole["symbols"] if s["section"] == "__TEXT.__text"}
    assert {s["offset"] for s in bare["symbols"] if s["section"] == "__TEXT.__text" and s["synthetic"]} == functions


def _core(folder: Path, arch: str, registers: list[int], memory: list[tuple[int, bytes]]) -> Path:
    if arch == "x86_64":
        cpu, thread = (0x01000007, 3), struct.pack("<2I21Q", 4, 42, *registers)
    else:
        cpu, thread = (0x0100000C, 0), struct.pack("<2I33Q2I", 6, 68, *registers, 0, 0)
    commands = [struct.pack("<2I", 4, 8 + len(thread)) + thread]
    size = sum(map(len, commands)) + 72 * len(memory) + 32
    at = size + -size % 0x1000
    body = b""
    for address, data in memory:
        commands.append(
            struct.pack("<2I16s4Q4I", 0x19, 72, b"", address, len(data), at + len(body), len(data), 7, 7, 0, 0)
        )
        body += data + bytes(-len(data) % 0x1000)
    raw = b"".join(commands)
    head = struct.pack("<8I", 0xFEEDFACF, *cpu, 4, len(commands), len(raw), 0, 0)
    path = folder / "core"
    path.write_bytes((head + raw).ljust(at, b"\0") + body)
    return path


def _stop_at(scene: Scene, outer: int, inner: int) -> tuple[list[int], list[tuple[int, bytes]]]:
    """Run the cache's own code from `outer` until it enters `inner`; return registers and the stack."""
    emulator = Emulator(scene.cache)
    uc, top, back = emulator._uc, 0x40000 + 0x30000, 0x10000
    if scene.options.arch == "x86_64":
        uc.mem_write(top - 8, struct.pack("<Q", back))
        uc.reg_write(x86_const.UC_X86_REG_RSP, top - 8)
        uc.reg_write(x86_const.UC_X86_REG_RDI, 3)
        uc.emu_start(outer, inner, count=100_000)
        names = ("RAX", "RBX", "RCX", "RDX", "RDI", "RSI", "RBP", "RSP", *(f"R{n}" for n in range(8, 16)), "RIP")
        registers = [uc.reg_read(getattr(x86_const, f"UC_X86_REG_{n}")) for n in names] + [0x202, 0x2B, 0, 0]
        sp = registers[7]
    else:
        uc.reg_write(arm64_const.UC_ARM64_REG_SP, top)
        uc.reg_write(arm64_const.UC_ARM64_REG_X30, back)
        uc.reg_write(arm64_const.UC_ARM64_REG_X0, 3)
        uc.emu_start(outer, inner, count=100_000)
        names = [f"X{n}" for n in range(31)] + ["SP", "PC"]
        registers = [uc.reg_read(getattr(arm64_const, f"UC_ARM64_REG_{n}")) for n in names]
        sp = registers[31]
    low = sp & ~0xFFF
    return registers, [(low, bytes(uc.mem_read(low, top + 0x1000 - low)))]


def test_a_stack_unwinds_through_the_unwind_info(scene: Scene, tmp_path: Path) -> None:
    symbols = {s.name: s.value for s in read(scene.after).symbols if s.sect}
    outer, middle, inner = symbols["_public_outer"], symbols["_hidden_middle"], symbols["_innermost"]
    registers, stack = _stop_at(scene, outer, inner)
    image = read(scene.after)
    text = image.segments[0]
    memory = [*stack, (text.vmaddr, image.bytes_of(text))]
    core = _core(tmp_path, scene.options.arch, registers, memory)
    after = _ask(scene.options.arch, [(scene.after, text.vmaddr)], core, (outer, middle))
    assert after["frames"][:3] == ["innermost", "hidden_middle", "public_outer"]
    old = read(scene.before)
    shift = old.segments[0].vmaddr - text.vmaddr
    assert image.segments[0].sections[0].name == "__text"
    before_core = _core(
        tmp_path, scene.options.arch, registers, [*stack, (0x1_0000_0000, old.bytes_of(old.segments[0]))]
    )
    moved = 0x1_0000_0000 - old.segments[0].vmaddr
    function = [a + shift + moved for a in (outer, middle)]
    before = _ask(scene.options.arch, [(scene.before, 0x1_0000_0000)], before_core, tuple(function))
    for now, then in zip((outer, middle), function, strict=True):
        assert after["unwind"][str(now)], after["text"][str(now)]
        assert _rows(after["unwind"][str(now)]) == _rows(before["unwind"][str(then)])


def _rows(plans: list[str]) -> list[str]:
    """The rules of unwind plans, with addresses that differ left out."""
    return re.findall(r"CFA=[^\n]*", "\n".join(plans))
