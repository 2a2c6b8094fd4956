"""Minidumps of Mac processes: LLDB reads them, symcache brings the modules.

What is true of the first ones was laid out by hand, of the others an emulator knows it.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.dump import Limits, LldbProcess, Mode, analyze, describe, open_in_lldb
from symcache.dump.formats.minidump import Minidump, read_minidump
from symcache.dump.formats.minidump_contexts import context_for_lldb, read_context
from symcache.errors import DebuggerError, DumpError
from symcache.images import ImageFile, ImageRequest
from symcache.macho import CPU_TYPE
from symcache.model import uuid_text
from symcache.resolve import CacheGuess, ChainResolver, FolderResolver, LibraryResolver
from tests.dump.builder import X86_REGISTERS
from tests.dump.formats.test_core_images import for_lldb, saved_by_lldb
from tests.dump.minidump import LINUX, MiniThread, arm_context, minidump, old_arm_context
from tests.dump.scene import Scene
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import dump, expected, found, truth
from tests.support.corpus import Variant, variant

KINDS = pytest.mark.parametrize(
    ("arch", "layout"),
    [
        ("x86_64", {}),
        ("x86_64", {"memory64": True, "padded": True}),
        ("arm64", {}),
        ("arm64", {"old": True}),
        ("arm64", {"memory64": True}),
    ],
)


@pytest.fixture
def crash(scenes: Callable[..., Scene], tmp_path: Path) -> Path:
    """Return the x86_64 scene as a minidump."""
    scene = scenes("x86_64")
    stack = scene.core.regions[-1]
    threads = []
    for number, state in enumerate(scene.core.threads):
        values = dict(zip(X86_REGISTERS, struct.unpack_from("<21Q", state, 8), strict=True))
        registers = {r: values[r] for r in ("rip", "rsp", "rbp", "rdi", "rsi")}
        crashed = number == 1
        threads.append(
            MiniThread(registers, stack.address + (0 if crashed else 1 << 24), stack.data if crashed else bytes(64))
        )
    modules = [(m.address, 0x4000, m.path or "", UUID(m.uuid)) for m in scene.modules]
    path = tmp_path / "crash.dmp"
    path.write_bytes(minidump(modules, threads, 1, (1, 1, 0x10)))
    return path


def test_frames_of_a_minidump(scenes: Callable[..., Scene], crash: Path) -> None:
    scene = scenes("x86_64")
    before = crash.read_bytes()
    analysis = analyze(crash, FolderResolver([scene.folder]))
    assert [
        (f.module.loaded.module.name if f.module else "?", f.function, f.line) for f in analysis.crashed.frames
    ] == scene.frames
    assert analysis.loaded.header.thread == 1
    assert analysis.exception.description == "SIGSEGV: EXC_BAD_ACCESS, KERN_INVALID_ADDRESS at 0x10"
    assert (analysis.exception.signal, analysis.exception.address) == ("SIGSEGV", 0x10)
    assert [(m.status, m.debug_info) for m in analysis.modules] == [("have", True)] * 2
    assert analysis.registers["rdi"] == 0x10
    assert crash.read_bytes() == before


def test_missing_modules_of_a_minidump(scenes: Callable[..., Scene], crash: Path, only: Callable[..., Path]) -> None:
    analysis = analyze(crash, FolderResolver([only(scenes("x86_64").exe)]))
    assert [m.status for m in analysis.modules] == ["have", "missing"]
    names = [(f.module.loaded.module.name if f.module else "?", f.function) for f in analysis.crashed.frames]
    assert names == [("libmath.dylib", ""), ("libmath.dylib", ""), ("Ledger", "middle"), ("Ledger", "main")]


def test_a_minidump_opens(scenes: Callable[..., Scene], crash: Path) -> None:
    with LldbProcess(Mode.PRINT) as process:
        printed = open_in_lldb(crash, FolderResolver([scenes("x86_64").folder]), process)
    assert "libmath.dylib`lib_inner" in printed
    assert "Ledger`main" in printed


@pytest.mark.parametrize("size", [4, 31, 100, 1000, 5000])
def test_a_cut_minidump_is_an_error_or_a_dump(crash: Path, size: int) -> None:
    crash.write_bytes(crash.read_bytes()[:size])
    try:
        assert analyze(crash, FolderResolver([])).threads
    except (DumpError, DebuggerError) as error:
        assert str(crash) in str(error)


@dataclass
class Emulated:
    """The emulated crash in the parts that a minidump is made of."""

    run: Variant
    modules: list[tuple[int, int, str, UUID | None]]
    threads: list[MiniThread]

    def write(self, path: Path, arch: str, extra: int = 0, **layout: Any) -> Path:
        more = [(0x3_0000_0000 + n * 0x10_0000, 0x8000, f"/P{n}/P{n}", UUID(int=n + 1)) for n in range(extra)]
        fault = (1, 1, self.run.truth.fault_address)
        modules = [*self.modules, *more]
        path.write_bytes(minidump(modules, self.threads, self.run.dump.thread, fault, arch=arch, **layout))
        return path


@pytest.fixture
def emulated() -> Callable[..., Emulated]:
    def make(arch: str, **how: Any) -> Emulated:
        run = variant(arch, **how)
        order = X86_REGISTERS if arch == "x86_64" else [*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc"]
        threads = []
        for thread in run.dump.threads:
            state = thread.states[0][1]
            registers = dict(zip(order, struct.unpack_from(f"<{len(order)}Q", state), strict=True))
            if arch == "arm64":
                registers["cpsr"] = struct.unpack_from("<I", state, 8 * len(order))[0]
            at = registers["rsp" if arch == "x86_64" else "sp"]
            stack = next(r for r in run.dump.regions if r.stack and r.address <= at < r.address + r.size)
            threads.append(MiniThread(registers, stack.address, stack.data.ljust(stack.size, b"\0")))
        modules = [
            (m.load_address, next(size for name, _, _, size in m.segments if name == "__TEXT"), m.path, UUID(m.uuid))
            for m in run.process.modules
        ]
        return Emulated(run, modules, threads)

    return make


@KINDS
def test_every_frame_of_every_thread_is_true(
    arch: str, layout: dict[str, Any], emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path
) -> None:
    path = emulated(arch).write(tmp_path / "crash.dmp", arch, **layout)
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert found(analysis) == expected(arch)
    assert analysis.loaded.header.thread == truth(arch)["crashed_thread"]
    assert analysis.exception.address == truth(arch)["fault_address"]
    assert analysis.missing == []
    assert (analysis.loaded.build, analysis.loaded.cache_origin) == ("22G830", "dump")
    same = analyze(dump(arch), ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert analysis.signature() == same.signature()


@pytest.mark.parametrize("flags", [0x0010_0000, 0])
def test_contexts_that_name_none_of_their_parts(
    flags: int, emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path
) -> None:
    """Breakpad on macOS writes them so, and rust-minidump's writer; to LLDB, all their registers are zero."""
    path = emulated("x86_64").write(tmp_path / "crash.dmp", "x86_64", flags=flags)
    before = path.read_bytes()
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "x86_64"]), system]))
    assert found(analysis) == expected("x86_64")
    assert path.read_bytes() == before


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("missing", ["CoreFoundation", "libsystem_kernel", "LedgerKit", "MacOS/Ledger", "dyld"])
def test_a_missing_module_costs_only_its_own_names(
    missing: str, arch: str, emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path
) -> None:
    gone = {UUID(u) for path, u, _ in truth(arch)["modules"] if missing in path}
    having = ChainResolver([FolderResolver([ASSETS / "app" / arch]), system])

    class Without:
        def resolve(self, wanted: Sequence[ImageRequest], progress: Any = None) -> dict[ImageRequest, ImageFile]:
            return having.resolve([w for w in wanted if w.uuid not in gone], progress)

        def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
            return having.guess_caches(loads)

    path = emulated(arch).write(tmp_path / "crash.dmp", arch)
    before = path.read_bytes()
    assert found(analyze(path, Without())) == expected(arch, nameless=missing)
    assert path.read_bytes() == before


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_a_dsym_alone_names_its_frames(
    arch: str, emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path
) -> None:
    """In the place of LLDB's own placeholders; on arm64 the top frame keeps no frame of its own."""
    for bundle in (ASSETS / "app" / arch).glob("*.dSYM"):
        (tmp_path / "archive" / bundle.name).parent.mkdir(exist_ok=True)
        (tmp_path / "archive" / bundle.name).symlink_to(bundle)
    archive = [path / "Contents/Resources/DWARF" for path in sorted((tmp_path / "archive").iterdir())]
    path = emulated(arch).write(tmp_path / "crash.dmp", arch)
    before = path.read_bytes()
    analysis = analyze(path, ChainResolver([FolderResolver(archive), system]))
    assert found(analysis) == expected(arch)
    assert {m.status for m in analysis.modules if "Ledger" in m.loaded.module.path} == {"symbols"}
    assert path.read_bytes() == before


