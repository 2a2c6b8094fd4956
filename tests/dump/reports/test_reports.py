"""Crash reports: Apple's two formats, written here after Apple's description, named by the real LLDB."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.dump import LldbProcess, Mode, ReportFrame, analyze, open_in_lldb
from symcache.dump.html import to_html
from symcache.dump.reports.files import is_report, parse_report
from symcache.errors import DumpError
from symcache.resolve import ChainResolver, FolderResolver, LibraryResolver
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import ARCHES, truth
from tests.support.corpus import variant


def ips(real: dict[str, Any]) -> str:
    """Return the JSON report of a crash."""
    images = [
        {"base": base, "size": 4096, "uuid": str(UUID(uuid)), "path": path, "name": path.rpartition("/")[2]}
        for path, uuid, base in real["modules"]
    ]
    images.append({"base": 0, "size": 0, "uuid": "00000000-0000-0000-0000-000000000000"})
    places = {path: number for number, (path, _, _) in enumerate(real["modules"])}
    threads = [
        {
            "id": 1000 + thread["index"],
            "triggered": thread["index"] == real["crashed_thread"],
            "name": f"thread-{thread['index']}",
            "threadState": {
                "x": [{"value": n} for n in range(29)],
                "pc": {"value": 5, "matchesCrashFrame": 1},
                "flavor": "A",
            },
            "frames": [
                {"imageIndex": places[f["module"]], "imageOffset": f["pc"] - real["modules"][places[f["module"]]][2]}
                for f in thread["frames"]
            ],
        }
        for thread in real["threads"]
    ]
    head = {"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}
    body = {
        "procName": "Ledger",
        "procPath": real["executable"],
        "cpuType": "ARM-64" if real["arch"] == "arm64" else "X86-64",
        "bundleInfo": {"CFBundleShortVersionString": "2.4"},
        "osVersion": {"train": "macOS 13.6.9", "build": "22G830"},
        "exception": {
            "type": "EXC_BAD_ACCESS",
            "signal": "SIGSEGV",
            "subtype": "KERN_INVALID_ADDRESS at 0x0000000000000008",
        },
        "faultingThread": real["crashed_thread"],
        "threads": threads,
        "usedImages": images,
    }
    return json.dumps(head) + "\n" + json.dumps(body, indent=1)


def crash(real: dict[str, Any]) -> str:
    """Return the text report of a crash."""
    lines = [
        "Process:               Ledger [4711]",
        f"Path:                  {real['executable']}",
        "Version:               2.4 (240)",
        f"Code Type:             {'ARM-64' if real['arch'] == 'arm64' else 'X86-64'} (Native)",
        "OS Version:            macOS 13.6.9 (22G830)",
        "",
        f"Crashed Thread:        {real['crashed_thread']}",
        "Exception Type:        EXC_BAD_ACCESS (SIGSEGV)",
        "Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000008",
        "",
    ]
    for thread in real["threads"]:
        state = " Crashed:" if thread["index"] == real["crashed_thread"] else ":"
        lines.append(f"Thread {thread['index']}{state}: thread-{thread['index']}")
        for number, frame in enumerate(thread["frames"]):
            name = frame["module"].rpartition("/")[2]
            source = " (some file.c:1)" if frame["file"] else ""
            lines.append(f"{number:<4}{name:<30}\t{frame['pc']:#018x} {frame['function']} + 12{source}")
        lines.append("")
    lines += [f"Thread {real['crashed_thread']} crashed with X86 Thread State (64-bit):"]
    lines += [
        "  rax: 0x0000000000000001  rbx: 0x0000000000000002  r15: 0x0000000000000003",
        "  rip: 0x0000000109a1483b",
        "",
    ]
    lines += ["Binary Images:"]
    for path, uuid, base in real["modules"]:
        lines.append(f"  {base:#18x} - {base + 4095:#18x} {path.rpartition('/')[2]} (*) <{UUID(uuid)}> {path}")
    return "\n".join([*lines, "", "External Modification Summary:", ""])


SAID = "*** Terminating app due to uncaught exception 'NSRangeException', reason: 'index 5 beyond bounds'"


def thrown(write: Any, real: dict[str, Any], frames: list[dict[str, Any]], said: str = SAID) -> str:
    """Return a report of an uncaught exception, thrown by way of these frames."""
    text: str = write(real)
    if write is crash:
        lines = ["Application Specific Information:", said, "abort() called", "", "Last Exception Backtrace:"]
        lines += [
            f"{n:<4}{f['module'].rpartition('/')[2]:<30}\t{f['pc']:#018x} 0x104a70000 + {n}"
            for n, f in enumerate(frames)
        ]
        return text.replace("Thread 0", "\n".join([*lines, "", "Thread 0"]), 1)
    places = {path: number for number, (path, _, _) in enumerate(real["modules"])}
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    body["asi"] = {"CoreFoundation": [said], "libsystem_c.dylib": ["abort() called"]}
    body["lastExceptionBacktrace"] = [
        {"imageIndex": places[f["module"]], "imageOffset": f["pc"] - real["modules"][places[f["module"]]][2]}
        for f in frames
    ]
    return f"{head}\n{json.dumps(body)}"


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
    done = CliRunner().invoke(application(), ["analyze", str(path)])
    assert done.exit_code == 0
    assert "[red]\\x1b[31m\\u202eevil" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert done.stdout.index("evil") < done.stdout.index("last exception") < done.stdout.index("crashed:")


def test_text_behind_a_line_of_json() -> None:
    """As macOS 11 and earlier, and iOS up to 14, write `.ips` files."""
    text = crash(truth("x86_64"))
    head = json.dumps({"app_name": "Ledger", "bug_type": "109", "os_version": "macOS 11.7.10 (20G1427)"})
    for between in ("\n", "\n\n", " \r\n"):
        assert parse_report(head + between + text, "x") == parse_report(text, "x")


def test_what_gathers_frames_in_no_image_is_no_module() -> None:
    text = crash(truth("x86_64"))
    line = "  0x0 - 0xffffffffffffffff ??? (*) <00000000-0000-0000-0000-000000000000> ???\n"
    changed = text.replace("\n\nExternal", f"\n{line}\nExternal")
    assert changed != text
    assert parse_report(changed, "x") == parse_report(text, "x")


def test_a_last_exception_without_names() -> None:
    """As it is written where nobody looked for names: all addresses in one line."""
    text = crash(truth("x86_64")).replace("Thread 0", "Last Exception Backtrace:\n(0x10 0xffff 0x20)\n\nThread 0", 1)
    assert parse_report(text, "x").last_exception == tuple(map(ReportFrame, (0x10, 0xFFFF, 0x20)))
    assert parse_report(text, "x").threads == parse_report(crash(truth("x86_64")), "x").threads


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("write", [ips, crash])
def test_an_application_specific_backtrace(write: Any, number: int) -> None:
    """AppKit catches exceptions in its event loop, so where one was thrown is no last exception, but this."""
    real = truth("arm64")
    text = write(real)
    frames = real["threads"][0]["frames"][1:]
    backtraces = [
        "\n".join(f"{n:<4}{f['module'].rpartition('/')[2]:<36}{f['pc']:#018x} {f['function']} + {n}" for n, f in some)
        for some in (list(enumerate(frames)), list(enumerate(frames[2:])))
    ]
    if write is crash:
        pieces = [f"Application Specific Backtrace {number + n}:\n{b}\n" for n, b in enumerate(backtraces)]
        pieces.insert(0, f"Application Specific Information:\n{SAID}\n")
        changed = text.replace("Thread 0", "\n".join([*pieces, "Thread 0"]), 1)
    else:
        head, _, rest = text.partition("\n")
        changed = f"{head}\n{json.dumps(json.loads(rest) | {'asi': {'x': [SAID]}, 'asiBacktraces': backtraces})}"
    report = parse_report(changed, "x")
    assert [f.address for f in report.last_exception] == [f["pc"] for f in frames]
    assert [(f.function, f.offset) for f in report.last_exception] == [(f["function"], n) for n, f in enumerate(frames)]
    assert report.information == (SAID,)
    assert report.threads == parse_report(text, "x").threads
    last = thrown(write, real, frames[3:])
    if write is crash:
        last = last.replace("Last Exception", "\n".join([*pieces[1:], "Last Exception"]), 1)
    else:
        head, _, rest = last.partition("\n")
        last = f"{head}\n{json.dumps(json.loads(rest) | {'asiBacktraces': backtraces})}"
    assert [f.address for f in parse_report(last, "x").last_exception] == [f["pc"] for f in frames[3:]]


@pytest.mark.parametrize("write", [ips, crash])
def test_information_without_end(write: Any) -> None:
    said = "\n".join(f"{n} " + "x" * 5000 for n in range(5000))
    report = parse_report(thrown(write, truth("arm64"), [], said=said), "x")
    assert len(report.information) <= 200
    assert max(map(len, report.information), default=0) <= 1024
    assert report.last_exception == ()


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], [None], [[]], {"a": 1}, {"a": None}, {"a": [1, {}]}, [{"imageIndex": -1}]]
)
def test_exceptions_and_information_that_are_none(value: object) -> None:
    head, _, rest = ips(truth("arm64")).partition("\n")
    body = json.loads(rest) | {"asi": value, "lastExceptionBacktrace": value, "asiBacktraces": value}
    report = parse_report(f"{head}\n{json.dumps(body)}", "x")
    assert (report.last_exception, report.information) == ((), ())


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not a JSON crash report"),
        ('{"bug_type": "288"}\n{}', "has no usedImages"),
        ('{"bug_type": "210"}\npanic(cpu 0 caller 0xf): x', r"its report \(bug_type '210'\) is not JSON"),
        ('{"bug_type": "309"}\n{"usedImages": [', "not a JSON crash report"),
        ('{"usedImages": [], "threads": []}', "names no modules"),
        ('{"usedImages": [{"base": 1, "path": "/x"}], "threads": []}', "has no thread"),
        ("[" * 100_000, "names no modules"),
        ("{" + '"a":{' * 50_000, "not a JSON crash report"),
        ("Process: x [1]\n", "names no modules"),
        ("Process: x [1]\nBinary Images:\n 0x1 - 0x2 x (1) <23516be429be350c91c9f36e7999f0f1> /x\n", "has no thread"),
        ('{"usedImages": ' + json.dumps([{}] * 70_000) + ', "threads": []}', "70000 usedImages"),
    ],
)
def test_reports_that_are_none(text: str, expected: str) -> None:
    with pytest.raises(DumpError, match="x.ips: .*" + expected):
        parse_report(text, "x.ips")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_reports_are_refused_or_read(data: st.DataObject) -> None:
    real = truth("arm64")
    text = thrown(ips if data.draw(st.booleans()) else crash, real, real["threads"][0]["frames"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(
            st.sampled_from(["", "null", "[]", "{}", "-1", "1e999", '"', "18446744073709551616", "\n", "0x"])
        )
        text = text[:place] + piece + text[place + data.draw(st.integers(0, 12)) :]
    try:
        report = parse_report(text, "x")
    except DumpError:
        return
    assert 0 <= report.header.thread < len(report.threads)
    assert all(0 <= m.address < 1 << 64 for m in report.header.modules)


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
    with pytest.raises(DumpError, match="text that is no crash report") as error:
        analyze(path, FolderResolver([]))
    assert "sample" in error.value.hint


def test_what_is_taken_for_a_report(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in ((b"PK\3\4", False), (b"", False), (b"\xcf\xfa\xed\xfe", False), (b"\xef\xbb\xbf{", True)):
        path.write_bytes(content)
        assert is_report(path) is expected
