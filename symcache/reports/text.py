"""Crash reports as text (`.crash`, and what Console and Xcode make of JSON): section after section.

A section ends at an empty line, and at any line that begins another. Source: Apple's "Examining the fields in a crash
report", and reports of Mac OS X 10.6 to macOS 26.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from symcache.errors import DumpError
from symcache.reports.fields import IGNORED_SECTIONS, Fields, field_of, split_label
from symcache.reports.frames import bare_frames, frame_of, frame_pieces
from symcache.reports.images import NOWHERE, image_of
from symcache.reports.model import (
    MAX_BACKTRACES,
    MAX_FRAMES,
    MAX_IMAGES,
    MAX_INFORMATION,
    MAX_LINE,
    MAX_LINES,
    MAX_TEXT,
    MAX_THREADS,
    Report,
    ReportFrame,
    ReportImage,
    ReportThread,
    printable_lines,
    statements,
)
from symcache.text import excerpt

__all__ = ["parse_crash", "stack_begins", "too_many_lines"]

_THREAD = re.compile(r"Thread (\d{1,7})(?: ([A-Z][a-z]{1,20}))?:(:|\s*\Z|(?=  Dispatch queue: ))?(.*)\Z")
"""`Thread 0 Crashed:: NAME`; with one colon until Mac OS X 10.6, and where other programs write reports.

The third group is None where the line may as well be words that somebody wrote.
"""
_FOREIGN = re.compile(r"Thread (\d{1,7})(?: name: (.*))?\Z")
"""As Sentry writes it: `Thread 1`, `Thread 1 name: NAME`, `Thread 1 name: NAME Crashed:`; frames follow."""
_NAME = re.compile(r"Thread (\d{1,7}) name:\s*(.*)\Z")
_STATE = re.compile(r"(?:Thread (\d{1,7})|Unknown thread) crashed with (.*)\Z")
_OF_A_THREAD = re.compile(r"Thread \d{1,7} (?:instruction stream|last branch register state)")
"""Sections that say nothing here."""
_BLAMED = ("Crashed", "Attributed", "Highlighted")
_BLAMING = ("Crashed Thread", "Triggered by Thread", "Highlighted Thread", "Highlighted by Thread")
"""What headings and fields say of the thread that a report is about: of a crash, of a limit that was crossed."""
_LEADING = re.compile(r"(\d{1,7})\b(.*)\Z")
_REGISTER = re.compile(r"\b([a-z][a-z0-9]{1,5}):\s+0x([0-9A-Fa-f]{1,16})\b")
_BROKEN_REGISTER = re.compile(r"\b[a-z][a-z0-9]{1,5}:\Z")
_INFORMATION, _LAST, _SPECIFIC = (
    *("Application Specific Information:", "Last Exception Backtrace:", "Application Specific Backtrace "),
)
_IMAGES = re.compile(r"Binary Images(?: \([^()]{1,40}\))?:")
_IMAGE_BEGINS = re.compile(r"\s*0x[0-9A-Fa-f]{1,16}\s+-(?:\s|\Z)")
_ADDRESSES = re.compile(r"\s*0x[0-9A-Fa-f]{1,16}\s+-(?:\s+(?:0x[0-9A-Fa-f]{1,16}|\?\?\?))?\Z")
_REST_OF_IMAGE = re.compile(r"\s*/|[^<]*<[0-9A-Fa-f-]{32,36}>")
_MAX_PIECES = 6
"""Lines that an image is looked for in."""
_REGION, _FAILED, _NOTES = "VM Region Info:", "Error Formulating Crash Report:", "Notes:"
_TOLD = (
    *("Dyld Error Message:", "Application Specific Signatures:", _REGION, "Kernel Triage:", "kernel messages:"),
    *("External Modification Warnings:", "Diagnostic Output:", _FAILED, _NOTES),
)
"""Sections whose lines are words that say more of the cause; the last two, of what the reporter failed at."""
_ENDS_A_REPORT = ("Process", "Incident Identifier")
_BEHIND_INFORMATION = ("VM Regions Near ", "Backtrace not available", "Global Trace Buffer", "Filtered syslog:")
"""Of ignored sections, those that may follow words of a program, which may begin as the others do."""
_SKIPPED = IGNORED_SECTIONS[0]
_FENCE = "```"
"""Around what is pasted where Markdown is written."""


def too_many_lines(name: str) -> DumpError:
    """Return the error for a report of more than `MAX_LINES`; `name` stands in its message."""
    return DumpError(f"{name}: more than {MAX_LINES} lines", hint="no crash report has so many: cut off the rest")


def stack_begins(line: str, following: str) -> bool | None:
    """Return None if a line is no heading of a stack, else whether all frames of that stack are return addresses."""
    return False if _heading(line, following) else True if line.startswith((_LAST, _SPECIFIC)) else None


def _heading(line: str, following: str) -> tuple[int, str, str] | None:
    """Return number, mark and label of the thread whose stack a line begins. Return None if it begins none."""
    if (match := _THREAD.match(line)) and (match[3] is not None or frame_of(following)):
        return int(match[1]), match[2] or "", match[4].strip()
    if (match := _FOREIGN.match(line.rstrip())) and frame_of(following):
        name, crashed, _ = (match[2] or "").partition(f" {_BLAMED[0]}:")
        return int(match[1]), crashed.strip(" :"), name
    return None


def parse_crash(text: str, name: str) -> Report:
    """Parse a text report; `name` stands in messages. Raises DumpError."""
    sections = _Sections(name)
    for number, (line, following) in enumerate(itertools.pairwise(itertools.chain(_lines(text), [""]))):
        if number >= MAX_LINES:
            raise too_many_lines(name)
        if not sections.take(line, following):
            break
    return sections.report()


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, those of one frame as one, without holding all of them in memory."""
    start = 0
    while start < len(text):
        pieces = frame_pieces(_written_lines(text, start))
        for _ in pieces:
            start = text.find("\n", start) + 1 or len(text)
        yield " ".join(pieces)


