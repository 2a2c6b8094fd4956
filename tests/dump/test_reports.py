"""Crash reports: their frames, named by the real LLDB."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.dump import LldbProcess, Mode, analyze, open_in_lldb
from symcache.dump.html import to_html
from symcache.errors import DumpError
from symcache.resolve import ChainResolver, FolderResolver, LibraryResolver
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import ARCHES, truth
from tests.reports.writers import SAID, crash, ips, thrown
from tests.support.corpus import variant


@ARCHES
@pytest.mark.parametrize("write", [ips, crash])
def test_where_an_uncaught_exception_was_thrown(arch: str, write: Any, system: LibraryResolver, tmp_path: Path) -> None:
    """The crashed thread shows how the process ended; what led there is only in the exception's own backtrace."""
    real = truth(arch)
    crashed = real["threads"][real["crashed_thread"]]
    frames = crashed["frames"][1:]  # return addresses, as all of an exception's are
    crashed["frames"] = real["threads"][1 - real["crashed_thread"]]["frames"][:2]
    path = tmp_path / f"x.{write.__name__}"
    path.write_text(thrown(write, real, frames))
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert [(f.address, f.function, f.file or None, f.line) for f in analysis.last_exception] == [
        (f["pc"], f["function"], f["file"], f["line"]) for f in frames
    ]
    assert [[f.address for f in t.frames] for t in analysis.threads] == [
        [f["pc"] for f in t["frames"]] for t in real["threads"]
    ]
    assert analysis.information == (SAID, "abort() called")
    report = analysis.to_json()
    assert report["signature"]["frames"] == [
        "SIGSEGV",
        *(f"{f['module'].rpartition('/')[2]}`{f['function']}" for f in frames[:8]),
    ]
    assert [f["function"] for f in report["last_exception"]["frames"]] == [f["function"] for f in frames]
    assert report["application_specific_information"] == [SAID, "abort() called"]
    page = to_html([report])
    assert page.index("NSRangeException") < page.index("Last exception") < page.index(" crashed: thread-")


def test_an_exception_is_printed_before_the_crashed_thread(tmp_path: Path) -> None:
    real = truth("x86_64")
    path = tmp_path / "x.crash"
    path.write_text(thrown(crash, real, real["threads"][0]["frames"][1:], said="[red]\x1b[31m\u202eevil"))
    done = CliRunner().invoke(application("analyze"), ["analyze", str(path)])
    assert done.exit_code == 0
    assert "[red]\\x1b[31m\\u202eevil" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert done.stdout.index("evil") < done.stdout.index("last exception") < done.stdout.index("crashed:")


@ARCHES
@pytest.mark.parametrize("write", [ips, crash])
def test_a_dsym_alone_names_frames(arch: str, write: Any, system: LibraryResolver, tmp_path: Path) -> None:
    real = truth(arch)
    path = tmp_path / f"Ledger.{write.__name__}"
    path.write_text(write(real))
    for bundle in (ASSETS / "app" / arch).glob("*.dSYM"):
        shutil.copytree(bundle, tmp_path / "archive" / bundle.name)
    analysis = analyze(path, ChainResolver([FolderResolver([tmp_path / "archive"]), system]))
    for thread, true in zip(analysis.threads, real["threads"], strict=True):
        assert [(f.address, f.function, f.file or None, f.line) for f in thread.frames] == [
            (f["pc"], f["function"], f["file"], f["line"]) for f in true["frames"]
        ]
    assert analysis.missing == []
    assert {m.debug_info for m in analysis.modules if "Ledger" in m.loaded.module.path} == {True}


@ARCHES
@pytest.mark.parametrize("write", [ips, crash])
def test_frames_of_a_report_are_named(arch: str, write: Any, system: LibraryResolver, tmp_path: Path) -> None:
    real = truth(arch)
    path = tmp_path / f"Ledger-2026-11-24-120000.{write.__name__}"
    path.write_text(write(real))
    before = path.read_bytes()
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    for thread, true in zip(analysis.threads, real["threads"], strict=True):
        assert [
            (f.address, f.module and f.module.loaded.module.path, f.function, f.file or None, f.line)
            for f in thread.frames
        ] == [(f["pc"], f["module"], f["function"], f["file"], f["line"]) for f in true["frames"]]
        assert thread.name == f"thread-{thread.index}"
    assert analysis.loaded.header.executable == real["executable"]
    assert analysis.loaded.header.bundle_version == "2.4"
    assert analysis.loaded.build == "22G830"
    assert analysis.loaded.cache_origin == "dump"
    assert (analysis.exception.signal, analysis.exception.address) == ("SIGSEGV", 8)
    assert analysis.missing == []
    assert analysis.registers
    assert analysis.to_json()["crashed_thread"] == real["crashed_thread"]
    assert path.read_bytes() == before


