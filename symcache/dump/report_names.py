"""Names that a crash report itself has for its frames, where the binaries at hand know no better ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from symcache.dump.findings import Frame
from symcache.dump.lldb_child.protocol import ChildFrame
from symcache.reports import ReportFrame, physical_frames

__all__ = ["best_frames"]

_MADE_UP = "___lldb_unnamed_symbol"
"""How LLDB calls functions of which it knows nothing but where they begin."""


def best_frames(
    frames: Iterable[ChildFrame], from_lldb: Callable[[ChildFrame], Frame], report_frames: Sequence[ReportFrame]
) -> tuple[Frame, ...]:
    """Return the frames of a stack: of each address, what LLDB knows, or what the report does if that is more.

    `frames` are those of the child, whose `number` is the position of the address in the stack. `from_lldb` makes
    a frame of one of them.
    """
    stack: list[Frame] = []
    groups = itertools.groupby(frames, key=lambda frame: frame.number)
    for (_, group), reported in zip(groups, physical_frames(report_frames), strict=True):
        ours = [from_lldb(frame) for frame in group]
        theirs = [
            Frame(f.address, ours[-1].module, f.function, f.offset, f.file, f.line, None, f.inlined) for f in reported
        ]
        stack += theirs if _knowledge(theirs) > _knowledge(ours) else ours
    return tuple(stack)


def _knowledge(frames: Sequence[Frame]) -> tuple[bool, bool]:
    """Return whether source lines and names are known; more is greater."""
    return any(f.line for f in frames), any(f.function and not f.function.startswith(_MADE_UP) for f in frames)