@pytest.mark.parametrize("framed", [0, 1])
def test_where_nobody_has_any_module(framed: int, tmp_path: Path) -> None:
    """A function that has only saved rbp crashed, while the other thread is in a system call; or the other way round.

    Compilers write such functions, and what is on top of their stack looks like a return address to LLDB.
    """
    app, kernel, stacks = 0x1_0000_0000, 0x7FFF_2000_0000, (0x7FFE_0000_0100, 0x7000_0000_0100)
    chain = struct.pack("<4Q", stacks[framed] + 0x10, app + 0x2005, stacks[framed] + 0x20, app + 0x3005) + bytes(64)
    call = struct.pack("<6Q", app + 0x4005, 0, 0, 0, stacks[not framed] + 0x30, app + 0x5005) + bytes(64)
    threads = [
        MiniThread({"rip": app + 0x1000, "rsp": stacks[framed], "rbp": stacks[framed]}, stacks[framed], chain),
        MiniThread(
            {"rip": kernel + 0x1000, "rsp": stacks[not framed], "rbp": stacks[not framed] + 0x20},
            *(stacks[not framed], call),
        ),
    ]
    path = tmp_path / "crash.dmp"
    modules = [
        (app, 0x1_0000, "/Applications/App.app/Contents/MacOS/App", UUID(int=1)),
        (kernel, 0x3_0000, "/usr/lib/system/libsystem_kernel.dylib", UUID(int=2)),
    ]
    path.write_bytes(minidump(modules, threads if framed == 0 else threads[::-1], 0, (1, 1, 0x10)))
    frames = [[f.address for f in t.frames] for t in analyze(path, FolderResolver([])).threads]
    true = [[app + 0x1000, app + 0x2005, app + 0x3005], [kernel + 0x1000, app + 0x4005, app + 0x5005]]
    assert frames == (true if framed == 0 else true[::-1])


