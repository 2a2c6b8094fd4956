"""Why a process ended, in words: the same for a report as text and in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from symcache.reports import Report, parse_report
from symcache.reports.termination import parse_termination

LINE = json.dumps({"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 15.4 (24E248)"}) + "\n"
IMAGE = {
    "base": 4096,
    "size": 4096,
    "uuid": "e68de610-908a-4061-9f1d-429bde8842d7",
    "path": "/x/Ledger",
    "arch": "arm64",
}
THREAD = {"triggered": True, "frames": [{"imageIndex": 0, "imageOffset": 64, "symbol": "post", "symbolLocation": 20}]}
STACK = "Thread 0 Crashed:\n0   Ledger  \t0x0000000000001040 post + 20\n\n"
IMAGES = "Binary Images:\n  0x1000 - 0x1fff Ledger (*) <e68de610-908a-4061-9f1d-429bde8842d7> /x/Ledger\n"


def from_json(**body: Any) -> Report:
    return parse_report(LINE + json.dumps({"threads": [THREAD], "usedImages": [IMAGE], **body}), "x.ips")


def from_text(before: str) -> Report:
    head = "Process:  Ledger [1]\nCode Type:  ARM-64 (Native)\nOS Version:  macOS 15.4 (24E248)\n\n"
    return parse_report(f"{head}{before}\n{STACK}{IMAGES}", "x.crash")


@pytest.mark.parametrize(
    ("body", "text", "cause"),
    [
        (
            {
                "termination": {
                    "namespace": "SIGNAL",
                    "code": 6,
                    "indicator": "Abort trap: 6",
                    "byProc": "L",
                    "byPid": 1,
                }
            },
            "Termination Reason:    Namespace SIGNAL, Code 6 Abort trap: 6\nTerminating Process:   L [1]\n",
            ("terminated: SIGNAL, code 6: Abort trap: 6",),
        ),
        (
            {
                "termination": {
                    "namespace": "DYLD",
                    "code": 1,
                    "indicator": "Library missing",
                    "reasons": ["Library not loaded: @rpath/Tax", "Referenced from: /x/Ledger"],
                    "details": ["(terminated at launch; ignore backtrace)"],
                }
            },
            (
                "Termination Reason:  Namespace DYLD, Code 1, Library missing\nLibrary not loaded: @rpath/Tax\n"
                "Referenced from: /x/Ledger\n(terminated at launch; ignore backtrace)\n"
            ),
            (
                "terminated: DYLD, code 1: Library missing",
                "Library not loaded: @rpath/Tax",
                "Referenced from: /x/Ledger",
                "(terminated at launch; ignore backtrace)",
            ),
        ),
        (
            {"exceptionReason": {"composed_message": "year 2025 is closed"}},
            "Exception Reason:  year 2025 is closed\n",
            ("year 2025 is closed",),
        ),
        (
            {"exception": {"type": "EXC_GUARD", "subtype": "GUARD_TYPE_FD", "message": "CLOSE on file descriptor 17"}},
            (
                "Exception Type:    EXC_GUARD\nException Subtype: GUARD_TYPE_FD\n"
                "Exception Message: CLOSE on file descriptor 17\n"
            ),
            ("CLOSE on file descriptor 17",),
        ),
        (
            {"isSimulated": True, "simulatedCaller": "auditd"},
            "Exception Note:    SIMULATED (this is NOT a crash) requested by auditd\n",
            ("SIMULATED (this is NOT a crash) requested by auditd",),
        ),
        (
            {"isNonFatal": True},
            "Exception Note:    NON-FATAL CONDITION (this is NOT a crash)\n",
            ("NON-FATAL CONDITION (this is NOT a crash)",),
        ),
        ({"isCorpse": True}, "Exception Note:    EXC_CORPSE_NOTIFY\n", ()),
        (
            {"vmRegionInfo": "0x10 is not in any region.  \n      REGION TYPE\n--->  \n"},
            "VM Region Info: 0x10 is not in any region.  \n      REGION TYPE\n--->  \n",
            ("0x10 is not in any region.",),
        ),
        (
            {"ktriageinfo": "VM - pmap_enter retried\nVM - out of map space\n"},
            "Kernel Triage:\nVM - pmap_enter retried\nVM - out of map space\n",
            ("VM - pmap_enter retried", "VM - out of map space"),
        ),
        ({"fatalDyldError": "cannot be mapped"}, "Dyld Error Message:\n  cannot be mapped\n", ("cannot be mapped",)),
        (
            {"exception": {"type": "EXC_BAD_ACCESS", "codes": "0x0000000000000106, 0x0a00000000000010"}},
            "Exception Type:    EXC_BAD_ACCESS\nException Codes:   0x0000000000000106, 0x0a00000000000010\n",
            ("code 0x106 (a memory tag is not that of the pointer)",),
        ),
        (
            {"extMods": {"warnings": 1, "targeted": {"thread_set_state": 2, "thread_create": 0}}},
            "External Modification Warnings:\nDebugger attached to process.\n",
            ("Debugger attached to process.",),
        ),
        (
            {"diagnosticOutput": {"sanitizer": "heap-use-after-free"}},
            "Diagnostic Output:\nheap-use-after-free\n",
            ("heap-use-after-free",),
        ),
        (
            {"workQueueLimits": {"Dispatch Thread Hard Limit": 64}},
            "Dispatch Thread Hard Limit Reached: 64\n",
            ("Dispatch Thread Hard Limit Reached: 64",),
        ),
    ],
)
def test_text_and_json_say_the_same(body: dict[str, Any], text: str, cause: tuple[str, ...]) -> None:
    ours, theirs = from_json(**body), from_text(text)
    assert ours.cause == theirs.cause == cause
    assert ours.exception == theirs.exception
    assert ours.termination == theirs.termination
    assert (ours.threads, ours.crashed_thread) == (theirs.threads, theirs.crashed_thread)
    assert (ours.notes, theirs.notes) == ((), ())


@pytest.mark.parametrize(
    ("reason", "namespace", "code", "words"),
    [
        ("Namespace SIGNAL, Code 0xb", "SIGNAL", 11, ""),
        ("Namespace SIGNAL, Code 11 Segmentation fault: 11", "SIGNAL", 11, "Segmentation fault: 11"),
        ("Namespace DYLD, Code 1, Library missing", "DYLD", 1, "Library missing"),
        ("Namespace <0xF>, Code 0x8badf00d", "RUNNINGBOARD", 0x8BADF00D, ""),
        ("SIGNAL 5 Trace/BPT trap: 5", "SIGNAL", 5, "Trace/BPT trap: 5"),
        ("FRONTBOARD 2343432205", "FRONTBOARD", 0x8BADF00D, ""),
        ("DYLD, [0x4] Symbol missing", "DYLD", 4, "Symbol missing"),
        ("TCC, This program asked for the camera", "TCC", None, "This program asked for the camera"),
        ("CODESIGNING 2 Invalid Page", "CODESIGNING", 2, "Invalid Page"),
        ("Namespace GUARD, Code 2305843035917854737", "GUARD", 2305843035917854737, ""),
        ("whatever comes", "", None, "whatever comes"),
    ],
)
def test_reasons_of_an_end(reason: str, namespace: str, code: int | None, words: str) -> None:
    """In the forms of macOS 10.11 to 26 and of iOS."""
    ended = parse_termination(reason, (), "")
    assert (ended.namespace, ended.code, ended.indicator) == (namespace, code, words)


@pytest.mark.parametrize(
    ("code", "word"),
    [(0x8BADF00D, "watchdog"), (0xDEAD10CC, "lock"), (0xC00010FF, "hot"), (0xDEADFA11, "forced")],
)
def test_codes_that_mean_something_are_explained(code: int, word: str) -> None:
    (said,) = from_json(termination={"namespace": "RUNNINGBOARD", "code": code}).cause
    assert hex(code) in said
    assert word in said
    old = from_text(f"Exception Type:  00000020\nException Codes: 0x{code:016x}\n")
    assert any(hex(code) in line and word in line for line in old.cause)


@pytest.mark.parametrize(
    ("exception", "address"),
    [
        ({"type": "EXC_BAD_ACCESS", "subtype": "KERN_INVALID_ADDRESS at 0x0000000000000010"}, 0x10),
        ({"type": "EXC_BAD_ACCESS", "subtype": "KERN_INVALID_ADDRESS at 0xc010 -> 0x10 (possible …)"}, 0xC010),
        ({"type": "EXC_BAD_ACCESS", "codes": "0x0000000000000002, 0x0000000000000010"}, 0x10),
        ({"type": "EXC_BAD_ACCESS", "rawCodes": [1, 16]}, 0x10),
        ({"type": "EXC_BAD_ACCESS", "codes": "0x000000000000000d, 0x0000000000000000"}, None),
        ({"type": "EXC_BAD_ACCESS", "subtype": "EXC_I386_GPFLT"}, None),
        ({"type": "EXC_BREAKPOINT", "subtype": "EXC_ARM_BREAKPOINT at 0x0000000100004000 (brk 1)"}, None),
        ({"type": "EXC_BREAKPOINT", "codes": "0x0000000000000001, 0x0000000100004000"}, None),
    ],
)
def test_only_an_access_has_an_address(exception: dict[str, Any], address: int | None) -> None:
    """Where a thread stopped at a breakpoint is no address of an access."""
    assert from_json(exception=exception).exception.address == address
    told = {"type": "Type", "subtype": "Subtype", "codes": "Codes"}
    fields = "".join(f"Exception {told[key]}:  {value}\n" for key, value in exception.items() if key in told)
    if "rawCodes" not in exception:
        assert from_text(fields).exception.address == address


def test_codes_in_words_and_in_numbers() -> None:
    """From macOS 12 to 15 text has both under one name, and earlier the words in place of the numbers."""
    both = from_text(
        "Exception Type:        EXC_BAD_ACCESS (SIGSEGV)\n"
        "Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000010\n"
        "Exception Codes:       0x0000000000000001, 0x0000000000000010\n"
    ).exception
    assert (both.subtype, both.codes) == (
        "KERN_INVALID_ADDRESS at 0x0000000000000010",
        "0x0000000000000001, 0x0000000000000010",
    )
    assert both.description == "SIGSEGV: EXC_BAD_ACCESS, KERN_INVALID_ADDRESS at 0x0000000000000010"


@pytest.mark.parametrize(
    ("kind", "signal"),
    [
        ("EXC_CRASH (SIGKILL (Code Signature Invalid))", "SIGKILL"),
        ("EXC_CRASH (Code Signature Invalid)", None),
        ("EXC_GUARD", None),
        ("00000020", None),
        ("SIGABRT", "SIGABRT"),
    ],
)
def test_signals(kind: str, signal: str | None) -> None:
    assert from_text(f"Exception Type:  {kind}\n").exception.signal == signal
