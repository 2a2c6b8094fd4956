"""Files of Apple's reporters that are not of crashes: which kind a file is of, and what would serve in its place.

Sources: the list of log types in Apple's `submissionConfig.plist`; spindump(8), sample(1), "Examining the fields in a
crash report", "MXDiagnosticPayload".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from symcache.reports.document import Document

__all__ = ["CRASHES", "MARKS", "Kind", "kind_of_document", "kind_of_text"]


class Kind(NamedTuple):
    """What a file is, and the next step of somebody who has it."""

    name: str
    """As in `is …, not a crash report`."""
    hint: str


_SAMPLES = (
    "its samples name images with UUIDs and offsets, but no thread crashed; if the process crashed too, that report is"
    " among those of ~/Library/Logs/DiagnosticReports"
)
_NO_FRAMES = "it says what happened to the system, with no frames of one process: name that process's own report"
_KERNEL = "its frames are the kernel's: only that very kernelcache, and its Kernel Debug Kit, name them"
_CUT = "it is of the whole system: take a crash report, or a core or minidump, of the one process"

_PANIC = Kind("the report of a kernel panic", _KERNEL)
_RESET = Kind("the report of a forced reset", _KERNEL)
_JETSAM = Kind("a jetsam report, of memory that ran out", _NO_FRAMES)
_SPIN = Kind("a hang report (spindump, with samples of processes)", _SAMPLES)
_CPU = Kind("a report of CPU usage (with samples of a process)", _SAMPLES)
_DISK = Kind("a report of disk writes (with samples of a process)", _SAMPLES)
_WAKEUPS = Kind("a report of wakeups (with samples of a process)", _SAMPLES)
_STACKSHOT = Kind("a stackshot of all processes", _CUT)
_MICROSTACKSHOT = Kind("a report of microstackshots (samples of processes)", _SAMPLES)
_WATCHDOG = Kind("a watchdog report (with a stackshot of all processes)", _CUT)
_SHUTDOWN = Kind("the report of a shutdown that stalled (with samples of processes)", _SAMPLES)
_SLEEP = Kind("the report of a sleep or wake failure", _NO_FRAMES)
_METRICKIT = Kind(
    "a payload of MetricKit (diagnostic reports of a day)",
    "take the crash report that Xcode's Organizer, or the user's device, has of the same crash",
)
_ANALYTICS = Kind("a log of system analytics", _NO_FRAMES)
_BATTERY = Kind("the report of a low battery", _NO_FRAMES)
_ROSETTA = Kind("a report of Rosetta's translator", _NO_FRAMES)
_GPU = Kind("the report of a GPU event", _NO_FRAMES)
_MEMORY = Kind("a report of memory use", _NO_FRAMES)
_RICH_TEXT = Kind("a rich-text document (RTF)", "save it as plain text: `textutil -convert txt FILE`")

_MAX_START = 256 << 10
"""Characters in which a text says what it is."""
CRASHES = {"9", "109", "309", "308", "185", "385", "22", "227", "327"}
"""`bug_type` of reports that have threads and images."""
_BUG_TYPES = {
    **dict.fromkeys(("10", "110", "205", "210", "410"), _PANIC),
    **dict.fromkeys(("11", "12", "45", "207", "222", "223", "228", "243", "302", "310", "328"), _SPIN),
    **dict.fromkeys(("28", "29", "409"), _WATCHDOG),
    **dict.fromkeys(("98", "198", "298"), _JETSAM),
    **dict.fromkeys(("202", "206"), _CPU),
    **dict.fromkeys(("144", "145"), _DISK),
    **dict.fromkeys(("186", "188", "288", "509"), _STACKSHOT),
    **dict.fromkeys(("23", "44", "157", "174", "220"), _MICROSTACKSHOT),
    **dict.fromkeys(("213", "216"), _ROSETTA),
    "17": _SHUTDOWN,
    "24": _SLEEP,
    **dict.fromkeys(("25", "142"), _WAKEUPS),
    "30": _MEMORY,
    "120": _BATTERY,
    "151": _RESET,
    "211": _ANALYTICS,
    "284": _GPU,
}
_KEYS = {
    "panicString": _PANIC,
    "macOSPanicString": _PANIC,
    "crashDiagnostics": _METRICKIT,
    "hangDiagnostics": _METRICKIT,
    "cpuExceptionDiagnostics": _METRICKIT,
    "diskWriteExceptionDiagnostics": _METRICKIT,
    "appLaunchDiagnostics": _METRICKIT,
    "callStackTree": _METRICKIT,
    "largestProcess": _JETSAM,
    "stackshot": _WATCHDOG,
    "processByPid": _STACKSHOT,
}
"""Of documents whose first line is missing; those that hold others' keys, too, come first."""
_EVENTS = {
    "cpu": _CPU,
    "disk": _DISK,
    "wakeups": _WAKEUPS,
    "shutdown": _SHUTDOWN,
    "microstackshots": _MICROSTACKSHOT,
    "powerstats": _MICROSTACKSHOT,
    "sleep": _SLEEP,
}
"""By the first word of the event that samples were taken for."""
_CRASH = re.compile(r"^(?:Exception Type|Crashed Thread|Triggered by Thread):", re.MULTILINE)
_EVENT = re.compile(r"^[> \t|]{0,80}Event:\s+([A-Za-z]+)", re.MULTILINE)
_TOOL = re.compile(r"^[> \t|]{0,80}Analysis Tool:\s+(?:\S*/)?([a-z_]{1,20})\s*$", re.MULTILINE)
_TEXTS = (
    (_PANIC, r'^"?panic\(cpu \d+ caller|^\*\*\* Panic Report \*\*\*|^Panicked (?:task|thread):|"panicString"'),
    (Kind("what the command `sample` printed", _SAMPLES), r"^(?:Analysis of sampling|Sampling process|Call graph:)"),
    (_SPIN, r"^Data Source:|^Steps:\s+\d|^Heaviest stack | \+ \d{1,18}\) \[\*?0x[0-9a-f]{1,16}\]"),
    (_JETSAM, r"^Largest process:|^Free pages:"),
    (_SLEEP, r"^(?:Sleep/?Wake|Sleep Wake|Sleep transition|Wake transition) [Ff]ailure|^Failure code::?"),
    (_MEMORY, r"^leaks Report Version:|^Virtual Memory Map of process|^Process \d+: \d+ (?:nodes malloced|leaks)"),
    (_RICH_TEXT, r"\A\{\\rtf"),
)
_QUOTE = r"^[> \t|]{0,80}"
"""What mail programs put in front of lines."""
_PATTERNS = [(kind, re.compile(pattern.replace("^", _QUOTE), re.MULTILINE)) for kind, pattern in _TEXTS]
MARKS = re.compile("|".join(f"(?:{pattern.pattern})" for _, pattern in _PATTERNS), re.MULTILINE)
"""What is only in texts of these kinds."""


def kind_of_document(document: Document) -> Kind | None:
    """Return the kind of a document by what its first object says, or by its keys. None if neither tells."""
    if kind := _BUG_TYPES.get(document.bug_type):
        return kind
    return next((kind for key, kind in _KEYS.items() if key in document.body or key in document.head), None)


def kind_of_text(text: str) -> Kind | None:
    """Return the kind of a text that is not of a crash, None if it may be of one."""
    text = text[:_MAX_START]
    if _CRASH.search(text):
        return None
    if tool := _TOOL.search(text):
        return Kind(f"what the command `{tool[1]}` printed", _SAMPLES)
    kind = next((kind for kind, pattern in _PATTERNS if pattern.search(text)), None)
    if kind is _SPIN and (event := _EVENT.search(text)):
        return _EVENTS.get(event[1].lower(), kind)
    return kind
