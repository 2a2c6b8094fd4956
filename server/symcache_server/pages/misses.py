"""What was requested and nobody had, by how often, and which release probably has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from symcache.library import Library
from symcache.model import uuid_text
from symcache.verify import MissedRequest, missing_images
from symcache_server.http.auth import Scope, requires
from symcache_server.keys import BACKGROUND, MISS_LOG, in_background
from symcache_server.lookup.misses import Miss, MissLog
from symcache_server.pages.documents import release_link
from symcache_server.pages.render import page

__all__ = ["missed", "missing"]

_ROWS = 100


@requires(Scope.READ)
async def missing(request: web.Request) -> web.Response:
    """Show what nobody had."""
    app = request.app
    return await page(request, "missing.html", await in_background(app, _document, app[BACKGROUND], app[MISS_LOG]))


def _document(library: Library, log: MissLog) -> dict[str, Any]:
    rows = log.recent(_ROWS + 1)
    requests = [
        MissedRequest(m.uuid, m.kind, m.times, m.name, m.build or "", m.cache, m.first_asked, m.last_asked)
        for m in rows[:_ROWS]
    ]
    wanted = [
        {
            "uuid": uuid_text(w.request.uuid),
            "kind": w.request.kind,
            "name": w.request.name,
            "times": w.request.times,
            "last_asked": w.request.last_asked,
            "build": w.build,
            "link": release_link(w.build),
            "hint": w.hint,
        }
        for w in missing_images(library, requests)
    ]
    here = {row.build for row in library.releases()}
    return {"missing": wanted, "more": len(rows) > _ROWS, "held": sorted({w["build"] for w in wanted} & here)}


def missed(rows: Iterable[Miss]) -> list[dict[str, Any]]:
    """Return misses as they were noted."""
    return [
        {"uuid": uuid_text(m.uuid), "kind": m.kind, "name": m.name, "times": m.times, "last_asked": m.last_asked}
        for m in rows
    ]
