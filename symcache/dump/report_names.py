"""Names that a crash report itself has for its frames, where the binaries at hand know no better ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from symcache.dump.findings import Frame
from symcache.reports import ReportFrame, physical_frames

__all__ = ["best_frames"]

_MADE_UP = "___lldb_unnamed_symbol"
"""How LLDB calls functions of which it knows nothing but where they begin."""


def best_frames(
    raw: Iterable[dict[str, Any]], own: Callable[[dict[str, Any]], Frame], told: Sequence[ReportFrame]
) -> tuple[Frame, ...]:
    """Return the frames of a stack: of each address, what LLDB says, or else what is `told`.

    `raw` are the worker's, whose `number` is the place of the address in the stack; `own` makes frames of them.
    """
    frames: list[Frame] = []
    groups = itertools.groupby(raw, key=lambda one: one["number"])
    for (_, group), other in zip(groups, physical_frames(told), strict=True):
        ours = [own(one) for one in group]
        theirs = [
            Frame(t.address, ours[-1].module, t.function, t.offset, t.file, t.line, None, t.inlined) for t in other
        ]
        frames += theirs if _knowledge(theirs) > _knowledge(ours) else ours
    return tuple(frames)


def _knowledge(frames: Sequence[Frame]) -> tuple[bool, bool]:
    """Return whether source lines and names are known; more is greater."""
    return any(f.line for f in frames), any(f.function and not f.function.startswith(_MADE_UP) for f in frames)