def test_a_report_and_a_dump_of_one_crash_have_one_signature(system: LibraryResolver, tmp_path: Path) -> None:
    resolver = ChainResolver([FolderResolver([ASSETS / "app" / "arm64"]), system])
    path = tmp_path / "x.ips"
    path.write_text(ips(truth("arm64")))
    dump = ASSETS / "dumps" / "crash-arm64.zip"
    assert analyze(path, resolver).signature() == analyze(dump, resolver).signature()


@ARCHES
def test_inlined_functions_are_found_again(arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    made = variant(arch, inlined=True)
    made.write_app(tmp_path / "app")
    real = {
        "arch": arch,
        "executable": made.truth.executable,
        "crashed_thread": made.truth.crashed_thread,
        "modules": made.truth.modules,
        "threads": [
            {
                "index": t.index,
                # One physical frame for a function and what was inlined into it: the last of them is the real one.
                "frames": [
                    {"pc": f.pc, "module": f.module, "function": f.function}
                    for n, f in enumerate(t.frames)
                    if n == 0 or not t.frames[n - 1].inlined
                ],
            }
            for t in made.truth.threads
        ],
    }
    path = tmp_path / "x.ips"
    path.write_text(ips(real))
    analysis = analyze(path, ChainResolver([FolderResolver([tmp_path / "app"]), system]))
    for thread, true in zip(analysis.threads, made.truth.threads, strict=True):
        assert [(f.function, f.file or None, f.line, f.inlined) for f in thread.frames] == [
            (f.function, f.file, f.line, f.inlined) for f in true.frames
        ]


def test_missing_modules_of_a_report(tmp_path: Path) -> None:
    path = tmp_path / "x.ips"
    path.write_text(ips(truth("x86_64")))
    analysis = analyze(path, FolderResolver([ASSETS / "app" / "x86_64"]))
    crashed = analysis.crashed.frames
    assert [f.function for f in crashed if f.module and "Ledger" in f.module.loaded.module.path] == [
        f["function"] for f in truth("x86_64")["threads"][0]["frames"] if "Ledger" in f["module"]
    ]
    assert len(crashed) == len(truth("x86_64")["threads"][0]["frames"])
    assert {m.loaded.module.name for m in analysis.missing} >= {"CoreFoundation", "dyld"}


def test_offsets_of_a_report_are_without_pointer_authentication_codes(tmp_path: Path) -> None:
    real = truth("arm64")
    frames = real["threads"][0]["frames"]
    base = next(base for path, _, base in real["modules"] if path == frames[0]["module"])
    path = tmp_path / "x.crash"
    path.write_text(crash(real).replace(f"{frames[0]['pc']:#018x}", f"{frames[0]['pc'] | 0x2A << 56:#018x}"))
    analysis = analyze(path, FolderResolver([]))
    (row, *_) = analysis.to_json()["threads"][0]["frames"]
    assert (row["address"], row["module_offset"]) == (hex(frames[0]["pc"] | 0x2A << 56), frames[0]["pc"] - base)


def test_a_report_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.ips"
    path.write_text(ips(truth("arm64")))
    with LldbProcess(Mode.PRINT) as lldb, pytest.raises(DumpError, match="is a crash report") as error:
        open_in_lldb(path, FolderResolver([]), lldb)
    assert "symcache analyze" in error.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "Analysis of sampling Ledger (pid 4711) every 1 millisecond\nProcess:         Ledger [4711]\nCall graph:\n",
        "Date/Time:        2026-11-24 12:00:00\nCommand:          Ledger\nHeaviest stack for the target process:\n",
    ],
)
def test_texts_of_other_tools_are_told_apart(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(DumpError, match=r"`sample`|a hang report") as error:
        analyze(path, FolderResolver([]))
    assert "sample" in error.value.hint
