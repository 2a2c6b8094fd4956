"""Frames as they are shown: named by the images or by the report, whichever knows more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from symcache.demangle import demangle
from symcache.reports import ReportFrame, ReportImage
from symcache.symbolicate.model import Location, NameSource

__all__ = ["NamedFrame", "PhysicalFrame", "knows_more", "named_frames"]

_MADE_UP = re.compile(r"___lldb_unnamed_symbol|fun_[0-9a-f]+\Z")
"""Names that LLDB and we make up for functions without one."""


@dataclass(frozen=True, slots=True)
class NamedFrame:
    """One frame, top of the stack first; texts are empty where nothing is known."""

    address: int
    """As the report has it."""
    image: int | None
    """Number of its image among those of the report."""
    image_name: str
    function: str = ""
    """As the source has it."""
    symbol: str = ""
    """As the image or the report has it, where that is another."""
    offset: int | None = None
    """Bytes from the start of the function; of inlined ones it is not known."""
    file: str = ""
    line: int | None = None
    inlined: bool = False
    """Into the function of the next frame, which has the same address."""
    source: NameSource | None = None
    """Where the name is from; None where the report has it, or nobody."""
    other_function: str = ""
    """Where report and image contradict each other, the name that is not shown."""
    image_offset: int | None = None
    """Bytes from the image's header, without pointer authentication code; None where there is no image."""

    @property
    def name_source(self) -> str:
        """Where the name is from, in a word; empty where there is none."""
        return str(self.source or ("report" if self.function else ""))


class PhysicalFrame(NamedTuple):
    """One address of a stack: what the report says of it, and what is known."""

    frames: list[ReportFrame]
    """Each but the last was inlined into the next."""
    image: int | None
    offset: int
    """From the image's header, without pointer authentication code; 0 where there is no image."""
    location: Location | None


def _is_made_up(function: str) -> bool:
    """Return whether a name says nothing but where a function begins."""
    return bool(_MADE_UP.match(function))


def knows_more(location: Location | None, frames: Sequence[ReportFrame], *, or_as_much: bool = False) -> bool:
    """Return whether a location says more than the report does of the same place, in `frames`."""
    if location is None:
        return False
    certain = location.source.is_certain
    named = [frame.function for frame in frames if frame.function]
    ours = (any(call.line for call in location.calls), certain, True)
    theirs = (any(frame.line for frame in frames), any(not _is_made_up(name) for name in named), bool(named))
    return ours > theirs or (or_as_much and certain and ours == theirs)


def named_frames(stack: Iterable[PhysicalFrame], images: Sequence[ReportImage]) -> Iterator[NamedFrame]:
    """Yield the frames of a stack in the images of its report, each behind those inlined into it."""
    for group, number, from_header, location in stack:
        last = group[-1]
        title = last.image or (images[number].path.rpartition("/")[2] if number is not None else "")
        image_offset = None if number is None else from_header
        theirs = [_of_report(frame, number, title, image_offset) for frame in group]
        if location is None:
            yield from theirs
            continue
        offset = from_header - location.start
        ours = [
            NamedFrame(
                *(last.address, number, title, call.function, call.symbol if call.symbol != call.function else ""),
                *(offset if place == len(location.calls) - 1 and offset >= 0 else None, call.file, call.line),
                inlined=place < len(location.calls) - 1,
                source=location.source,
                image_offset=image_offset,
            )
            for place, call in enumerate(location.calls)
        ]
        frames, others = (ours, theirs) if knows_more(location, group, or_as_much=True) else (theirs, ours)
        yield from frames[:-1]
        yield _beside(frames[-1], others[-1])


def _of_report(frame: ReportFrame, image: int | None, title: str, image_offset: int | None) -> NamedFrame:
    function = demangle(frame.function)
    return NamedFrame(
        *(frame.address, image, title, function, frame.function if function != frame.function else ""),
        *(frame.offset, frame.file, frame.line, frame.inlined),
        image_offset=image_offset,
    )


def _beside(frame: NamedFrame, other: NamedFrame) -> NamedFrame:
    """Return a frame with the name that somebody else has for the same place, if it is another."""
    names = [f.function for f in (frame, other) if f.function and not _is_made_up(f.function)]
    if len(names) < 2 or other.source is NameSource.NEAREST:
        return frame
    if frame.symbol == other.symbol != "" or len({_plain(name) for name in names}) == 1:
        return frame
    return replace(frame, other_function=other.function)


def _plain(name: str) -> str:
    """Return a name in the form that is compared: without blanks, inline namespaces and a leading underscore."""
    return "".join(name.replace("std::__1::", "std::").split()).removeprefix("_")
