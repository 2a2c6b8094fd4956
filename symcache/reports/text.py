"""Crash reports as text (`.crash`): fields, threads, registers, images, section after section.

Source: Apple's "Examining the fields in a crash report".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from symcache.errors import DumpError
from symcache.reports.frames import frame_of
from symcache.reports.model import (
    MAX_FRAMES,
    MAX_IMAGES,
    MAX_INFORMATION,
    MAX_LINE,
    MAX_TEXT,
    MAX_THREADS,
    Report,
    ReportFrame,
    ReportImage,
    ReportThread,
    exception_of,
    printable_lines,
    split_system,
    uuid_of,
)

__all__ = ["parse_crash"]

# `0x7ff80f1d5000 - 0x7ff80f26dfff libsystem_c.dylib (*) <23516be4-…> /usr/lib/system/libsystem_c.dylib`; a plus marks
# what is not Apple's, iOS writes the architecture before the UUID, and an end that nobody knew is `???`.
_IMAGE = re.compile(r"\s*0x([0-9A-Fa-f]{1,16})\s+-\s+(\S+)\s+(\S[^<]*)(?:<([^<>]*)>\s*(.*))?\Z")
_NOWHERE = "???"
"""Under which frames in no image are gathered."""
_END = re.compile(r"0x[0-9A-Fa-f]{1,16}")
_ARCHS = {"x86_64", "x86_64h", "arm64", "arm64e", "arm64_32", "armv7", "armv7s", "armv7k", "i386"}
_THREAD = re.compile(r"Thread (\d{1,5})(?: ([A-Z][a-z]{1,20}))?:(:|\s*\Z|(?=  Dispatch queue: ))?(.*)\Z")
"""`Thread 0 Crashed:: NAME`; with one colon until Mac OS X 10.6, and where other programs write reports.

The third group is None where the line may as well be words that somebody wrote.
"""
_BLAMED = ("Crashed", "Attributed", "Highlighted")
"""What the heading says of the thread that a report is about: of a crash, of a limit that was crossed."""
_BLAMING = ("Crashed Thread", "Triggered by Thread", "Highlighted Thread", "Highlighted by Thread")
"""The fields that say so."""
_INFORMATION = "Application Specific Information:"
_LAST, _SPECIFIC = "Last Exception Backtrace:", "Application Specific Backtrace "
_BARE_FRAMES = re.compile(r"\s*\((0x[0-9A-Fa-f]{1,16}(?:\s+0x[0-9A-Fa-f]{1,16})*)\)\s*\Z")
"""The whole of a last exception's backtrace, as systems write it that have not looked for names."""
_NAME = re.compile(r"Thread (\d{1,5}) name:\s*(.*)\Z")
_STATE = re.compile(r"Thread (\d{1,5}) crashed with ")
_REGISTER = re.compile(r"\b([a-z][a-z0-9]{1,5}):\s+0x([0-9A-Fa-f]{1,16})\b")
_FIELD = re.compile(r"([A-Z][A-Za-z ]{1,30}):\s*(.*)\Z")
_LEADING = re.compile(r"\d{1,5}\b")
_SIGNAL = re.compile(r"\b(SIG[A-Z]{2,10})\b")


def parse_crash(text: str, name: str) -> Report:
    """Parse a text report; `name` stands in messages. Raises DumpError."""
    sections = _Sections(name)
    for line in text.splitlines():
        sections.take(line[:MAX_LINE])
    if not sections.listed:
        raise DumpError(
            f"{name}: names no modules: it has no list of binary images", hint="name a .zip, .ips or .crash"
        )
    fields, frames, names = sections.fields, sections.frames, sections.names
    order = sorted(frames)
    blamed = next((number for number in sections.blamed() if number in frames), None)
    kind = fields.get("Exception Type", "")
    version, build = split_system(fields.get("OS Version", ""))
    exception = exception_of(
        _match(_SIGNAL, kind),
        kind.partition(" (")[0],
        fields.get("Exception Subtype") or fields.get("Exception Codes", ""),
    )
    return Report(
        executable=fields.get("Path") or fields.get("Process", "").partition(" [")[0],
        bundle_version=fields.get("Version", "").partition(" (")[0],
        os_version=version,
        os_build=build,
        arch="arm64" if fields.get("Code Type", "").upper().startswith("ARM") else "x86_64",
        exception=exception,
        images=tuple(sections.images),
        threads=tuple(ReportThread(number, names.get(number, ""), tuple(frames[number])) for number in order),
        crashed_thread=0 if blamed is None else order.index(blamed),
        registers=sections.registers,
        last_exception=tuple(sections.thrown[_LAST] or sections.thrown[_SPECIFIC]),
        information=printable_lines(sections.information),
    )


