"""Names the frames of crash reports, for API and page. Reports stay in memory, and are never logged."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from aiohttp import web

from symcache.errors import UsageError
from symcache.reports import Report, decoded, parse_report
from symcache.symbolicate import ModuleNames, ModuleOffsets, NamedReport, name_report
from symcache_server.lookup.module_names import ModuleError, ServedNames

__all__ = ["MAX_REPORT", "named_report"]

MAX_REPORT = 16 << 20
"""Bytes of a report."""
_MAX_FRAMES = 100_000
_MAX_NAMES = 64 << 20
"""Characters of all names: a name of thousands may stand in every frame."""


def named_report(
    names: ServedNames, request: web.BaseRequest, loop: asyncio.AbstractEventLoop, body: bytes
) -> tuple[NamedReport, Mapping[UUID, ModuleError]]:
    """Return a report with its frames named, and by UUID why an image that may have names has none now.

    Call it in a report thread (`ServedNames.in_report_thread`), with the event `loop` of the server. Raises UsageError,
    DumpError, and HTTPTooManyRequests.
    """
    report = parse_report(decoded(body), "report")
    stacks = [thread.frames for thread in report.threads]
    count = sum(map(len, [*stacks, report.last_exception, *report.application_backtraces]))
    if count > _MAX_FRAMES:
        raise UsageError(f"{count} frames are too many", hint=f"{_MAX_FRAMES} of one report are named at most")
    namer = _Namer(names, request, loop, report, count)
    named = name_report(report, namer)
    frames = [*named.threads, named.last_exception, *named.application_backtraces]
    if sum(len(f.function) + len(f.symbol) + len(f.file) for stack in frames for f in stack) > _MAX_NAMES:
        raise UsageError("the response would be too large: its names are too long")
    return named, namer.errors


class _Namer:
    """Looks up the images of one report in what a server has; called from a thread."""

    def __init__(
        self, names: ServedNames, request: web.BaseRequest, loop: asyncio.AbstractEventLoop, report: Report, frames: int
    ) -> None:
        self._names, self._request, self._loop = names, request, loop
        self._build, self._frames = report.os_build, frames
        self.errors: dict[UUID, ModuleError] = {}
        """Why images that may have names have none now."""

    def look_up(self, modules: Sequence[ModuleOffsets]) -> list[ModuleNames]:
        """Return what is known of these modules. Raises HTTPTooManyRequests."""
        wanted: defaultdict[UUID, set[int]] = defaultdict(set)
        titles: dict[UUID, str] = {}
        for module in modules:
            if module.uuid is not None:
                wanted[module.uuid].update(module.offsets.tolist())
                titles[module.uuid] = module.name
        work = self._names.files(self._request, titles, self._frames, self._build)
        files = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        known = self._names.look_up(files, wanted)
        self.errors |= files.errors
        self._frames = 0  # they are counted once
        return [
            ModuleNames([known.get(m.uuid, {}).get(n) for n in m.offsets.tolist()], m.uuid in known)
            if m.uuid is not None
            else ModuleNames([None] * len(m.offsets), found=False)
            for m in modules
        ]
