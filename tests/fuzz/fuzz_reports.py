"""Hostile crash reports: JSON and text."""

from __future__ import annotations

import json

from symcache.dump.reports import parse_report
from symcache.errors import SymcacheError

__all__ = ["SEEDS", "one_input"]

_UUID = "4C4C4452-5555-3144-A16B-A735BDC1F349"


def SEEDS() -> list[bytes]:
    """Return one report of each kind."""
    frames = [{"imageIndex": 0, "imageOffset": 16}, {"imageIndex": 0, "imageOffset": 32, "inline": True}]
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
    }
    text = (
        "Process: Ledger [1]\nPath: /x/Ledger\nCode Type: X86-64 (Native)\nOS Version: macOS 13 (22G830)\n"
        "Exception Type: EXC_BAD_ACCESS (SIGSEGV)\nException Codes: KERN_INVALID_ADDRESS at 0x8\n\n"
        "Thread 0 Crashed:: main\n0   Ledger  \t0x0000000000001010 work + 4\n\n"
        "Thread 0 crashed with X86 Thread State (64-bit):\n  rax: 0x1 rip: 0x1010\n\n"
        f"Binary Images:\n  0x1000 - 0x1fff Ledger (*) <{_UUID}> /x/Ledger\n"
    )
    return [b'{"os_version": "macOS 13 (22G830)"}\n' + json.dumps(body).encode(), text.encode()]


def one_input(data: bytes) -> None:
    """Parse `data` as a report."""
    try:
        report = parse_report(data.decode("utf-8", "replace"), "fuzz")
    except SymcacheError:
        return
    if not 0 <= report.header.thread < len(report.threads):
        raise AssertionError("the crashed thread is none of the report's")
    if any(not 0 <= pc < 1 << 64 for thread in report.threads for pc in thread.frames):
        raise AssertionError("a program counter of more than 64 bits")
