"""Crash reports, JSON and text, which users attach to tickets: any text, and any JSON in any place."""

from __future__ import annotations

import json

from symcache.errors import SymcacheError
from symcache.reports import parse_report

__all__ = ["SEEDS", "one_input"]

_UUID = "4C4C4452-5555-3144-A16B-A735BDC1F349"
_IMAGES = """\
Process:               Notes [812]
OS Version:            macOS 11.7.10 (20G1427)

Binary Images:
  0x10b1e0000 - 0x10b1f3fff +com.example.Notes (1.0 - 1) <11111111-2222-3333-4444-555555555555> /Applications/Notes
  0x182d1c000 - ??? libz.1.dylib arm64e  <aabbccddeeff00112233445566778899> /usr/lib/libz.1.dylib
  0x0 - 0xffffffffffffffff ??? (*) <00000000-0000-0000-0000-000000000000> ???

External Modification Summary:
"""


def SEEDS() -> list[bytes]:
    """Return one report of each kind, some that only list images, and one that is of no crash."""
    named = {"symbol": "work", "symbolLocation": 4, "sourceFile": "work.c", "sourceLine": 7}
    frames = [{"imageIndex": 0, "imageOffset": 32, "inline": True, **named}, {"imageIndex": 0, "imageOffset": 32}]
    state = {"x": [{"value": 1}], "pc": {"value": 2}}
    body = {
        "procPath": "/x/Ledger",
        "cpuType": "ARM-64",
        "faultingThread": 0,
        "osVersion": {"build": "22G830"},
        "exception": {"signal": "SIGSEGV", "type": "EXC_BAD_ACCESS", "subtype": "KERN_INVALID_ADDRESS at 0x8"},
        "threads": [{"name": "main", "triggered": True, "frames": frames, "threadState": state}],
        "usedImages": [{"base": 4096, "size": 4096, "uuid": _UUID, "path": "/x/Ledger"}],
        "sharedCache": {"uuid": _UUID, "base": 1},
        "lastExceptionBacktrace": frames,
        "asi": {"CoreFoundation": ["*** Terminating app\n\x1b[31m"], "libsystem_c.dylib": ["abort() called"]},
    }
    text = (
        "Process: Ledger [1]\nPath: /x/Ledger\nCode Type: X86-64 (Native)\nOS Version: macOS 13 (22G830)\n"
        "Exception Type: EXC_BAD_ACCESS (SIGSEGV)\nException Codes: KERN_INVALID_ADDRESS at 0x8\n\n"
        "Application Specific Information:\n*** Terminating app\n\n"
        "Last Exception Backtrace:\n0   Ledger  \t0x0000000000001014 0x1000 + 20\n(0x1014 0x1018)\n\n"
        "Thread 0 Crashed:: main\n0   Ledger  \t0x0000000000001010 work + 4 [inlined] (work.c:7)\n"
        "1   ???  \t000000000000000000 0 + 0\n\nThread 1: other\n0   Ledger 0x1010 main (in Ledger)\n\n"
        "Thread 0 crashed with X86 Thread State (64-bit):\n  rax: 0x1 rip: 0x1010\n\n"
        f"Binary Images:\n  0x1000 - 0x1fff Ledger (*) <{_UUID}> /x/Ledger\n"
    )
    head = json.dumps({"bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}) + "\n"
    listing = {
        "usedImages": [
            {"arch": "arm64e", "base": 1 << 32, "size": 4096, "uuid": "0" * 31 + "1", "path": "/usr/lib/libz.dylib"},
            {"size": 0, "source": "A", "base": 0, "uuid": "0" * 32},
        ],
        "osVersion": {"train": "macOS 13.6.9", "build": "22G830"},
    }
    panic = json.dumps({"bug_type": "210"}) + "\n" + json.dumps({"panicString": "x"})
    both = f"{text}\n-----------\nFull Report\n-----------\n\n{head}{json.dumps(body)}\nModel: Mac14,7\n"
    quoted = "words\n" + "".join(f"> {line}\n" for line in text.replace("<", "&lt;").splitlines())
    reports = [head + json.dumps(body), text, head + json.dumps(listing), _IMAGES, panic, both, quoted]
    return [report.encode() for report in reports]


def one_input(data: bytes) -> None:
    """Parse `data` as a report, for its frames and for its images alone."""
    text = data.decode("utf-8", "replace")
    try:
        listing = parse_report(text, "fuzz", threads=False)
    except SymcacheError:
        listing = None
    try:
        report = parse_report(text, "fuzz")
    except SymcacheError:
        report = None
    if listing and any(i.uuid is not None and not i.uuid.int for i in listing.images):
        raise AssertionError("an image whose UUID is none")
    if report is None:
        return
    if listing != report:
        raise AssertionError("whoever needs no threads reads another report")
    if report.crashed_thread is not None and not 0 <= report.crashed_thread < len(report.threads):
        raise AssertionError("the crashed thread is none of the report's")
    for texts in (report.information, report.cause, report.notes):
        if len(texts) > 200 or any(len(t) > 1024 or not t.isprintable() for t in texts):
            raise AssertionError("words that are too much, or could drive a terminal")
    walked = [*(thread.frames for thread in report.threads), report.last_exception, *report.application_backtraces]
    if any(not 0 <= frame.address < 1 << 64 for frames in walked for frame in frames):
        raise AssertionError("a program counter of more than 64 bits")
    if any(len(f.function) > 8192 or len(f.file) > 1024 for frames in walked for f in frames):
        raise AssertionError("names without end")
