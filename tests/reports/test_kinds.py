"""Files of Apple's reporters that are not of crashes are named, with what would serve in their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symcache.errors import DumpError
from symcache.reports import is_report, parse_report

SAMPLED = (
    "Date/Time:  2026-01-09 09:30:11 +0100\nData Source:      Stackshots\nCommand: Ledger\n\nEvent:  {}\nSteps:  10\n"
)
TREE = "Process:          Ledger [712]\n\n  1000  start + 8 (libsystem_pthread.dylib + 6780) [0x18a802a7c] 1-1000\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('panic(cpu 4 caller 0xfffffe0023d1c8a4): "freed twice" @fs.c:812\n', "kernel panic"),
        ("Fri Jan  9 09:30:11 2026\n\n*** Panic Report ***\npanic(cpu 2 caller 0xf): x\n", "kernel panic"),
        (SAMPLED.format("hang"), "hang report"),
        (SAMPLED.format("cpu usage"), "CPU usage"),
        (SAMPLED.format("disk writes"), "disk writes"),
        (SAMPLED.format("wakeups"), "wakeups"),
        (SAMPLED.format("shutdown stall"), "shutdown"),
        (SAMPLED.format("powerstats"), "microstackshots"),
        (SAMPLED.format("Sleep Wake Failure"), "sleep or wake failure"),
        (TREE, "hang report"),  # as people cut it
        ("Analysis of sampling Ledger (pid 712) every 1 millisecond\nProcess: Ledger [712]\n", "`sample`"),
        ("Process:         Ledger [712]\nAnalysis Tool:   /usr/bin/vmmap\n", "`vmmap`"),
        ("Hardware Model:  iPhone2,1\n\nFree pages:        96\nLargest process:   Ledger\n", "jetsam"),
        ("{\\rtf1\\ansi\\ansicpg1252\nProcess: Ledger\n", "rich-text"),
    ],
)
def test_texts(text: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for beginning in ("", "\ufeff", "It hangs:\n\n" if not text.startswith("{") else ""):
        path.write_text(beginning + text)
        assert is_report(path)
        with pytest.raises(DumpError, match=kind) as raised:
            parse_report(beginning + text, "x")
        assert raised.value.hint


@pytest.mark.parametrize(
    ("bug_type", "kind"),
    [
        *((number, "kernel panic") for number in ("210", "410", "10", "110")),
        *((number, "hang report") for number in ("302", "328", "228", "11")),
        *((number, "jetsam") for number in ("298", "198")),
        *((number, "stackshot") for number in ("288", "188", "509")),
        ("202", "CPU usage"),
        ("145", "disk writes"),
        ("151", "forced reset"),
        ("409", "watchdog"),
        *((number, "wakeups") for number in ("25", "142")),
        ("17", "shutdown"),
        ("211", "analytics"),
        (210, "kernel panic"),
    ],
)
@pytest.mark.parametrize("rest", ["{}", '{"a": "real\nline ends"}', '{"cut', "and text\n", ""])
def test_documents(bug_type: object, kind: str, rest: str) -> None:
    """The first line is enough, whatever became of what follows."""
    with pytest.raises(DumpError, match=kind):
        parse_report(json.dumps({"bug_type": bug_type, "os_version": "macOS 15.5 (24F74)"}) + "\n" + rest, "x.ips")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"panicString": "panic(cpu 0)", "processByPid": {}}, "kernel panic"),
        ({"crashReporterKey": "x", "largestProcess": "Ledger", "processes": []}, "jetsam"),
        ({"processByPid": {}, "binaryImages": []}, "stackshot"),
        ({"timeStampBegin": "2026", "crashDiagnostics": [{"callStackTree": {}}]}, "MetricKit"),
        ({"timeStampBegin": "2026", "hangDiagnostics": []}, "MetricKit"),
    ],
)
def test_documents_without_their_first_line(body: dict[str, object], kind: str) -> None:
    with pytest.raises(DumpError, match=kind):
        parse_report(json.dumps(body), "x")


@pytest.mark.parametrize("said", ["Call graph:", "panic(cpu 0 caller 0xf): no", "Data Source: x", "Largest process: 1"])
def test_words_of_a_program_make_no_other_kind(said: str) -> None:
    """A log that the reporter took along may quote anything."""
    stack = "Thread 0 Crashed:\n0   Ledger  \t0x0000000000001040 post + 20\n\n"
    text = f"Process: Ledger [1]\nException Type:  EXC_CRASH\n\nApplication Specific Information:\n{said}\n\n{stack}"
    assert parse_report(text, "x").information == (said,)
