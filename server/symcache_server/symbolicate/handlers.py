"""The handlers of `/symbolicate/v5` and `/source/v1`, below a token in the path, too."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from uuid import UUID

from aiohttp import web

from symcache.errors import NotFoundError, UsageError
from symcache.images import ImageRequest
from symcache.model import uuid_text
from symcache_server.http.auth import PATH_PREFIX, Scope, requires, wait_for_access
from symcache_server.http.metrics import TYPE
from symcache_server.http.negotiation import compressed
from symcache_server.http.origins import preflight_response, refuse_other_pages
from symcache_server.keys import CONFIG, NAMES
from symcache_server.lookup.module_names import ModuleFiles, ServedNames
from symcache_server.lookup.sources import read_source
from symcache_server.symbolicate.frames import write_results
from symcache_server.symbolicate.jobs import Job, parse_debug_id, read_jobs, wanted_offsets

__all__ = ["is_own_path", "register"]

_MAX_BODY = 16 << 20
_MAX_SOURCE_REQUEST = 64 << 10
_SYMBOLICATE, _SOURCE = "/symbolicate/v5", "/source/v1"
_OWN_PATH = re.compile(rf"(?:/names/[^/]*)?(?:{_SYMBOLICATE}|{_SOURCE}|/asm/v1)")
"""Paths of this API, whose clients understand nothing but JSON, also for errors."""
_NO_STORE = {"Cache-Control": "no-store"}
_OFFSET = re.compile(r"0x[0-9A-Fa-f]{1,16}")


def register(app: web.Application) -> None:
    """Add the routes of this module."""
    for prefix in ("", PATH_PREFIX):
        for path, handler in ((_SYMBOLICATE, symbolicate), (_SOURCE, source)):
            app.router.add_post(prefix + path, handler, expect_handler=wait_for_access)
            app.router.add_route("OPTIONS", prefix + path, preflight)


def is_own_path(path: str) -> bool:
    """Return whether clients of this API send requests to a path: pages of other origins may be allowed to."""
    return _OWN_PATH.fullmatch(path) is not None


@requires(None)
async def preflight(request: web.Request) -> web.Response:
    """Tell a browser whether a page may send requests here. It sends no credentials with this."""
    request[TYPE] = "symbolicate"
    return preflight_response(request, request.app[CONFIG].origins)


@requires(Scope.READ)
async def symbolicate(request: web.Request) -> web.Response:
    """Return the names of frames."""
    app, names = request.app, request.app[NAMES]
    request[TYPE] = "symbolicate"
    refuse_other_pages(request, app[CONFIG].origins)
    # Of any content type: browsers send text/plain, which needs no preflight request.
    async with names.bodies.read(request, app[CONFIG].body_seconds, _MAX_BODY) as body:
        data, headers = await _symbolicated(request, body)
    return web.Response(body=data, content_type="application/json", headers=_NO_STORE | headers)


async def _symbolicated(request: web.Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    names = request.app[NAMES]
    jobs, offsets = await names.in_thread(partial(_read, body))
    titles = {module.uuid: module.name for job in jobs for module in job.modules if module and module.uuid in offsets}
    frames = sum(len(stack) for job in jobs for stack in job.stacks)
    files = await names.files(request, {uuid: titles[uuid] for uuid in offsets}, frames)
    coding = request.headers.get("Accept-Encoding", "")
    return await names.in_thread(partial(_named, names, files, jobs, offsets, coding))


def _read(body: bytes) -> tuple[list[Job], dict[UUID, set[int]]]:
    jobs = read_jobs(body)
    return jobs, wanted_offsets(jobs)


def _named(
    names: ServedNames, files: ModuleFiles, jobs: list[Job], offsets: dict[UUID, set[int]], coding: str
) -> tuple[bytes, dict[str, str]]:
    known = names.look_up(files, offsets)
    return compressed(write_results(jobs, known, files.errors), coding)


@requires(Scope.READ)
async def source(request: web.Request) -> web.Response:
    """Return a source file that a frame is in, if it is served (docs/server.md#sources-of-own-binaries)."""
    app, names = request.app, request.app[NAMES]
    request[TYPE] = "symbolicate"
    refuse_other_pages(request, app[CONFIG].origins)
    async with names.bodies.read(request, app[CONFIG].body_seconds, _MAX_SOURCE_REQUEST) as body:
        uuid, offset, file = _wanted_source(body)
    files = await names.files(request, {uuid: ""}, 1)
    known = await names.in_thread(partial(names.look_up, files, {uuid: [offset]}))
    location = known.get(uuid, {}).get(offset)
    if location is None or file not in {call.file for call in location.calls}:
        raise NotFoundError(f"{file[:200]!r}: no frame at {offset:#x} of {uuid_text(uuid)} is in this file")
    data = await read_source(app, ImageRequest(uuid), file)
    text = await asyncio.to_thread(data.decode, "utf-8", "replace")
    response = {"symbolsLastModified": None, "sourceLastModified": None, "file": file, "source": text}
    return web.Response(text=json.dumps(response), content_type="application/json", headers=_NO_STORE)


def _wanted_source(body: bytes) -> tuple[UUID, int, str]:
    """Return the UUID, offset and file of a request. Raises UsageError."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("Payload is not valid JSON") from None
    match payload:
        case {"debugId": str(debug_id), "moduleOffset": str(offset), "file": str(file)} if _OFFSET.fullmatch(offset):
            if uuid := parse_debug_id(debug_id):
                return uuid, int(offset, 16) & ((1 << 63) - 1), file
    raise UsageError("a request for a source has debugName, debugId, moduleOffset (0x...) and file")
