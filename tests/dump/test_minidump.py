"""Minidumps of Mac processes: LLDB reads them, symcache brings the modules."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dump import FolderResolver, LldbProcess, Mode, analyze, open_in_lldb
from symcache.errors import DebuggerError, DumpError
from tests.dump.builder import X86_REGISTERS
from tests.dump.minidump import MiniThread, minidump
from tests.dump.scene import Scene


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
    path.write_bytes(minidump(modules, threads, 1, (1, 0x10)))
    return path


def test_frames_of_a_minidump(scenes: Callable[..., Scene], crash: Path) -> None:
    scene = scenes("x86_64")
    before = crash.read_bytes()
    analysis = analyze(crash, FolderResolver([scene.folder]))
    assert [
        (f.module.loaded.module.name if f.module else "?", f.function, f.line) for f in analysis.crashed.frames
    ] == scene.frames
    assert analysis.loaded.header.thread == 1
    assert analysis.exception.description.startswith("EXC_BAD_ACCESS")
    assert analysis.exception.address == 0x10
    assert [(m.status, m.debug_info) for m in analysis.modules] == [("have", True)] * 2
    assert analysis.registers["rdi"] == 0x10
    assert crash.read_bytes() == before


def test_missing_modules_of_a_minidump(scenes: Callable[..., Scene], crash: Path, only: Callable[..., Path]) -> None:
    analysis = analyze(crash, FolderResolver([only(scenes("x86_64").exe)]))
    assert [m.status for m in analysis.modules] == ["have", "missing"]
    names = [(f.module.loaded.module.name if f.module else "?", f.function) for f in analysis.crashed.frames]
    assert names == [("libmath.dylib", ""), ("libmath.dylib", ""), ("Ledger", "middle"), ("Ledger", "main")]


def test_a_minidump_opens(scenes: Callable[..., Scene], crash: Path) -> None:
    with LldbProcess(Mode.PRINT) as lldb:
        printed = open_in_lldb(crash, FolderResolver([scenes("x86_64").folder]), lldb)
    assert "libmath.dylib`lib_inner" in printed
    assert "Ledger`main" in printed


@pytest.mark.parametrize("size", [4, 31, 100, 1000, 5000])
def test_a_cut_minidump_is_an_error_or_a_dump(crash: Path, size: int) -> None:
    crash.write_bytes(crash.read_bytes()[:size])
    try:
        assert analyze(crash, FolderResolver([])).threads
    except (DumpError, DebuggerError) as error:
        assert str(crash) in str(error)
