"""Frames of crash reports as lines of text.

`2   Ledger                        \t0x0000000104321a2c -[LedgerBook open:] + 44 (LedgerBook.m:12)`: number, image,
a tab, address; then what its writer knows of the address, whose forms are many. Source: Apple's "Examining the fields
in a crash report", and reports of Mac OS X 10.6 to macOS 26.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from symcache.reports.model import MAX_FRAMES, MAX_LINE, MAX_NAME, MAX_TEXT, ReportFrame

__all__ = ["FrameLine", "bare_frames", "frame_of", "frame_pieces", "frames_of", "split_frame"]

_ADDRESS = r"(0x[0-9A-Fa-f]{1,16}|0{1,18})"
"""Null is written as nothing but zeros."""
_TABBED = re.compile(rf"\s*\d{{1,5}}\s+(\S[^\t]*)\t\s*{_ADDRESS}(?=\s|\Z)")
"""Image names may hold anything but a tab: blanks, parentheses, even ` 0x1 `."""
_NUMBER = re.compile(r"\s*\d{1,5}(?=\s)")
_UNTABBED = re.compile(r"\s(0x[0-9A-Fa-f]{1,16}|0{10}|0{18})(?=\s|\Z)")
"""The address where a mail program has made blanks of the tab, or no name of an image stands in front of it."""
_COMMENT = re.compile(
    r"0x[0-9A-Fa-f]+ \+ (?:0x[0-9A-Fa-f]+|\d+)"
    r"(?:\s+// (?:(?P<file>/.*):(?P<line>\d{1,9})|(?P<name>.*))| \((?P<beside>.* \+ \d{1,18})\))\Z"
)
"""What other reporters know beside `0xBASE + 3596`: those of jailbroken phones, behind blanks and a tab, `// name + 8`
or `// /path/file.m:8`; KSCrash ` (name + 8)`."""
_SOURCE = re.compile(r" \(([^()]+):(\d{1,9})\)\Z")
_INLINED, _INLINED_BEFORE = " [inlined]", "[inlined] "
"""The latter is Sentry's."""
_UNSURE = " [nearest]"
"""Written by us: the function may begin behind the symbol."""
_MISPLACED = re.compile(r"(?<=[^\s+])\+ \d{1,12} \(")
"""Xcode's symbolicatecrash puts the offset from the image in front of the first parenthesis of a name, too."""
_IN_IMAGE = re.compile(r" \(in [^()]+\)\Z")
"""As atos writes it."""
_OFFSET = re.compile(r"(?:(.*) )?\+ (0x[0-9A-Fa-f]{1,15}|\d{1,18})\Z")
"""The last plus: Swift and C++ names have some, too."""
_NO_NAME = re.compile(r"(?:0x[0-9A-Fa-f]+|\d+|\?\?\?|<redacted>|<unknown>)?\Z")
"""In place of a name: the image's address, nothing where there is no image; old iOS told no names of its own."""

_BEGUN = re.compile(r"\s*\d{1,5}\s+[^\s:][^:\t]*\Z")
"""A frame's line that was broken in front of its address."""
_WHOLE = re.compile(r"(?:(?:\s|\A)\+ (?:0x[0-9A-Fa-f]{1,16}|\d{1,18})\)?|\(\S[^()]*:\d{1,9}\)|\[inlined\])\s*\Z")
"""What the line of a frame ends with."""
_MAX_PIECES = 8
"""Lines that one frame is looked for in; mail programs break C++ names at each blank."""
_BARE = re.compile(r"\s*\((0x[0-9A-Fa-f]{1,16}(?:\s+0x[0-9A-Fa-f]{1,16})*+)\)\s*\Z")
"""The whole of a last exception's backtrace, as systems write it that have not looked for names."""


class FrameLine(NamedTuple):
    """The columns of a frame in a line of text; what is behind `end` tells what is there."""

    image: str
    address: int
    end: int
    """Where the column of the address ends."""


def split_frame(line: str) -> FrameLine | None:
    """Return the columns of a line of a backtrace. Return None if it has none."""
    line = line[:MAX_LINE]
    if match := _TABBED.match(line):
        return FrameLine(match[1].rstrip(), int(match[2], 16), match.end())
    if (number := _NUMBER.match(line)) and (match := _UNTABBED.search(line, number.end())):
        return FrameLine(line[number.end() : match.start()].strip(), int(match[1], 16), match.end())
    return None


def frame_of(line: str) -> ReportFrame | None:
    """Return the frame that a line of a backtrace describes. Return None if it describes none."""
    if (columns := split_frame(line)) is None:
        return None
    image, address, end = columns
    rest, file, source_line = line[end:MAX_LINE].strip(), "", None
    if source := _COMMENT.match(rest):
        rest = source["name"] or source["beside"] or ""
    elif source := _SOURCE.search(rest):
        rest = rest[: source.start()]
    if source and source[1] and int(source[2]):  # of code that no line stands for: `<compiler-generated>:0`
        file, source_line = source[1][:MAX_TEXT], int(source[2])
    inlined = rest.endswith(_INLINED) or rest.startswith(_INLINED_BEFORE)
    rest, offset = rest.removeprefix(_INLINED_BEFORE).removesuffix(_INLINED).removesuffix(_UNSURE), None
    if plus := _OFFSET.match(rest):
        rest, offset = plus[1] or "", int(plus[2], 16 if plus[2].startswith("0x") else 10)
    function = _MISPLACED.sub("(", _IN_IMAGE.sub("", rest), count=1)
    if _NO_NAME.match(function) or (offset is not None and function == image):
        function, offset = "", None
    named = "" if image == "???" else image[:MAX_TEXT]
    return ReportFrame(address, function[:MAX_NAME], offset, file, source_line, inlined, None, named)


def frame_pieces(lines: Iterable[str]) -> list[str]:
    """Return the first of these lines, and those behind it that a mail program has broken off, if it is of a frame."""
    following = iter(lines)
    pieces = [next(following, "").rstrip()]
    if not pieces[0].lstrip()[:1].isdigit():
        return pieces
    columns = split_frame(pieces[0])
    if columns is None and not _BEGUN.match(pieces[0]):
        return pieces
    named = columns is not None and columns.end < len(pieces[0])
    whole = 1
    for line in itertools.islice(following, _MAX_PIECES - 1):
        piece = line.strip()
        if not piece or piece.endswith(":") or (_NUMBER.match(line) and not pieces[-1].endswith("+")):
            break
        if _WHOLE.search(" ".join(pieces[-2:])) and not piece.startswith(("(", "//")):  # source line, other name
            break
        pieces.append(piece)
        if _WHOLE.search(" ".join(pieces[-2:])) or not named:
            if frame_of(" ".join(pieces)) is None:
                break
            whole, named = len(pieces), True
    return pieces[:whole]


def bare_frames(line: str) -> list[ReportFrame]:
    """Return the frames of a backtrace that is one line of addresses in parentheses; none if it is something else."""
    match = _BARE.match(line)
    return [ReportFrame(int(one, 16)) for one in match[1].split()[:MAX_FRAMES]] if match else []


def frames_of(lines: Iterable[str]) -> list[ReportFrame]:
    """Return the frames of a backtrace that is text, a frame a line."""
    return list(itertools.islice(filter(None, map(frame_of, lines)), MAX_FRAMES))