def test_signed_return_addresses(emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path) -> None:
    one = emulated("arm64", signed=True)
    assert any(word >> 47 & 0xFFFF for t in one.threads for word in struct.unpack(f"<{len(t.stack) // 8}Q", t.stack))
    path = one.write(tmp_path / "crash.dmp", "arm64")
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "arm64"]), system]))
    assert [[f.address for f in t.frames] for t in analysis.threads] == [
        [f.pc for f in t.frames] for t in one.run.truth.threads
    ]


_PLAIN_LLDB = """
import json, lldb, os, sys
debugger = lldb.SBDebugger.Create(False)
debugger.HandleCommand("settings set symbols.enable-external-lookup false")
target = debugger.CreateTarget("", None, None, False, lldb.SBError())
process = target.LoadCore(sys.argv[1], lldb.SBError())
print(json.dumps({
    "modules": [
        [m.GetUUIDString(), next(m.section_iter()).GetLoadAddress(target), m.GetFileSpec().fullpath]
        for m in target.module_iter()
    ],
    "threads": [
        {r.GetName(): r.GetValueAsUnsigned() for r in thread.GetFrameAtIndex(0).GetRegisters().GetValueAtIndex(0)}
        for thread in process
    ],
    "stopped": [thread.GetStopReason() != lldb.eStopReasonNone for thread in process],
    "memory": [process.ReadMemory(int(a), 4096, lldb.SBError()).hex() for a in sys.argv[2:]],
}), flush=True)
os._exit(0)
"""


