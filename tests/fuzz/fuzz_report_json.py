"""The payload of a crash report in JSON: any value in the place of any other, behind a line that is right."""

from __future__ import annotations

import json

from symcache.errors import SymcacheError
from symcache.reports import parse_report

__all__ = ["SEEDS", "one_input"]

_HEAD = '{"app_name":"Ledger","bug_type":"309","os_version":"macOS 15.4 (24E248)"}\n'
_UUID = "4c4c4452-5555-3144-a16b-a735bdc1f349"


def SEEDS() -> list[bytes]:
    """Return payloads of today's form and of the first one, and one with all that says why the process ended."""
    images = [{"base": 4096, "size": 4096, "uuid": _UUID, "path": "/x/Ledger"}, {"source": "A", "base": 0, "size": 0}]
    frames = [{"imageIndex": 0, "imageOffset": 32, "symbol": "_ZN1a1bEv", "symbolLocation": 4, "inline": True}]
    plain = {"usedImages": images, "threads": [{"triggered": True, "queue": "q", "frames": frames}]}
    early = {
        "usedImages": [[_UUID, 4096, "P"]],
        "threads": [{"frames": [[0, 32]], "threadState": {"x": [1, 2], "pc": 3, "flavor": "A"}}],
        "legacyInfo": {"imageExtraInfo": [{"path": "/x/Ledger", "size": 4}], "threadTriggered": {"queue": "q"}},
        "faultingThread": 0,
    }
    told = plain | {
        "exception": {"type": "EXC_GUARD", "signal": "SIGKILL", "message": "CLOSE", "rawCodes": [1, 2]},
        "termination": {"namespace": 6, "code": 1, "reasons": ["a"], "details": ["b"], "byProc": "x", "byPid": 1},
        "exceptionReason": {"name": "N", "composed_message": "m"},
        "isSimulated": True,
        "simulatedCaller": "x",
        "ktriageinfo": "VM - x\n",
        "vmRegionInfo": "0 is not\n x",
        "workQueueLimits": {"Dispatch Thread Hard Limit": 64},
        "reportNotes": ["n"],
        "asi": {"a": ["x"], "b": "y"},
        "asiSignatures": ["s"],
        "asiBacktraces": ["0   Ledger 0x1010 main + 1\n"],
        "lastExceptionBacktrace": frames,
        "legacyInfo": {"threadHighlighted": 0},
    }
    return [json.dumps(body).encode() for body in (plain, early, told)]


def one_input(data: bytes) -> None:
    """Parse `data` as the payload of a report."""
    try:
        report = parse_report(_HEAD + data.decode("utf-8", "replace"), "fuzz")
    except SymcacheError:
        return
    if report.crashed_thread is not None and not 0 <= report.crashed_thread < len(report.threads):
        raise AssertionError("the crashed thread is none of the report's")
    if any(not t.isprintable() for texts in (report.cause, report.notes, report.information) for t in texts):
        raise AssertionError("words that could drive a terminal")
    frames = [*(f for t in report.threads for f in t.frames), *report.thrown]
    if any(
        not 0 <= f.address < 1 << 64 or (not f.function.isascii() and "\ud800" <= max(f.function) <= "\udfff")
        for f in frames
    ):
        raise AssertionError("a frame that cannot be printed")
    if any(not 0 <= value < 1 << 64 for value in report.registers.values()):
        raise AssertionError("a register of more than 64 bits")
