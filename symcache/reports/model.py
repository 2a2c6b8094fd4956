"""What a crash report of macOS says, whatever its format: images, threads, what happened."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from symcache.crash import CrashException
from symcache.reports.termination import Termination
from symcache.text import printable

__all__ = ["Report", "ReportFrame", "ReportImage", "ReportThread"]

MAX_IMAGES = 65_536
MAX_THREADS = 16_384
MAX_FRAMES = 4096
"""Of one thread; Apple's own writer stops at 512."""
MAX_TEXT = 1024
MAX_NAME = 8192
"""Characters of a function's name; the longest demangled ones of real programs have some thousand."""
MAX_LINE = 16_384
"""Characters of a line of text; what is behind them is left out."""
MAX_LINES = 1_000_000
"""Of a file; each is looked at by itself, wherever it stands."""
MAX_BACKTRACES = 16
"""Application-specific ones."""
MAX_INFORMATION = 200
"""Lines."""
ADDRESS_END = 1 << 64
UUID_PATTERN = r"[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}"
_SYSTEM = re.compile(r"(.*?)\s*\(([A-Za-z0-9._-]{1,64})\)\s*\Z")
"""Version and build of macOS."""
_AT = re.compile(r"\bat 0x([0-9A-Fa-f]{1,16})\b")
_ACCESS = re.compile(r"KERN_|SEGV_|BUS_")
"""What codes say of an access that failed: Mach's, and those of programs that catch signals."""
_ZEROS = re.compile(r"[0x, ]*\Z")
_ACCESS_CODES = re.compile(r"0x0*(?!d,)[1-9A-Fa-f][0-9A-Fa-f]*,\s*0x([0-9A-Fa-f]{1,16})\b")
"""Kind and address of an access; a general protection fault (13) has none."""


@dataclass(frozen=True, slots=True)
class ReportFrame:
    """One frame, and what the report itself knows of it: the machine that wrote it may have had symbols."""

    address: int
    """Program counter; below the top of a thread, a return address. 0 where a null pointer was called."""
    function: str = ""
    offset: int | None = None
    """Bytes from the function's start."""
    file: str = ""
    line: int | None = None
    inlined: bool = False
    """The function was inlined into that of the next frame, which has the same address."""
    base: int | None = field(default=None, compare=False)
    """Address of the image that the report says the frame is in; None where only the address tells."""
    image: str = field(default="", compare=False)
    """As the text calls it: a file name, a bundle identifier, or the end of one. Its address tells which it is."""


@dataclass(frozen=True, slots=True)
class ReportThread:
    """One thread, top frame first."""

    index: int
    """Its number in the report, where threads may be missing."""
    name: str
    queue: str
    frames: tuple[ReportFrame, ...]

    @property
    def label(self) -> str:
        """Name and dispatch queue, as Apple writes both: `NAME  Dispatch queue: QUEUE`."""
        return "  ".join(part for part in (self.name, self.queue and f"Dispatch queue: {self.queue}") if part)


@dataclass(frozen=True, slots=True)
class ReportImage:
    """One image that was loaded, as the report lists it."""

    address: int | None
    size: int
    """In bytes; 0 where the report does not say."""
    path: str
    """Or its name, where the report has no path."""
    uuid: UUID | None
    arch: str
    """Empty where the report does not say."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a crash report says. Texts are empty where it does not say."""

    executable: str
    """Path of the program, or its name."""
    bundle_version: str
    os_version: str
    """Such as `macOS 13.6.9`."""
    os_build: str
    """Such as `22G830`."""
    arch: str
    """`arm64` or `x86_64`."""
    exception: CrashException
    images: tuple[ReportImage, ...]
    """In the order of the report."""
    threads: tuple[ReportThread, ...]
    crashed_thread: int | None
    """Position in `threads` of the thread that the report blames; None if it blames none, or one that is not there."""
    registers: dict[str, int]
    """Of the crashed thread."""
    cache_uuid: UUID | None = None
    """UUID of the shared cache that was mapped."""
    cache_base: int | None = None
    """Where the shared cache began in the crashed process."""
    last_exception: tuple[ReportFrame, ...] = ()
    """From where an uncaught exception was thrown, the innermost first; all of them return. Empty if none was."""
    application_backtraces: tuple[tuple[ReportFrame, ...], ...] = ()
    """Likewise, backtraces that the program left to be reported: AppKit does of exceptions that it has caught."""
    information: tuple[str, ...] = ()
    """Application-specific information: what libraries and program left to be reported, line by line."""
    termination: Termination | None = None
    cause: tuple[str, ...] = ()
    """Why the process ended, in words: all that the report tells beside signal and application-specific information."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is wanting in the report, by its writer and by its reader, in words."""

    @property
    def thrown(self) -> tuple[ReportFrame, ...]:
        """From where an exception was thrown; one that was caught before the process ended, as the program tells."""
        return self.last_exception or next(iter(self.application_backtraces), ())


def printable_lines(messages: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of messages that are not empty, printable, as many and as long as are kept."""
    lines = (line.replace("\t", " ") for message in messages for line in message.splitlines())
    kept = (printable(line[:MAX_TEXT]).rstrip() for line in lines)
    return tuple(itertools.islice(filter(None, kept), MAX_INFORMATION))


def statements(messages: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of messages as `printable_lines` does, stripped, each once."""
    return tuple(dict.fromkeys(line.strip() for line in printable_lines(messages)))


def physical_frames(frames: Iterable[ReportFrame]) -> list[list[ReportFrame]]:
    """Group frames by those of the stack: each behind what was inlined into it, all of one address."""
    groups: list[list[ReportFrame]] = []
    for frame in frames:
        if not groups or not (last := groups[-1][-1]).inlined or last.address != frame.address:
            groups.append([])
        groups[-1].append(frame)
    return groups


def exception_of(signal: str, kind: str, subtype: str, codes: str, message: str = "") -> CrashException:
    """Return the exception that a report has in words.

    Where no words say so, the second code of an access that failed is its address.
    """
    detail = subtype or ("" if _ZEROS.match(codes) else codes)
    at = _AT.search(subtype) if kind == "EXC_BAD_ACCESS" or _ACCESS.match(subtype) else None
    if at is None and kind == "EXC_BAD_ACCESS" and not subtype:
        at = _ACCESS_CODES.match(codes)
    words = ", ".join(word for word in (kind, detail) if word and word != signal)
    description = f"{signal}: {words}" if signal and words else signal or words or "the report names no exception"
    return CrashException(
        *(description, signal or None, int(at[1], 16) if at else None),
        kind=kind or None,
        subtype=subtype or None,
        codes=codes or None,
        message=message or None,
    )


def split_system(text: str) -> tuple[str, str]:
    """Split `macOS 13.6.9 (22G830)`; two empty strings where it is nothing of the kind."""
    match = _SYSTEM.match(text)
    return (match[1], match[2]) if match else ("", "")


def uuid_of(value: Any) -> UUID | None:
    """Return the UUID that `value` is the text of. Return None for anything else, and for a UUID of zeros."""
    if not isinstance(value, str) or not re.fullmatch(UUID_PATTERN, value):
        return None
    uuid = UUID(value)
    return uuid if uuid.int else None
