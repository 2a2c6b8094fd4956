"""For whoever runs the server: is it alive, is it ready, how does it fare."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from symcache_server.http.auth import Scope, requires
from symcache_server.http.metrics import TYPE, exposition
from symcache_server.keys import CONFIG, REFRESHER

__all__ = ["register"]

_STALE_SECONDS = 60.0


def register(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/healthz", health)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)


@requires(None)
async def health(request: web.Request) -> web.Response:
    """Say that the process runs."""
    request[TYPE] = "operations"
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})


@requires(Scope.READ)
async def metrics(request: web.Request) -> web.Response:
    """Return the metrics of all processes."""
    request[TYPE] = "operations"
    body, kind = await asyncio.to_thread(exposition)
    return web.Response(body=body, headers={"Content-Type": kind, "Cache-Control": "no-store"})


@requires(Scope.READ)
async def ready(request: web.Request) -> web.Response:
    """Say whether the library can be read and is being followed."""
    request[TYPE] = "operations"
    refresher = request.app[REFRESHER]
    age = time.time() - refresher.refreshed
    limit = max(_STALE_SECONDS, 3 * request.app[CONFIG].refresh_seconds)
    if age > limit:
        reason = refresher.error or f"the library was last looked at {age:.0f} seconds ago"
        return web.Response(status=503, text=reason + "\n", headers={"Cache-Control": "no-store"})
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})