@KINDS
def test_lldb_reads_the_same_out_of_it(
    arch: str, layout: dict[str, Any], emulated: Callable[..., Emulated], tmp_path: Path
) -> None:
    """Modules, threads, registers and memory as LLDB itself tells them."""
    one = emulated(arch)
    path = one.write(tmp_path / "crash.dmp", arch, **layout)
    ours = read_minidump(path)
    addresses = [str(thread.stack_address + 64) for thread in one.threads]
    output = subprocess.check_output([sys.executable, "-c", _PLAIN_LLDB, path, *addresses], timeout=120)
    theirs = json.loads(output)
    assert [[uuid_text(m.module.uuid), m.module.address, m.module.path] for m in ours.modules] == theirs["modules"]
    assert theirs["stopped"] == [number == ours.crashed for number in range(2)]
    for thread, mine, seen in zip(one.threads, ours.threads, theirs["threads"], strict=True):
        for name, value in mine.registers.items():
            # LLDB looks for cpsr where only the old context has it; the builder leaves segment registers out.
            if name in seen and (name != "cpsr" or layout.get("old")):
                assert value == seen[name], name
            if name in thread.registers and name not in {"cs", "fs", "gs"}:
                assert value == thread.registers[name], name
    data = path.read_bytes()
    for segment, thread, seen in zip(ours.memory, one.threads, theirs["memory"], strict=True):
        assert (segment.address, segment.size) == (thread.stack_address, len(thread.stack))
        assert data[segment.offset :][: segment.filesize] == thread.stack
        assert bytes.fromhex(seen) == thread.stack[64:][:4096]


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_three_hundred_modules(
    arch: str, emulated: Callable[..., Emulated], system: LibraryResolver, tmp_path: Path
) -> None:
    path = emulated(arch).write(tmp_path / "crash.dmp", arch, extra=289)
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert found(analysis) == expected(arch)
    assert len(analysis.modules) == 300
    assert [(m.loaded.module.uuid, m.status) for m in analysis.missing] == [
        (UUID(int=n + 1), "missing") for n in range(289)
    ]


def small(**changes: Any) -> bytes:
    thread = MiniThread({"rip": 0x1_0000_1000, "rsp": 0x7000_0000_0000}, 0x7000_0000_0000, b"s" * 64)
    values: dict[str, Any] = {
        "modules": [(0x1_0000_0000, 0x4000, "/bin/a", UUID(int=5)), (0x2_0000_0000, 0x4000, "/bin/b", None)],
        "threads": [thread, thread],
        "crashed": 1,
        "exception": (1, 1, 8),
    }
    return minidump(**(values | changes))


def read(data: bytes, folder: Path) -> Minidump:
    path = folder / "small.dmp"
    path.write_bytes(data)
    return read_minidump(path)