def _written_lines(text: str, start: int) -> Iterator[str]:
    """Yield the lines of a text from a place on, each up to `MAX_LINE`."""
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start : min(end, start + MAX_LINE)]
        start = end + 1


class _Sections:
    """State of the parser: what was read so far, and the section that the next line belongs to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._section = ""
        """Empty among fields."""
        self._thread = 0
        self._marked: dict[str, int] = {}
        """Threads by what their headings say of them; `state`: the one whose registers are listed."""
        self._state = ""
        """Of which kind the registers are."""
        self._fields = Fields()
        self._labels: dict[int, str] = {}
        self._frames: dict[int, list[ReportFrame]] = {}
        self._images: list[ReportImage] = []
        self._image: list[str] = []
        """Lines of the last one."""
        self._listed = False  # whether it is among `_images`
        self._registers: dict[str, int] = {}
        self._register = ""
        """The name of one whose value is broken off."""
        self._last: list[ReportFrame] = []
        self._specific: list[list[ReportFrame]] = []
        self._information: list[str] = []
        self._told: dict[str, list[str]] = {title: [] for title in _TOLD}
        self._unknown = ""
        """The first line that is part of the report, but of nothing that is known."""
        self._unknown_count = 0
        self._more = False  # whether another report follows

    def take(self, line: str, following: str) -> bool:
        """Begin a section, if the line is its title, or else take what the line says. Return whether to go on."""
        line = "" if line.strip() == _FENCE else line
        if self._begin(line, following):
            return not self._more
        if self._section == _INFORMATION:
            if len(self._information) < MAX_INFORMATION:
                self._information.append(line)
        elif not line.strip():
            self._fields.end()
            # Of the list of images and of summaries, the first line may be empty; of a stack, if frames follow.
            begun = self._frames[self._thread] if self._section == "frames" else self._images
            waits = not begun and (self._section == "images" or (self._section == "frames" and frame_of(following)))
            if self._section != _SKIPPED and not waits:
                self._section = ""
        elif not self._read(line):
            if self._fields or self._frames or self._images:  # else it is one of the words in front of a report
                self._unknown = self._unknown or line
                self._unknown_count += 1
            if line.rstrip().endswith(":"):
                self._section = "unknown"
            elif self._section not in {"images", "registers"}:
                self._section = ""
        return True

    def _begin(self, line: str, following: str) -> bool:
        if not line[:1].isupper() and not line.startswith("kernel "):
            return False
        if heading := _heading(line, following):
            self._begin_thread(*heading)
        elif _THREAD.match(line):
            return False
        elif match := _NAME.match(line):
            self._thread, self._section = int(match[1]), "name"
            self._labels.setdefault(self._thread, match[2][:MAX_TEXT].strip())
        elif match := _STATE.match(line):
            self._section = "" if self._registers else "registers"
            self._state = self._state or match[2]
            if match[1]:
                self._marked.setdefault("state", int(match[1]))
        elif match := _IMAGES.match(line):
            self._section = "images" if not self._images or "(" in match[0] else "unknown"
        elif line.startswith(_INFORMATION) and not self._information:
            self._section = _INFORMATION
        elif line.startswith(_LAST):
            self._section = "unknown" if self._last else _LAST
        elif line.startswith(_SPECIFIC):
            self._section = _SPECIFIC if len(self._specific) < MAX_BACKTRACES else _SKIPPED
            if self._section == _SPECIFIC:
                self._specific.append([])
        elif (title := next((title for title in _TOLD if line.startswith(title)), "")) and (
            title != _NOTES or self._section != _INFORMATION
        ):
            self._section = title if title != _REGION else _SKIPPED  # below is a table
            self._told[title] += filter(None, [line[len(title) :].strip()])
        elif line.startswith(
            _BEHIND_INFORMATION if self._section == _INFORMATION else IGNORED_SECTIONS
        ) or _OF_A_THREAD.match(line):
            self._section = _SKIPPED
        elif self._section != _INFORMATION and (known := field_of(line)):
            self._section = ""
            self._more = known[0] in _ENDS_A_REPORT and bool(self._images and self._frames) and known[0] in self._fields
            self._fields.add(*known)
        else:
            return False
        return True

    def _begin_thread(self, number: int, mark: str, label: str) -> None:
        """Begin the stack of a thread, whose first one counts."""
        if self._frames.get(number):
            self._section = "unknown"
            return
        if number not in self._frames and len(self._frames) >= MAX_THREADS:
            raise DumpError(f"{self._name}: more than {MAX_THREADS} threads", hint="no process has so many")
        self._thread, self._section = number, "frames"
        self._frames.setdefault(number, [])
        if label:
            self._labels[number] = label[:MAX_TEXT]
        if mark:
            self._marked.setdefault(mark, number)

    def _read(self, line: str) -> bool:
        """Take a line of a section. Return whether it is one of it."""
        if self._section == "images":
            return self._read_image(line)
        if self._section in {"frames", _LAST, _SPECIFIC}:
            return self._read_frame(line)
        if self._section == "name":
            return self._continues_label(line)
        if self._section == "registers":
            line = f"{self._register} {line.rstrip()}"
            self._register = match[0] if (match := _BROKEN_REGISTER.search(line)) else ""
            found = _REGISTER.findall(line)
            self._registers |= {key: int(value, 16) for key, value in found}
            return bool(found or self._register) or "<unavailable>" in line
        if self._section in self._told:
            if len(self._told[self._section]) < MAX_INFORMATION:
                self._told[self._section].append(line.strip())
            return True
        if self._section:
            return self._section == _SKIPPED
        return self._fields.continues(line)

    def _read_frame(self, line: str) -> bool:
        thrown = self._last if self._section == _LAST else self._specific[-1] if self._specific else []
        stack = self._frames[self._thread] if self._section == "frames" else thrown
        if len(stack) >= MAX_FRAMES and line.lstrip()[:1].isdigit():
            return True
        if frame := frame_of(line):
            stack.append(frame)
            return True
        if self._section == "frames" and not stack and self._continues_label(line):
            return True
        bare = bare_frames(line) if self._section != "frames" and not stack else []
        stack += bare
        return bool(bare)

    def _continues_label(self, line: str) -> bool:
        """Take the queue of a thread, which was wrapped, too. Return whether a line is one."""
        label = self._labels.get(self._thread, "")
        if label.endswith(" queue:"):
            self._labels[self._thread] = f"{label} {line.strip()}"[:MAX_TEXT]
        return label.endswith(" queue:")

    def _read_image(self, line: str) -> bool:
        if _IMAGE_BEGINS.match(line):
            self._image, self._listed = [line.rstrip()], False
        elif 0 < len(self._image) < _MAX_PIECES and (not self._listed or self._is_rest_of_image(line)):
            self._image.append(line.strip())
        else:
            return False
        written = " ".join(self._image)
        if (image := image_of(written)) is None:
            self._image = self._image if _ADDRESSES.match(written) else []
            return bool(self._image)
        if self._listed:
            self._images.pop()
        if len(self._images) >= MAX_IMAGES:
            raise DumpError(f"{self._name}: more than {MAX_IMAGES} binary images", hint="no process has so many")
        if image.uuid or image.path != NOWHERE:
            self._images.append(image)
            self._listed = True
        else:
            self._image = []
        return True

    def _is_rest_of_image(self, line: str) -> bool:
        """Return whether a line is UUID or path of the last image, which a mail program has broken off."""
        return "/" not in self._images[-1].path and bool(_REST_OF_IMAGE.match(line))

    def _blamed(self) -> Iterator[tuple[int, str]]:
        """Yield the threads that the report may be about, the likeliest first, with name and queue as told there."""
        marks = (self._marked.get(mark) for mark in (_BLAMED[0], "state", *_BLAMED[1:]))
        yield from ((number, "") for number in marks if number is not None)
        told = (_LEADING.match(self._fields.get(field)) for field in _BLAMING)
        yield from ((int(match[1]), match[2].lstrip(", ")) for match in told if match)

    def report(self) -> Report:
        """Return all that was read."""
        fields, order = self._fields, sorted(self._frames)
        blamed = list(self._blamed())
        crashed = next((number for number, _ in blamed if number in self._frames), None)
        label = next((label for number, label in blamed if number == crashed and label), "")
        if crashed is not None and label:
            self._labels.setdefault(crashed, label)
        version, build = fields.system()
        return Report(
            executable=fields.get("Path") or fields.get("Process").partition(" [")[0],
            bundle_version=fields.version(),
            os_version=version,
            os_build=build,
            arch=fields.arch(self._state, self._images),
            exception=fields.exception(),
            images=tuple(self._images),
            threads=tuple(
                ReportThread(number, *split_label(self._labels.get(number, "")), tuple(self._frames[number]))
                for number in order
            ),
            crashed_thread=None if crashed is None else order.index(crashed),
            registers=self._registers,
            last_exception=tuple(self._last),
            application_backtraces=tuple(tuple(frames) for frames in self._specific if frames),
            information=printable_lines(self._information),
            termination=fields.termination(),
            cause=statements([*fields.cause(), *(line for title in _TOLD[:-2] for line in self._told[title])]),
            notes=statements([*self._told[_FAILED], *self._told[_NOTES], *self._notes(blamed, crashed)]),
        )

    def _notes(self, blamed: list[tuple[int, str]], crashed: int | None) -> Iterator[str]:
        if blamed and crashed is None:
            yield f"thread {blamed[0][0]}, which it blames, is not among those that it lists"
        if not self._images:
            yield "the list of binary images is missing: only what the report itself says of its frames is known"
        if self._more:
            yield "another report follows in the file, and is left out"
        if self._unknown:
            lines = f"{self._unknown_count} line" + ("" if self._unknown_count == 1 else "s")
            yield f"not understood: {lines}, the first of which is {excerpt(self._unknown, 80)!r}"
