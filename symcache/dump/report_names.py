"""Names that a crash report itself has for its frames, where the binaries at hand know no better ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from symcache.demangle import demangle
from symcache.dump.findings import Frame, ModuleReport
from symcache.dump.lldb_child.protocol import ChildFrame
from symcache.reports import ReportFrame, physical_frames

__all__ = ["best_frames"]

_MADE_UP = "___lldb_unnamed_symbol"
"""How LLDB calls functions of which it knows nothing but where they begin."""


def best_frames(
    frames: Iterable[ChildFrame],
    from_lldb: Callable[[ChildFrame, int | None], Frame],
    report_frames: Sequence[ReportFrame],
) -> tuple[Frame, ...]:
    """Return the frames of a stack: of each address, what LLDB knows, or what the report does if that is more.

    `frames` are those of the child, whose `number` is the position of the address in the stack. `from_lldb` makes
    a frame of one of them, and of the address of the image that the report says it is in.
    """
    stack: list[Frame] = []
    groups = itertools.groupby(frames, key=lambda frame: frame.number)
    for (_, group), reported in zip(groups, physical_frames(report_frames), strict=True):
        ours = [from_lldb(frame, reported[-1].base) for frame in group]
        module = ours[-1].module
        theirs = [_of_report(frame, module) for frame in reported]
        if _knowledge(theirs) > _knowledge(ours):
            stack += [*theirs[:-1], _beside(theirs[-1], ours[-1])]
        else:
            stack += [*ours[:-1], replace(_beside(ours[-1], theirs[-1]), image=theirs[-1].image)]
    return tuple(stack)


def _of_report(frame: ReportFrame, module: ModuleReport | None) -> Frame:
    function = demangle(frame.function)
    return Frame(
        *(frame.address, module, function, frame.offset, frame.file, frame.line, None, frame.inlined),
        mangled=frame.function if function != frame.function else "",
        image=frame.image,
    )


def _beside(frame: Frame, other: Frame) -> Frame:
    """Return a frame with the name that somebody else has for the same place, if it is another."""
    names = [f.function for f in (frame, other) if f.function and not f.function.startswith(_MADE_UP)]
    if len(names) < 2 or frame.mangled == other.mangled != "" or len({_plain(name) for name in names}) == 1:
        return frame
    return replace(frame, other_function=other.function)


def _plain(name: str) -> str:
    """Return a name without what is written in several ways."""
    return "".join(name.replace("std::__1::", "std::").split()).removeprefix("_")


def _knowledge(frames: Sequence[Frame]) -> tuple[bool, bool]:
    """Return whether source lines and names are known; more is greater."""
    return any(f.line for f in frames), any(f.function and not f.function.startswith(_MADE_UP) for f in frames)