@pytest.mark.parametrize(
    ("exception", "information", "words", "signal"),
    [
        ((1, 2, 0x5000), (), "SIGBUS: EXC_BAD_ACCESS, KERN_PROTECTION_FAILURE at 0x5000", "SIGBUS"),
        ((1, 13, 0), (), "SIGSEGV: EXC_BAD_ACCESS, EXC_I386_GPFLT", "SIGSEGV"),
        ((2, 1, 0x1000), (), "SIGILL: EXC_BAD_INSTRUCTION, code 0x1", "SIGILL"),
        # Crashpad: the type and both codes, of 64 bits; the address is then that of the instruction.
        ((5, 0x10003, 0x1000), (5, 0x10003, 6), "SIGABRT: EXC_SOFTWARE, code 0x10003", "SIGABRT"),
        ((1, 1, 0x1000), (1, 1, 0xFFFF_8000_0000_0010), "SIGSEGV: EXC_BAD_ACCESS, KERN_INVALID_ADDRESS", "SIGSEGV"),
        ((10, 0x0600_0000, 0), (), "SIGABRT: EXC_CRASH, code 0x6000000", "SIGABRT"),
        # What EXC_CRASH came from, if anything: Crashpad keeps it as it was delivered, rust-minidump's writer does not.
        ((1, 1, 8), (10, 0x0B10_0001, 0), "SIGSEGV: EXC_BAD_ACCESS, KERN_INVALID_ADDRESS at 0x8", "SIGSEGV"),
        ((1, 2, 8), (1, 0x0A10_0002, 8), "SIGBUS: EXC_BAD_ACCESS, KERN_PROTECTION_FAILURE at 0x8", "SIGBUS"),
        ((0, 0, 0x1000), (10, 0x0600_0000, 0), "SIGABRT: EXC_CRASH", "SIGABRT"),
        ((0, 0, 0x1000), (0, 0x0600_0000, 0), "SIGABRT: EXC_CRASH", "SIGABRT"),
        ((12, 0x4000_0010, 0x1000), (12, 0x4000_0010_0000_0003, 8), "EXC_GUARD, code 0x4000001000000003", None),
        ((12, 0x4000_0010, 0x1000), (), "EXC_GUARD, code 0x4000001000000000", None),
        ((5, 0x10002, 0x1000), (), "SIGABRT: EXC_SOFTWARE, abort", "SIGABRT"),
        ((5, 0xDEAD_C0DE, 0x1000), (), "EXC_SOFTWARE, an uncaught NSException", None),
        ((0x43507378, 0, 0), (), "no crash: the program asked Crashpad for this dump", None),
        ((17, 0, 0x1000), (), "signal 17", None),
    ],
)
def test_exceptions(
    exception: tuple[int, int, int], information: tuple[int, ...], words: str, signal: str | None, tmp_path: Path
) -> None:
    told = read(small(exception=exception, information=information), tmp_path).exception
    assert told.description.startswith(words)
    assert told.signal == signal


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("address", [0, 14, 0x1_0000_1000])
def test_a_signal_at_which_lldb_does_not_stop(arch: str, address: int, tmp_path: Path) -> None:
    """LLDB takes the address for the number of a signal, and waited for the next stop for ever."""
    path = tmp_path / "m.dmp"
    counter = {"rip": 0x1_0000_1000, "rsp": 0x8000} if arch == "x86_64" else {"pc": 0x1_0000_1000, "sp": 0x8000}
    thread = MiniThread(counter, 0x8000, bytes(0x1000))
    data = minidump(
        [(0x1_0000_0000, 0x8000, "/bin/x", None)], [thread], 0, (5, 0x10003, address), arch=arch,
        information=(5, 0x10003, 6),
    )  # fmt: skip
    path.write_bytes(data)
    analysis = analyze(path, FolderResolver([]), limits=Limits(seconds=120))
    assert analysis.exception.signal == "SIGABRT"
    assert analysis.crashed.frames[0].address == 0x1_0000_1000
    assert path.read_bytes() == data


def test_a_bad_access_without_a_code_tells_no_address(tmp_path: Path) -> None:
    """LLDB writes none: the address in its record is the program counter."""
    told = read(small(exception=(1, 0, 0x1_0000_1000)), tmp_path).exception
    assert (told.description, told.signal, told.address) == ("EXC_BAD_ACCESS", None, None)


def test_names_of_threads(tmp_path: Path) -> None:
    path = tmp_path / "m.dmp"
    threads = [
        MiniThread({"rip": 0x1_0000_1000 + n, "rsp": 0x8000 + n * 0x1000}, 0x8000 + n * 0x1000, bytes(64))
        for n in range(3)
    ]
    modules = [(0x1_0000_0000, 0x8000, "/bin/x", None)]
    path.write_bytes(minidump(modules, threads, 1, (1, 1, 0), names=["main", "", "wörker"]))
    assert [t.name for t in analyze(path, FolderResolver([])).threads] == ["main", "", "wörker"]
    path.write_bytes(minidump(modules, threads, 1, (1, 1, 0), names=["main", "", "wörker"], padded=True))
    assert read_minidump(path).names == ("main", "", "wörker")


def test_without_exception_build_or_uuid(tmp_path: Path) -> None:
    told = read(small(exception=None, build=""), tmp_path)
    assert (told.crashed, told.os_build, told.os_version) == (None, None, "macOS 13.6.9")
    assert told.exception.description == "the minidump names no exception"
    assert [m.module.uuid for m in told.modules] == [UUID(int=5), None]


def _directory(data: bytearray, kind: int) -> int:
    """Return where the entry of a stream lies in the directory."""
    count, at = struct.unpack_from("<2I", data, 8)
    return next(at + 12 * n for n in range(count) if struct.unpack_from("<I", data, at + 12 * n)[0] == kind)


