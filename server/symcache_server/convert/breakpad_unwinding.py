"""STACK CFI records of an image: what `__eh_frame` tells, and `__unwind_info` where that tells nothing.

`symbolic` reads `__eh_frame` whole only where there is no `__unwind_info`; otherwise only what that refers to. But what
is compact holds for a function as a whole, not for its first instructions, while `__eh_frame` is exact for each of
them. Linkers keep both where they are told to (`-keep_dwarf_unwind`), as in system libraries of x86_64.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from symcache.macho import sections

__all__ = ["unwinding_records"]

_HEAD = 4 << 20
"""Load commands beyond this many bytes are not looked at."""
_INIT = "STACK CFI INIT "


class _Rules(NamedTuple):
    """One STACK CFI INIT record and those that follow it."""

    start: int
    end: int
    lines: list[str]


def unwinding_records(thing: Any, image: memoryview) -> str:
    """Return the records of one image, or "". `thing` is the image as an object of `symbolic`, `image` its bytes.

    Raises SymbolicError.
    """
    compact = _records(thing)
    by_name = {section.sectname: section for section in sections(bytes(image[:_HEAD]), len(image))}
    if "__eh_frame" not in by_name or "__unwind_info" not in by_name:
        return compact
    rules = [r for r in _rules(_records_of_eh_frame(image)) if ".cfa:" in r.lines[0] and ".ra:" in r.lines[0]]
    return "".join("".join(r.lines) for r in _united(rules, _rules(compact)))


def _records(thing: Any) -> str:
    records: bytes = thing.make_cficache().open_stream().read()
    start = records.find(b"STACK CFI")  # behind a preamble, in some versions
    return records[start:].decode("utf-8", "replace") if start >= 0 else ""


def _records_of_eh_frame(image: memoryview) -> str:
    """Return what `symbolic` tells of the image as if it had no `__unwind_info`; "" if it cannot read it."""
    from symbolic.debuginfo import Archive  # noqa: PLC0415
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415

    # The name of the section in its load command, which is in front of the name of its segment.
    head = bytes(image[:_HEAD]).replace(b"__unwind_info\0\0\0__TEXT\0", b"__hidden_info\0\0\0__TEXT\0", 1)
    hidden = b"".join((head, image[_HEAD:]))
    try:
        archive = Archive.from_bytes(hidden)  # which keeps no reference to them
        return "".join(_records(thing) for thing in archive.iter_objects())
    except SymbolicError:
        return ""


def _rules(records: str) -> Iterator[_Rules]:
    current: _Rules | None = None
    for line in records.splitlines(keepends=True):
        if line.startswith(_INIT):
            if current:
                yield current
            start, size = (int(number, 16) for number in line.split(maxsplit=5)[3:5])
            current = _Rules(start, start + size, [line])
        elif current:
            current.lines.append(line)
    if current:
        yield current


def _united(first: Sequence[_Rules], second: Iterator[_Rules]) -> Iterator[_Rules]:
    """Yield `first`, and from `second` what they do not cover: whole rules, or parts of those that have one line."""
    ranges: list[tuple[int, int]] = []
    for rules in sorted(first):
        if not ranges or rules.start >= ranges[-1][1]:
            ranges.append((rules.start, rules.end))
            yield rules
    for rules in second:
        gaps = list(_gaps(rules.start, rules.end, ranges))
        if gaps == [(rules.start, rules.end)]:
            yield rules
        elif len(rules.lines) == 1:
            text = rules.lines[0].split(maxsplit=5)[5]
            yield from (_Rules(start, end, [f"{_INIT}{start:x} {end - start:x} {text}"]) for start, end in gaps)


def _gaps(start: int, end: int, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what of `start` to `end` lies in none of the sorted `ranges`."""
    for low, high in ranges[max(0, bisect_right(ranges, (start, 0)) - 1) :]:
        if low >= end:
            break
        if start < low:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end
