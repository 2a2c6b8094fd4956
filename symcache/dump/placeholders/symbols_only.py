"""Modules of which there is a dSYM, but no binary: how a placeholder for them has to be laid out."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from uuid import UUID

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.placeholders.dsym_layout import Function, Layout, LinkedSegment, read_functions, read_layout
from symcache.images import ImageFile
from symcache.kinds import Kind

__all__ = ["frameless_functions", "image_layout"]


def image_layout(
    dump: OpenedDump,
    header: DumpHeader,
    sizes: Sequence[int],
    number: int,
    files: Mapping[tuple[UUID, Kind], ImageFile],
) -> Layout | None:
    """Return how the module `number` is laid out, without segments that would lie where another module's code is.

    Return None if it has no dSYM among `files` that tells, or if its own code would lie there.
    """
    module = header.modules[number]
    debug_info = files.get((module.uuid, Kind.DEBUGINFO)) if module.uuid else None
    if debug_info is None or module.uuid is None:
        return None
    layout = read_layout(debug_info.path, module.uuid, dump.core.cputype)
    if layout is None:
        return None
    text = layout.segments[0]
    others = sorted((m.address, s) for m, s in zip(header.modules, sizes, strict=True) if m.address != module.address)

    def free(segment: LinkedSegment) -> bool:
        start = module.address + segment.address - text.address
        position = bisect.bisect_left(others, (start + segment.size, 0)) - 1
        return start >= 0 and (position < 0 or sum(others[position]) <= start)

    return layout._replace(segments=[s for s in layout.segments if free(s)]) if free(text) else None


def frameless_functions(
    module: DumpModule, layout: Layout, debug_info: ImageFile | None, counters: Sequence[int]
) -> list[Function]:
    """Return the functions of a module, as linked, that threads are in without a frame."""
    text = layout.segments[0]
    inside = [c - module.address + text.address for c in counters if module.address <= c < module.address + text.size]
    return read_functions(debug_info.path, module.uuid, inside) if inside and debug_info and module.uuid else []