def _stream(data: bytearray, kind: int) -> int:
    """Return where a stream lies."""
    return int(struct.unpack_from("<I", data, _directory(data, kind) + 8)[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: struct.pack_into("<I", d, 8, 1 << 30), "streams where at most"),
        (lambda d: struct.pack_into("<I", d, 12, 1 << 30), "lies outside the minidump"),
        (lambda d: struct.pack_into("<H", d, 4, 1), "is no minidump"),
        (lambda d: struct.pack_into("<I", d, _directory(d, 7), 99), "does not say of what system"),
        (lambda d: struct.pack_into("<I", d, _directory(d, 3), 99), "has no thread"),
        (lambda d: struct.pack_into("<I", d, _directory(d, 3) + 8, len(d)), "has no thread"),
        (lambda d: struct.pack_into("<H", d, _stream(d, 7), 0), r"of a 32-bit process \(i386\) of macOS"),
        (lambda d: struct.pack_into("<H", d, _stream(d, 7), 5), r"of a 32-bit process \(arm\) of macOS"),
        (
            lambda d: (
                [struct.pack_into("<2I", d, _stream(d, 3) + 44 + 48 * n, 4, len(d)) for n in range(2)]
                + [struct.pack_into("<I", d, _directory(d, 6), 99)]
            ),
            "the registers of none of its 2 threads",
        ),
    ],
)
def test_each_wrong_minidump_is_told_what_is_wrong(
    change: Callable[[bytearray], None], words: str, tmp_path: Path
) -> None:
    data = bytearray(small())
    change(data)
    with pytest.raises(DumpError, match=words):
        read(bytes(data), tmp_path)


OUTSIDE = 0x7FFF_FFF0
DAMAGE: dict[str, Callable[[bytearray], None]] = {
    "context": lambda d: struct.pack_into("<I", d, _stream(d, 3) + 4 + 44, OUTSIDE),
    "no context": lambda d: struct.pack_into("<2I", d, _stream(d, 3) + 4 + 40, 0, 0),
    "module's record": lambda d: struct.pack_into("<2I", d, _stream(d, 4) + 4 + 108 + 76, 24, OUTSIDE),
    "module's address": lambda d: struct.pack_into("<Q", d, _stream(d, 4) + 4 + 108, (1 << 64) - 1),
    "module's text": lambda d: struct.pack_into("<I", d, _stream(d, 4) + 4 + 108 + 20, OUTSIDE),
    "number of names": lambda d: struct.pack_into("<I", d, _stream(d, 24), 1 << 31),
    "names": lambda d: struct.pack_into("<I", d, _directory(d, 24) + 8, OUTSIDE),
    "memory": lambda d: struct.pack_into("<I", d, _directory(d, 5) + 8, OUTSIDE),
    "exception": lambda d: struct.pack_into("<I", d, _directory(d, 6) + 8, OUTSIDE),
    "a stream that nobody reads": lambda d: struct.pack_into("<2I", d, _directory(d, 10) + 4, 64, OUTSIDE),
    "a stream twice": lambda d: struct.pack_into("<I", d, _directory(d, 24), 5),
}


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_one_bad_thread_module_or_stream_costs_itself_only(arch: str, tmp_path: Path) -> None:
    """LLDB refuses most of these, or shows no threads: it gets a copy without what is bad."""
    counter, stack = ("rip", "rsp") if arch == "x86_64" else ("pc", "sp")
    threads = [
        MiniThread({counter: 0x1_0000_1000 * (1 + n), stack: 0x8000 + n * 0x1000}, 0x8000 + n * 0x1000, bytes(64))
        for n in range(2)
    ]
    modules = [(0x1_0000_0000, 0x8000, "/bin/a", UUID(int=5)), (0x2_0000_0000, 0x8000, "/bin/b", UUID(int=6))]
    whole = minidump(modules, threads, 1, (1, 1, 8), arch=arch, names=["one", "two"])
    for what, damage in list(DAMAGE.items())[:: 1 if arch == "x86_64" else 4]:
        data = bytearray(whole)
        damage(data)
        path = tmp_path / "crash.dmp"
        path.write_bytes(data)
        told = analyze(path, FolderResolver([]), limits=Limits(seconds=120)).to_json()
        lost = "context" in what
        frames = {t["index"]: [f["address"] for f in t["frames"]] for t in told["threads"]}
        assert frames == {0: [] if lost else [hex(0x1_0000_1000)], 1: [hex(0x2_0000_2000)]}, what
        assert told["crashed_thread"] == (None if what == "exception" else 1), what
        uuids = [m["uuid"] and UUID(m["uuid"]).int for m in told["modules"]]
        assert uuids == {"module's record": [5, None], "module's address": [5]}.get(what, [5, 6]), what
        assert [t["name"] for t in told["threads"] if t["index"] == 1] == [
            None if what in {"names", "a stream twice"} else "two"
        ], what
        assert path.read_bytes() == data


