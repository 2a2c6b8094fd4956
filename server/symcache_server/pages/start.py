"""The first page: the search box, all releases, recent harvests, and what nobody had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from aiohttp import web

from symcache.errors import StorageError
from symcache.library import Library
from symcache_server.http.auth import Scope, requires
from symcache_server.keys import BACKGROUND, MISS_LOG, OVERVIEW, in_background
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.overview import Overview
from symcache_server.pages import documents
from symcache_server.pages.misses import missed
from symcache_server.pages.render import page

__all__ = ["start"]

_LATELY, _MISSED = 8, 8
_WIDTH, _HEIGHT = 320, 96
"""Of the drawing of how the library grew."""


@requires(Scope.READ)
async def start(request: web.Request) -> web.Response:
    """Show what there is."""
    app, betas = request.app, request.query.get("betas") == "1"
    document = await in_background(app, _document, app[BACKGROUND], app[OVERVIEW], app[MISS_LOG], betas)
    return await page(request, "start.html", document)


def _document(library: Library, overview: Overview, misses: MissLog, betas: bool) -> dict[str, Any]:
    rows = [documents.release(row, view) for row, view in overview.releases()]
    listed = [row for row in rows if betas or not row["beta"]]
    totals = overview.totals()
    grown = documents.growth(totals.growth if totals else ())
    try:
        missing = missed(misses.recent(_MISSED))
    except StorageError:
        missing = []  # as the status page tells
    return {
        "releases": listed,
        "columns": documents.columns(listed),
        "betas": betas,
        "betas_hidden": 0 if betas else len(rows) - len(listed),
        "has_betas": any(row["beta"] for row in rows),
        "complete": sum(row["state"] == "complete" for row in listed),
        "unknown": sum(row["state"] == "unknown" for row in listed),
        "lately": [documents.harvest(one) for one in library.catalog.harvests(_LATELY)],
        "missing": missing,
        "growth": grown,
        "drawing": _drawing(grown),
        "conflicts": sum(not c.decided for c in totals.conflicts) if totals else None,
        "counts": totals.counts._asdict() if totals else None,
    }


def _drawing(grown: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the outline of how the library grew, from the first day to the last, as points of an SVG polygon."""
    if len(grown) < 2:
        return None
    first, last = (date.fromisoformat(grown[n]["day"]).toordinal() for n in (0, -1))
    top = max(1, grown[-1]["image_bytes"] + grown[-1]["cache_bytes"])

    def outline(*names: str) -> str:
        points, y = [f"0,{_HEIGHT}"], float(_HEIGHT)
        for day in grown:
            x = _WIDTH * (date.fromisoformat(day["day"]).toordinal() - first) / max(1, last - first)
            points.append(f"{x:.1f},{y:.1f}")  # it came on that day, not little by little
            y = _HEIGHT * (1 - sum(day[name] for name in names) / top)
            points.append(f"{x:.1f},{y:.1f}")
        return " ".join([*points, f"{_WIDTH},{_HEIGHT}"])

    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "images": outline("image_bytes"),
        "everything": outline("image_bytes", "cache_bytes"),
    }
