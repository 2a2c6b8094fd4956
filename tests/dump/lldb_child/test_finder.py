"""Finding an LLDB, and that each one found on this machine tells the same truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from symcache.dump import analyze
from symcache.dump.lldb_child import finder
from symcache.dump.lldb_child import process as debugger_module
from symcache.errors import DebuggerError
from symcache.resolve import FolderResolver
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import TRUTH, dump, truth


def test_the_module_tells_which_lldb_it_found() -> None:
    command = [sys.executable, "-m", "symcache.dump.lldb_child.finder"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("lldb version")


def test_without_any_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finder, "candidates", lambda: iter(()))
    assert finder._main([]) == 3
    assert "next: install the wheel" in capsys.readouterr().err
    finder.find_lldb.cache_clear()
    try:
        with pytest.raises(DebuggerError, match="no LLDB was found") as error:
            debugger_module.require_lldb()
        assert "pip install lldb-for-pwndbg" in error.value.hint
    finally:
        finder.find_lldb.cache_clear()


def test_a_namespace_package_is_no_lldb(tmp_path: Path) -> None:
    """`import lldb` succeeds on an empty folder of that name."""
    (tmp_path / "lldb").mkdir()
    assert finder.try_import(finder.LldbPython("/usr/bin/python3", str(tmp_path), "", "test")) == ""


def test_on_a_mac_that_of_xcode_comes_before_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which of them knows Swift. A stand-in for Apple's `xcrun`: its `lldb -P` and `-f python3` print paths."""
    (tmp_path / "lldb").mkdir()
    xcrun = tmp_path / "xcrun"
    xcrun.write_text(f'#!/bin/sh\n[ "$1" = lldb ] && echo {tmp_path} || echo /apple/python3\n')
    xcrun.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", str(tmp_path))
    first, second = [*finder.candidates()][:2]
    assert first == finder.LldbPython("/apple/python3", str(tmp_path), "", "Xcode's LLDB")
    assert second.interpreter == sys.executable


def test_every_lldb_of_this_machine_finds_the_true_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel, and whatever LLDB packages of the system there are: their versions differ in a lot."""
    assert TRUTH.is_dir()
    usable = [c for c in finder.candidates() if finder.try_import(c)]
    assert usable
    for candidate in usable:
        monkeypatch.setattr(debugger_module, "find_lldb", lambda found=candidate: found)
        for arch in ("x86_64", "arm64"):
            analysis = analyze(dump(arch), FolderResolver([ASSETS / "app" / arch]))
            for thread, real in zip(analysis.threads, truth(arch)["threads"], strict=True):
                assert [f.address for f in thread.frames] == [f["pc"] for f in real["frames"]], candidate
                own = [f for f in real["frames"] if "Ledger" in f["module"]]
                named = [f for f in thread.frames if f.module and "Ledger" in f.module.loaded.module.path]
                assert [(f.function, f.file, f.line) for f in named] == [
                    (f["function"], f["file"], f["line"]) for f in own
                ], candidate
