"""Crash reports: Apple's two formats, written after Apple's description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.errors import DumpError
from symcache.reports import ReportFrame, is_report, parse_report
from tests.dump.test_corpus import truth
from tests.reports.writers import SAID, crash, ips, thrown


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
    assert report.last_exception == ()
    assert report.application_backtraces[0] == report.thrown
    assert [[f.address for f in b] for b in report.application_backtraces] == [
        [f["pc"] for f in some] for some in (frames, frames[2:])
    ]
    assert [(f.function, f.offset) for f in report.thrown] == [(f["function"], n) for n, f in enumerate(frames)]
    assert report.information == (SAID,)
    assert report.threads == parse_report(text, "x").threads
    last = thrown(write, real, frames[3:])
    if write is crash:
        last = last.replace("Last Exception", "\n".join([*pieces[1:], "Last Exception"]), 1)
    else:
        head, _, rest = last.partition("\n")
        last = f"{head}\n{json.dumps(json.loads(rest) | {'asiBacktraces': backtraces})}"
    assert [f.address for f in parse_report(last, "x").thrown] == [f["pc"] for f in frames[3:]]


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "JSON is damaged, cut or too large"),
        ("{}", "neither threads nor a list of images"),
        ('{"bug_type": "288"}\n{}', "a stackshot"),
        ('{"bug_type": "210"}\npanic(cpu 0 caller 0xf): x', "a kernel panic"),
        ('{"bug_type": "309"}\n{"usedImages": [', "JSON is damaged, cut or too large"),
        ('{"bug_type": "309"}\n', "is cut: its JSON has no usedImages and threads"),
        ('{"bug_type": "309"}\n{"usedImages": []}', "is cut: its JSON has no threads"),
        ('{"bug_type": "999"}\n{"usedImages": []}', r"bug_type '999'\) has no threads"),
        ('{"usedImages": [], "threads": []}', "has no thread"),
        ('{"usedImages": [{"base": 1, "path": "/x"}], "threads": []}', "has no thread"),
        ('{"bug_type": "309"}\n{"threads": [' + "[]," * 2_100_000 + "[]]}", "2100004 objects and lists"),
        ("Process: x [1]\n" + "".join(f"Thread {n}:\n" for n in range(20_000)), "more than 16384 threads"),
        (
            (
                "Process: x [1]\n\nCrashed Thread:  Unknown\n\nException Type:  EXC_CRASH (Code Signature Invalid)\n"
                "Termination Reason:  Namespace SIGNAL, Code 0xf\n\nBacktrace not available\n\n"
                "Unknown thread crashed with X86 Thread State (64-bit):\n  rax: 0x0000000000000000\n\n"
                "Binary images description not available\n"
            ),
            r"no backtrace: its reporter found no thread \(EXC_CRASH; terminated: SIGNAL, code 15\)",
        ),
        ("[" * 100_000, "neither threads nor a list of images"),
        ("{" + '"a":{' * 50_000, "nests too deep"),
        ("Process: x [1]\n", "neither threads nor a list of images"),
        ("Process: x [1]\nBinary Images:\n 0x1 - 0x2 x (1) <23516be429be350c91c9f36e7999f0f1> /x\n", "has no thread"),
        ('{"usedImages": ' + json.dumps([{}] * 70_000) + ', "threads": []}', "70000 usedImages"),
    ],
)
def test_reports_that_are_none(text: str, expected: str) -> None:
    with pytest.raises(DumpError, match="x.ips: .*" + expected):
        parse_report(text, "x.ips")


def test_a_text_of_too_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = crash(truth("x86_64"))
    monkeypatch.setattr("symcache.reports.text.MAX_LINES", text.count("\n") + 100)
    parse_report(text + "x\n" * 50, "x")
    with pytest.raises(DumpError, match=r"more than \d+ lines"):
        parse_report(text + "x\n" * 200, "x")


def test_lines_without_end_in_front_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ips(truth("x86_64"))
    monkeypatch.setattr("symcache.reports.files.MAX_LINES", text.count("\n") + 100)
    parse_report("\n" * 50 + text, "x")
    with pytest.raises(DumpError, match=r"more than \d+ lines"):
        parse_report("\n" * 200 + text, "x")


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
    assert report.crashed_thread is None or 0 <= report.crashed_thread < len(report.threads)
    assert all(i.address is None or 0 <= i.address < 1 << 64 for i in report.images)


def test_what_is_taken_for_a_report(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in ((b"PK\3\4", False), (b"", False), (b"\xcf\xfa\xed\xfe", False), (b"\xef\xbb\xbf{", True)):
        path.write_bytes(content)
        assert is_report(path) is expected
