"""Fields of crash reports as text: `Exception Type:        EXC_BAD_ACCESS (SIGSEGV)`, and lines that continue one.

Source: Apple's "Examining the fields in a crash report", and reports of Mac OS X 10.6 to macOS 26 and iOS 4 to 18.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from symcache.crash import CrashException
from symcache.reports.model import MAX_TEXT, ReportImage, exception_of, split_system
from symcache.reports.termination import Termination, exception_words, parse_termination

__all__ = ["IGNORED_SECTIONS", "Fields", "arch_name", "field_of", "split_label"]

_FIELD = re.compile(r"([A-Z][A-Za-z/ -]{1,40}?)\s?:\s*(.*)\Z")
_SAID = (
    *("Exception Reason", "Exception Message", "Exception Note", "Termination Description", "Wakeups"),
    *("CPU", "CPU Time", "Writes", "Memory", "Footprint", "Limit", "Action taken"),
    *("Dispatch Thread Hard Limit Reached", "Dispatch Thread Soft Limit Reached"),
)
"""Fields whose words say more of the cause."""
_READ = {
    *("Process", "Path", "Version", "Code Type", "OS Version", "Report Version", "Crashed Thread"),
    *("Triggered by Thread", "Highlighted Thread", "Highlighted by Thread", "Exception Type", "Exception Subtype"),
    *("Exception Codes", "Termination Signal", "Termination Reason", "Terminating Process", *_SAID),
}
_SKIPPED = {
    *("Identifier", "Build Info", "App Item ID", "App External ID", "AppStoreTools", "AppVariant", "Beta"),
    *("Platform", "Parent Process", "Responsible", "Responsible Process", "Responsible PID", "User ID"),
    *("UDID", "Device Model", "Role", "Coalition", "Date/Time", "Launch Time", "End Time"),
    *("Sleep/Wake UUID", "Time Awake Since Boot", "Time Since Wake", "Time Since Boot"),
    *("Bridge OS Version", "Baseband Version", "Hardware Model", "Release Type", "Crash Reporter Key"),
    *("CrashReporter Key", "Incident Identifier", "Beta Identifier", "Anonymous UUID"),
    *("System Integrity Protection", "Architecture", "PlugIn Path", "PlugIn Identifier", "PlugIn Version"),
    *("Interval Since Last Report", "Distributor ID", "Crashes Since Last Report"),
    *("Per-App Interval Since Last Report", "Per-App Crashes Since Last Report", "Logical CPU"),
    *("Error Code", "Trap Number", "Physical CPU", "Duration", "Event", "Heaviest stack", "Hang Duration"),
    *("Device Identifier", "Install Identifier", "Trial Allocations", "Activity ID", "Share With App Devs"),
}
"""Fields that are known and of no use here."""
_KNOWN = _READ | _SKIPPED
IGNORED_SECTIONS = (
    *("External Modification Summary:", "VM Region Summary:", "VM Regions Near ", "Model:"),
    *("Filtered syslog:", "Filtered Log", "Filtered log", "No thread state", "External GPU"),
    *("Translated Code Information:", "Thread State", "Global Trace Buffer", "System Profile:", "MTE "),
    *("Full Report", "Backtrace not available", "EOF", "Trial Information:", "AppleInternal info:"),
    *("Binary images description not available", "Binary Images Description"),
)
"""Sections with nothing in them that is shown; lines may be empty, and the last ones are the rest of the file."""
_NUMBERS = re.compile(r"(?:#\d+\s+)?0x[0-9A-Fa-f]+(?:,?\s+(?:at\s+)?0x[0-9A-Fa-f]+)*\Z")
_SIGNAL = re.compile(r"\b(SIG[A-Z0-9]{2,10})\b")
_QUEUE = re.compile(r"(?:\A|(?<!\s)\s+|,\s*)Dispatch [Qq]ueue:\s*(.*)\Z")  # each run of blanks is tried once
_EVERY = "EXC_CORPSE_NOTIFY"
"""A note that nearly every report has."""
_IOS_VERSIONS = {"104", "105"}
_BUILD_FIRST = re.compile(r"(?:iPhone OS|iOS|Apple TVOS) (?:\d|1[0-4])\.|Watch OS [1-7]\.")
"""Systems that write text themselves; what Xcode makes of the JSON of later ones has the same `Report Version`."""
_HIGH = 0x7F00_0000_0000
"""Where x86_64 has its shared cache; arm64 has nothing there."""


def field_of(line: str) -> tuple[str, str] | None:
    """Return name and value of a known field. Return None if the line is none."""
    match = _FIELD.match(line)
    return (match[1], match[2].strip()[:MAX_TEXT]) if match and match[1] in _KNOWN else None


def split_label(label: str) -> tuple[str, str]:
    """Return name and dispatch queue of a thread: `NAME  Dispatch queue: QUEUE`."""
    match = _QUEUE.search(label)
    return (label[: match.start()].strip(), match[1].strip()) if match else (label.strip(), "")


def arch_name(code_type: str) -> str:
    """Return the architecture that a report calls `X86-64 (Native)`, `ARM-64`, `ARM64`; empty if it says none."""
    words = code_type.upper().replace("_", "-")
    for start, arch in (
        *(("X86-64", "x86_64"), ("X86", "i386"), ("ARM64-32", "arm64_32"), ("ARM-64", "arm64"), ("ARM64", "arm64")),
        *(("ARM", "armv7"), ("PPC-64", "ppc64"), ("PPC", "ppc")),
    ):
        if words.startswith(start):
            return arch
    return ""


class Fields:
    """The fields of a report; of each, the first counts."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._behind: list[str] = []
        """Lines behind `Termination Reason:`."""
        self._open = ""
        """The field that the last line was of."""

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def add(self, name: str, value: str) -> None:
        """Take a field; codes may be there twice, in words and in numbers."""
        self._open = name
        values = self._values.setdefault(name, [])
        if not values or (name == "Exception Codes" and len(values) < 2):
            values.append(value)

    def continues(self, line: str) -> bool:
        """Take a line that is no field, if it belongs to the field in front of it. Return whether it does."""
        if self._open and not self.get(self._open):  # a mail program has broken the line in front of it
            self._values[self._open] = [line.strip()[:MAX_TEXT]]
            return True
        if self._open != "Termination Reason" or len(self._behind) >= 50:
            return False
        self._behind.append(line.strip()[:MAX_TEXT])
        return True

    def end(self) -> None:
        """Take note of an empty line."""
        self._open = ""

    def get(self, name: str) -> str:
        """Return a field's value, empty if there is none."""
        return self._values.get(name, [""])[0]

    def version(self) -> str:
        """Return the version that users see: of `2.4.1 (241)` the first, of iOS's own `241 (2.4.1)` the second.

        PLCrashReporter and KSCrash write the former on every system, and no `(Native)`.
        """
        first, _, second = self.get("Version").partition(" (")
        ios = self.get("Report Version") in _IOS_VERSIONS and _BUILD_FIRST.match(self.get("OS Version"))
        return second.rstrip(")") or first if ios and "(Native)" in self.get("Code Type") else first

    def system(self) -> tuple[str, str]:
        """Return version and build of the system."""
        return split_system(self.get("OS Version"))

    def arch(self, state: str, images: Sequence[ReportImage]) -> str:
        """Return the architecture of the process: of cut reports, as the kind of registers or the images tell."""
        if known := arch_name(self.get("Code Type")):
            return known
        if known := arch_name(state):  # `X86 Thread State (64-bit)`, but `PPC Thread State 64` of any Power Mac
            return {"i386": "x86_64", "armv7": "arm64"}.get(known, known) if "64" in state else known
        if listed := next((image.arch for image in images if image.arch), ""):
            return arch_name(listed)
        return "x86_64" if any((image.address or 0) > _HIGH for image in images) else "arm64"

    def exception(self) -> CrashException:
        """Return the exception, whose codes older systems have in words where later ones have a subtype."""
        kind = self.get("Exception Type")
        codes = self._values.get("Exception Codes", [])
        words = next((code for code in codes if not _NUMBERS.match(code)), "")
        numbers = next((code for code in codes if _NUMBERS.match(code)), "")
        signal = _SIGNAL.search(kind)
        return exception_of(
            signal[1] if signal else "",
            kind.partition(" (")[0],
            self.get("Exception Subtype") or words,
            numbers,
            self.get("Exception Message"),
        )

    def termination(self) -> Termination | None:
        """Return who ended the process and why, if that is told."""
        reason, signal = self.get("Termination Reason"), self.get("Termination Signal")
        if not (reason or signal):
            return None
        ended = parse_termination(reason, tuple(self._behind), self.get("Terminating Process"))
        if ended.indicator or not signal:
            return ended
        return Termination(ended.namespace, ended.code, signal, ended.reasons, ended.by)

    def cause(self) -> Iterator[str]:
        """Yield what fields say of the cause, what tells most first."""
        yield self.get("Exception Reason")
        if ended := self.termination():
            yield from ended.words()
        exception = self.exception()
        yield exception_words(exception.codes or "", exception.kind or "")
        for name in _SAID[1:]:
            if (value := self.get(name)) and value != _EVERY:
                yield value if name.startswith(("Exception", "Termination")) else f"{name}: {value}"