class _Sections:
    """What was read so far, and of which section the next line is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._section = "fields"
        self._thread = 0
        self._marked: dict[str, int] = {}
        """Threads by what their headings say of them; `state`: the one whose registers are listed."""
        self.fields: dict[str, str] = {}
        self.names: dict[int, str] = {}
        self.frames: dict[int, list[ReportFrame]] = {}
        self.images: list[ReportImage] = []
        self.registers: dict[str, int] = {}
        self.thrown: dict[str, list[ReportFrame]] = {_LAST: [], _SPECIFIC: []}
        """Frames of exceptions, by the section's title."""
        self.information: list[str] = []
        self.listed = False
        """Whether there is a list of images."""

    def take(self, line: str) -> None:
        """Begin a section, if the line is its title, or else take what the line says."""
        certain = (heading := _THREAD.match(line)) and heading[3] is not None
        if self._section == _INFORMATION and line.strip() and not certain:
            if len(self.information) < MAX_INFORMATION:
                self.information.append(line)
        elif not self._begin(line):
            self._read(line)

    def blamed(self) -> Iterator[int]:
        """Yield the threads that the report may be about, the likeliest first."""
        marks = (self._marked.get(mark) for mark in (_BLAMED[0], "state", *_BLAMED[1:]))
        yield from (number for number in marks if number is not None)
        numbers = (_LEADING.match(self.fields.get(field, "")) for field in _BLAMING)
        yield from (int(number[0]) for number in numbers if number)

    def _begin(self, line: str) -> bool:
        if match := _THREAD.match(line):
            self._begin_thread(int(match[1]), match[2] or "", match[4].strip(), certain=match[3] is not None)
        elif match := _STATE.match(line):
            self._section = "registers"
            self._marked.setdefault("state", int(match[1]))
        elif line.startswith("Binary Images:") and not self.images:
            self._section, self.listed = "images", True
        elif line.startswith(_INFORMATION) and not self.information:
            self._section = _INFORMATION
        elif title := next((t for t, frames in self.thrown.items() if line.startswith(t) and not frames), None):
            self._section = title
        else:
            return False
        return True

    def _begin_thread(self, number: int, mark: str, name: str, *, certain: bool) -> None:
        """Begin the stack of a thread, whose first one counts; if its heading is not `certain`, its frames decide."""
        if self.frames.get(number):
            self._section = "fields"
            return
        self._thread, self._section = number, "frames"
        if certain:
            self._stack()
        if name and (certain or number not in self.names):
            self.names[number] = name[:MAX_TEXT]
        if mark:
            self._marked.setdefault(mark, number)

    def _stack(self) -> list[ReportFrame]:
        """Return the frames that this section adds to."""
        if self._section in self.thrown:
            return self.thrown[self._section]
        if self._thread not in self.frames and len(self.frames) >= MAX_THREADS:
            raise DumpError(f"{self._name}: more than {MAX_THREADS} threads")
        return self.frames.setdefault(self._thread, [])

    def _read(self, line: str) -> None:
        if match := _NAME.match(line):
            self._section = "fields"
            self.names.setdefault(int(match[1]), match[2][:MAX_TEXT].strip())
        elif self._section == "frames" or self._section in self.thrown:
            self._read_frame(line)
        elif self._section == _INFORMATION:
            self._section = "fields"
        elif self._section == "registers":
            self.registers |= {key: int(value, 16) for key, value in _REGISTER.findall(line)}
        elif self._section == "images":
            self._read_image(line)
        elif self._section == "fields" and (match := _FIELD.match(line)):
            self.fields.setdefault(match[1], match[2].strip()[:MAX_TEXT])

    def _read_frame(self, line: str) -> None:
        """Take a frame; any other line is the end of the stack, whatever it begins."""
        if frame := frame_of(line):
            if len(stack := self._stack()) < MAX_FRAMES:
                stack.append(frame)
        else:
            if self._section == _LAST and not self.thrown[_LAST] and (match := _BARE_FRAMES.match(line)):
                self.thrown[_LAST] += [ReportFrame(int(one, 16)) for one in match[1].split()[:MAX_FRAMES]]
            self._section = "fields"

    def _read_image(self, line: str) -> None:
        if match := _IMAGE.match(line):
            if len(self.images) >= MAX_IMAGES:
                raise DumpError(f"{self._name}: more than {MAX_IMAGES} binary images")
            image = _crash_image(match)
            if image.uuid or image.path != _NOWHERE:
                self.images.append(image)
        elif self.images and not line.strip():
            self._section = "rest"


def _crash_image(match: re.Match[str]) -> ReportImage:
    named, slash, bare = (match[3], "", "") if match[4] is not None else match[3].partition(" /")  # without a UUID
    start, words = int(match[1], 16), named.split()
    size = max(0, int(match[2], 16) + 1 - start) if _END.fullmatch(match[2]) else 0
    path = (match[5] or slash[1:] + bare).strip() or words[0].lstrip("+")
    arch = next((word for word in reversed(words) if word in _ARCHS), "")
    return ReportImage(start, size, path[:MAX_TEXT], uuid_of(match[4]), arch)


def _match(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
