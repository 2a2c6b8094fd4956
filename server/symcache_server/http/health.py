"""`/healthz`, `/readyz` and `/metrics`, for whoever runs the server."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from symcache.text import printable
from symcache_server.http.auth import Scope, requires
from symcache_server.http.metrics import TYPE, exposition
from symcache_server.keys import CONFIG, REFRESHER, TROUBLES

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
    """Say whether the library can be read and is being followed, and what else does not work."""
    request[TYPE] = "operations"
    config, refresher, troubles = request.app[CONFIG], request.app[REFRESHER], request.app[TROUBLES]
    age = time.time() - refresher.refreshed
    reasons, unready = list(troubles), bool(troubles.unready)
    if age > max(_STALE_SECONDS, 3 * config.refresh_seconds):
        unready = True
        reasons.insert(0, refresher.error or f"the library was last looked at {age:.0f} seconds ago")
    lines = [*([] if unready else ["ok"]), *map(config.without_paths, reasons)]
    text = printable("".join(f"{line}\n" for line in lines), keep="\n")
    return web.Response(status=503 if unready else 200, text=text, headers={"Cache-Control": "no-store"})