def test_memory_behind_the_end_costs_itself_only(tmp_path: Path) -> None:
    """LLDB drops memory that is not there whole, older ones what is listed behind it, too: it gets a copy."""
    data = bytearray(small(memory=[(0x3_0000_0000, b"m" * 64), (0x4_0000_0000, b"n" * 64)]))
    whole = read(bytes(data), tmp_path)
    listed = _stream(data, 5) + 4
    (place,) = struct.unpack_from("<I", data, listed + 12)
    struct.pack_into("<I", data, listed + 8, len(data) - place + 1)  # the stack
    struct.pack_into("<I", data, listed + 4 * 16 - 4, len(data) + 8)  # the last
    told = read(bytes(data), tmp_path)
    assert told.memory == (
        whole.memory[0]._replace(size=len(data) - place, filesize=len(data) - place),
        *whole.memory[1:3],
    )
    assert told.needs_copy
    assert not read(small(flags=0x10000F), tmp_path).needs_copy


def test_the_executable_may_stand_behind_bundles(tmp_path: Path) -> None:
    """rust-minidump's writer puts each image without LC_ID_DYLIB in front, as it comes to it by address."""
    paths = ["/x/Plug.bundle/Plug", "/Applications/A.app/Contents/MacOS/A", "/usr/lib/b.dylib", "/usr/lib/c.dylib"]
    places = [0x7FF8_0000_0000, 0x1_0000_0000, 0x1_1000_0000, 0x1_2000_0000]
    data = bytearray(small(modules=[(a, 0x4000, p, UUID(int=a)) for a, p in zip(places, paths, strict=True)]))
    for number in (2, 3):
        struct.pack_into("<I", data, _stream(data, 4) + 4 + 108 * number + 24, 0xFEEF_04BD)
    assert [m.module.path for m in read(bytes(data), tmp_path).modules] == [paths[1], paths[0], *paths[2:]]
    assert describe(tmp_path / "small.dmp")["executable"] == paths[1]


def test_the_executable_may_be_the_last_module(tmp_path: Path) -> None:
    """Older Crashpads have the images as dyld lists them, on macOS 14 the executable last, and each one's file type."""
    paths = ["/usr/lib/b.dylib", "/usr/lib/c.dylib", "/bin/a", "/usr/lib/dyld"]
    data = bytearray(small(modules=[(n << 32, 0x4000, p, UUID(int=n)) for n, p in enumerate(paths, 1)]))
    for number in range(4):
        at = _stream(data, 4) + 4 + 108 * number + 24
        struct.pack_into("<I32xI", data, at, 0xFEEF_04BD, 1 if number == 2 else 2)
    told = [m.module.path for m in read(bytes(data), tmp_path).modules]
    assert told == [paths[2], *paths[:2], paths[3]]


def test_of_several_exceptions_that_of_the_crash_counts(tmp_path: Path) -> None:
    path = tmp_path / "crash.dmp"
    threads = [MiniThread({"pc": 0x1_0000_1000 + n, "sp": 0x8000}, 0x8000, bytes(64)) for n in range(3)]
    modules = [(0x1_0000_0000, 0x8000, "/bin/x", UUID(int=5))]
    path.write_bytes(minidump(modules, threads, 2, (1, 0, 0x1_0000_1002), arch="arm64", stopped=[0, 1]))
    analysis = analyze(path, FolderResolver([]), limits=Limits(seconds=120))
    assert (analysis.exception.description, analysis.loaded.header.thread) == ("EXC_BAD_ACCESS", 2)
    assert [t.frames[0].address for t in analysis.threads] == [0x1_0000_1000, 0x1_0000_1001, 0x1_0000_1002]


