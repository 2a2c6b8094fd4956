"""The handler of the API that names the frames of a crash report, which stays in memory and is never logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from uuid import UUID

from aiohttp import web

from symcache.symbolicate import NamedReport, report_json, report_text, rewritten
from symcache_server.api import models
from symcache_server.api.messages import read_parameters
from symcache_server.http.auth import Scope, requires, wait_for_access
from symcache_server.http.metrics import TYPE
from symcache_server.http.negotiation import compressed
from symcache_server.http.origins import refuse_other_pages
from symcache_server.keys import CONFIG, NAMES
from symcache_server.lookup.module_names import ModuleError, ServedNames
from symcache_server.symbolicate.reports import MAX_REPORT, named_report

__all__ = ["register"]

_PATH = "/api/v1/symbolicate"


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
    async with names.bodies.read(request, config.body_seconds, MAX_REPORT) as body:
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
    named, errors = named_report(names, request, loop, body)
    match form:
        case models.ReportForm.REPORT:
            data, kind = rewritten(body, named), "application/octet-stream"
        case models.ReportForm.TEXT:
            data, kind = report_text(named).encode(), "text/plain"
        case models.ReportForm.JSON:
            data, kind = _json(named, errors), "application/json"
    data, headers = compressed(data, request.headers.get("Accept-Encoding", ""))
    return data, kind, headers


def _json(named: NamedReport, errors: Mapping[UUID, ModuleError]) -> bytes:
    document = report_json(named)
    for module, image in zip(document["modules"], named.report.images, strict=True):
        if image.uuid and (error := errors.get(image.uuid)):
            module["error"] = error.message
    return json.dumps(document).encode()
