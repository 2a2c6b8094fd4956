"""Frames of crash reports as lines of text.

`2   Ledger                        \t0x0000000104321a2c -[LedgerBook open:] + 44 (LedgerBook.m:12)`: number, image,
a tab, address; then what its writer knows of the address, whose forms are many. Source: Apple's "Examining the fields
in a crash report", and reports of Mac OS X 10.6 to macOS 26.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from symcache.reports.model import MAX_FRAMES, MAX_LINE, MAX_NAME, MAX_TEXT, ReportFrame

__all__ = ["frame_of", "frames_of"]

_ADDRESS = r"(0x[0-9A-Fa-f]{1,16}|0{1,18})"
"""Null is written as nothing but zeros."""
_TABBED = re.compile(rf"\s*\d{{1,5}}\s+(\S[^\t]*)\t\s*{_ADDRESS}(?=\s|\Z)")
"""Image names may hold anything but a tab: blanks, parentheses, even ` 0x1 `."""
_NUMBER = re.compile(r"\s*\d{1,5}\s+(?=\S)")
_UNTABBED = re.compile(r"\s(0x[0-9A-Fa-f]{1,16}|0{10}|0{18})(?=\s|\Z)")
"""The address where somebody's mail program has made blanks of the tab."""
_SOURCE = re.compile(r" \(([^()]+):(\d{1,9})\)\Z")
_INLINED = " [inlined]"
_IN_IMAGE = re.compile(r" \(in [^()]+\)\Z")
"""As atos writes it."""
_OFFSET = re.compile(r"(?:(.*) )?\+ (0x[0-9A-Fa-f]{1,15}|\d{1,18})\Z")
"""The last plus: Swift and C++ names have some, too."""
_NO_NAME = re.compile(r"(?:0x[0-9A-Fa-f]+|\d+|\?\?\?|<redacted>)?\Z")
"""In place of a name: the image's address, nothing where there is no image; old iOS told no names of its own."""


def frame_of(line: str) -> ReportFrame | None:
    """Return the frame that a line of a backtrace describes. Return None if it describes none."""
    line = line[:MAX_LINE]
    if match := _TABBED.match(line):
        image, address = match[1].rstrip(), match[2]
    elif (number := _NUMBER.match(line)) and (match := _UNTABBED.search(line, number.end())):
        image, address = line[number.end() : match.start()].rstrip(), match[1]
    else:
        return None
    rest, file, source_line = line[match.end() :].strip(), "", None
    before, comment, name = rest.partition(" // ")
    if comment and before.startswith("0x"):  # of jailbroken phones: `0xBASE + 0xe0c // name + 0x8`
        rest = name
    if source := _SOURCE.search(rest):
        rest = rest[: source.start()]
        if int(source[2]):  # of code that no line stands for: `<compiler-generated>:0`
            file, source_line = source[1][:MAX_TEXT], int(source[2])
    inlined = rest.endswith(_INLINED)
    rest, offset = rest.removesuffix(_INLINED), None
    if plus := _OFFSET.match(rest):
        rest, offset = plus[1] or "", int(plus[2], 16 if plus[2].startswith("0x") else 10)
    function = _IN_IMAGE.sub("", rest)
    if _NO_NAME.match(function) or (offset is not None and function == image):
        function, offset = "", None
    named = "" if image == "???" else image[:MAX_TEXT]
    return ReportFrame(int(address, 16), function[:MAX_NAME], offset, file, source_line, inlined, None, named)


def frames_of(lines: Iterable[str]) -> list[ReportFrame]:
    """Return the frames of a backtrace that is text, a frame a line."""
    return list(itertools.islice(filter(None, map(frame_of, lines)), MAX_FRAMES))
