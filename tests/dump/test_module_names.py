"""Frames that LLDB has walked, but has no name for: files may know one that it does not read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from symcache.dump import Analysis, analyze
from symcache.dump.module_names import with_names
from symcache.resolve import FolderResolver
from symcache.symbolicate import NamesFolder
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import truth
from tests.reports.writers import ips

APP = ASSETS / "app" / "arm64"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


def walked(folder: Path, names: Path, tmp_path: Path) -> Analysis:
    """Return the stacks of the corpus as LLDB walks them, with the modules of a folder, and no name."""
    path = tmp_path / "x.ips"
    path.write_text(ips(truth("arm64")))
    analysis = analyze(path, FolderResolver([folder]), names=names)
    unnamed = ("", "___lldb_unnamed_symbol7")
    threads = [
        replace(
            thread,
            frames=tuple(
                replace(frame, function=unnamed[number % 2], file="", line=None, offset=None, source="")
                for number, frame in enumerate(thread.frames)
            ),
        )
        for thread in analysis.threads
    ]
    return replace(analysis, threads=tuple(threads))


def test_frames_without_a_name_get_that_of_their_files(names: Path, tmp_path: Path) -> None:
    analysis = walked(APP, names, tmp_path)
    threads = with_names(analysis.loaded, analysis.threads, NamesFolder(names))
    frames = [(f, t) for thread, real in zip(threads, truth("arm64")["threads"], strict=True)
              for f, t in zip(thread.frames, real["frames"], strict=True)]  # fmt: skip
    own = [(f, t) for f, t in frames if "Ledger" in t["module"]]
    assert [(f.function, f.file, f.line, f.source) for f, _ in own] == [
        (t["function"], t["file"], t["line"], "dwarf") for _, t in own
    ]
    # What there is no file of stays as LLDB calls it.
    assert {f.function for f, t in frames if "Ledger" not in t["module"]} <= {"", "___lldb_unnamed_symbol7"}


def test_no_name_is_made_up_and_none_of_lldb_replaced(names: Path, tmp_path: Path) -> None:
    binaries = tmp_path / "stripped"
    shutil.copytree(APP / "Ledger.app", binaries)
    analysis = walked(binaries, names, tmp_path)
    threads = with_names(analysis.loaded, analysis.threads, NamesFolder(names))
    functions = {f.function for thread in threads for f in thread.frames}
    assert "LKBookSort" in functions
    assert not any(function.startswith("fun_") for function in functions)
    told = tuple(replace(t, frames=tuple(replace(f, function="by_lldb") for f in t.frames)) for t in analysis.threads)
    assert with_names(analysis.loaded, told, NamesFolder(names)) == told
