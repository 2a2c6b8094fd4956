"""The handlers of the API that receive binaries."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from symcache.errors import UsageError
from symcache_server.api import models
from symcache_server.api.messages import json_response, read_body
from symcache_server.files.uploads import SentFile
from symcache_server.http.auth import Scope, requires, token_of, wait_for_access
from symcache_server.keys import BACKGROUND, RESOLVER, TOKENS, UPLOADS

__all__ = ["register"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATH = "/api/v1/uploads"


def register(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get(f"{_PATH}/{{sha256}}", progress)
    app.router.add_put(f"{_PATH}/{{sha256}}", receive, expect_handler=wait_for_access)
    app.router.add_post(_PATH, add, expect_handler=wait_for_access)


@requires(Scope.READ)
async def progress(request: web.Request) -> web.Response:
    """Return how much of a file has been received."""
    offset, complete = await asyncio.to_thread(request.app[UPLOADS].offset, _sha256(request))
    return json_response(models.Upload(offset=offset, complete=complete))


@requires(Scope.WRITE)
async def receive(request: web.Request) -> web.Response:
    """Take a file, or the next part of it."""
    offset, complete = await request.app[UPLOADS].receive(_sha256(request), request)
    return json_response(models.Upload(offset=offset, complete=complete), status=200 if complete else 202)


@requires(Scope.WRITE)
async def add(request: web.Request) -> web.Response:
    """Add files that were sent to the library."""
    query = await read_body(request, models.AddQuery, 10 * models.MAX_IMAGES)
    files = [SentFile(image.sha256, image.path, tuple(image.sources)) for image in query.images]
    # Shielded: it goes on if the client goes away, so that a record is either written or not.
    work = asyncio.to_thread(request.app[UPLOADS].add, request.app[BACKGROUND], files, _who(request))
    result = await asyncio.shield(asyncio.create_task(work))
    request.app[RESOLVER].forget()  # whoever pushes it finds it, at least in this process
    return json_response(models.Added.model_validate(result), status=201)


def _sha256(request: web.Request) -> str:
    text = request.match_info["sha256"]
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{text[:80]!r}: not a SHA-256", hint="write 64 lower-case hex digits")
    return text


def _who(request: web.Request) -> str:
    token = request.app[TOKENS].find(token_of(request) or "")
    return token.name if token else "unknown"
