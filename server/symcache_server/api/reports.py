"""The handler of the API that names the frames of a crash report. It is worked on in memory, and never logged."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from aiohttp import web

from symcache.errors import UsageError
from symcache.reports import Report, decoded, parse_report
from symcache.symbolicate import (
    ModuleNames,
    ModuleOffsets,
    NamedReport,
    name_report,
    report_json,
    report_text,
    rewritten,
)
from symcache_server.api import models
from symcache_server.api.messages import read_parameters
from symcache_server.http.auth import Scope, requires, wait_for_access
from symcache_server.http.metrics import TYPE
from symcache_server.http.negotiation import compressed
from symcache_server.http.origins import refuse_other_pages
from symcache_server.keys import CONFIG, NAMES
from symcache_server.lookup.module_names import ModuleError, ServedNames

__all__ = ["register"]

_PATH = "/api/v1/symbolicate"
_MAX_BODY = 16 << 20
_MAX_FRAMES = 100_000
_MAX_NAMES = 64 << 20
"""Characters of all names: a name of thousands may stand in every frame."""


def register(app: web.Application) -> None:
    """Add the route of this module."""
    app.router.add_post(_PATH, symbolicate, expect_handler=wait_for_access)


@requires(Scope.READ)
async def symbolicate(request: web.Request) -> web.Response:
    """Return a crash report with its frames named."""
    config, names = request.app[CONFIG], request.app[NAMES]
    request[TYPE] = "symbolicate"
    refuse_other_pages(request, config.origins)
    form = read_parameters(request, models.ReportQuery).form
    async with names.bodies.read(request, config.body_seconds, _MAX_BODY) as body:
        work = partial(_named, names, request, asyncio.get_running_loop(), body, form)
        data, kind, headers = await names.in_report_thread(work)
    headers |= {"Cache-Control": "no-store"}
    return web.Response(
        body=data, content_type=kind, charset="utf-8" if kind == "text/plain" else None, headers=headers
    )


def _named(
    names: ServedNames, request: web.BaseRequest, loop: asyncio.AbstractEventLoop, body: bytes, form: models.ReportForm
) -> tuple[bytes, str, dict[str, str]]:
    """Return the named report as the client takes it, what it is, and headers that say more."""
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
    match form:
        case models.ReportForm.REPORT:
            data, kind = rewritten(body, named), "application/octet-stream"
        case models.ReportForm.TEXT:
            data, kind = report_text(named).encode(), "text/plain"
        case models.ReportForm.JSON:
            data, kind = _json(named, namer.errors), "application/json"
    data, headers = compressed(data, request.headers.get("Accept-Encoding", ""))
    return data, kind, headers


def _json(named: NamedReport, errors: dict[UUID, ModuleError]) -> bytes:
    document = report_json(named)
    for module, image in zip(document["modules"], named.report.images, strict=True):
        if image.uuid and (error := errors.get(image.uuid)):
            module["error"] = error.message
    return json.dumps(document).encode()


class _Namer:
    """What a server knows of the images of one report; called from a thread."""

    def __init__(
        self, names: ServedNames, request: web.BaseRequest, loop: asyncio.AbstractEventLoop, report: Report, frames: int
    ) -> None:
        self._names, self._request, self._loop = names, request, loop
        self._build, self._frames = report.os_build, frames
        self.errors: dict[UUID, ModuleError] = {}
        """Why images have no names now that may have some."""

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