@pytest.mark.parametrize("exception", [None, (0x43507378, 0, 0)])
def test_a_dump_that_was_asked_for(exception: tuple[int, int, int] | None, tmp_path: Path) -> None:
    """Nobody crashed in it; Crashpad tells who asked."""
    path = tmp_path / "asked.dmp"
    path.write_bytes(small(exception=exception))
    told = analyze(path, FolderResolver([]), limits=Limits(seconds=120)).to_json()
    asked = 1 if exception else None
    assert (told["crashed_thread"], [t["index"] for t in told["threads"] if t["crashed"]]) == (
        asked,
        [1] if asked else [],
    )
    assert told["exception"]["signal"] is None
    assert describe(path)["crashed_thread"] == asked


@pytest.mark.parametrize("size", [796, 800, 912])
@pytest.mark.parametrize("flags", [0, 7, 0x0040_0007, 0x8000_0006, 0x8040_0007])
def test_the_size_of_an_arm64_context_tells_its_layout(size: int, flags: int) -> None:
    registers = {"pc": 0x1_0000_1000, "sp": 0x8000, "x28": 28, "cpsr": 0x2000_0000}
    raw = bytearray(arm_context(registers) if size == 912 else old_arm_context(registers).ljust(size, b"\0"))
    assert len(raw) == size
    struct.pack_into("<I", raw, 0, flags)
    found = read_context(CPU_TYPE.ARM64, bytes(raw))
    assert {name: found[name] for name in registers} == registers
    # LLDB knows the old one only.
    again = context_for_lldb(CPU_TYPE.ARM64, bytes(raw))
    assert read_context(CPU_TYPE.ARM64, again) == found
    assert again[284:796] == b"\x77" * 512
    assert struct.unpack_from("<I", again, 272)[0] == registers["cpsr"]


def test_another_system(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="is a minidump of Linux on x86_64"):
        read(small(platform=LINUX), tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_minidump_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(small(arch=data.draw(st.sampled_from(["x86_64", "arm64"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.integers(0, len(raw)))
    try:
        told = read(bytes(raw[:size]), tmp_path_factory.getbasetemp())
    except DumpError:
        return
    assert all(s.offset + s.filesize <= size for s in told.memory)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("style", ["full", "modified-memory", "stack"])
def test_minidumps_that_lldb_saves(style: str, arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    """LLDB writes UUIDs, names and exceptions in its own way, and the threads in another order."""
    made = for_lldb(arch, tmp_path)
    saved = saved_by_lldb(made.write(tmp_path / "core"), arch, "minidump", style)
    told = read_minidump(saved)
    assert (told.os_version, told.os_build) == ("", None)
    names = {(m.load_address, m.path, UUID(m.uuid)) for m in made.modules if m.path != "/usr/lib/dyld"}
    assert names <= {(m.module.address, m.module.path, m.module.uuid) for m in told.modules}
    if arch == "arm64":  # of x86_64, LLDB does not know which thread it is
        assert (told.exception.description, told.exception.address) == ("ESR_EC_DABORT_EL0 (fault address: 0x8)", 8)
        assert told.threads[told.crashed].registers["pc"] == truth(arch)["threads"][0]["frames"][0]["pc"]
    analysis = analyze(saved, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    real = {t[0][0]: [f for f in t if f[1] != "/usr/lib/dyld"] for t in expected(arch)}
    mine = {t[0][0]: t[: len(real[t[0][0]])] for t in found(analysis)}
    assert mine == real


def test_what_lldb_says_of_a_stop(tmp_path: Path) -> None:
    words = struct.unpack("<5Q", b"\x1b[2J stopped (address=0xff)".ljust(40, b"\0"))
    told = read(small(exception=(0xFFFFFFFF, 0x4C4C4442, 0x1000), information=words), tmp_path).exception
    assert (told.description, told.address) == ("\\x1b[2J stopped (address=0xff)", 0xFF)
    assert (
        read(small(exception=(0, 0x4C4C4442, 0)), tmp_path).exception.description == "the minidump names no exception"
    )
