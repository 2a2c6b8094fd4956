"""One release, and what differs between two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from symcache.catalog import ImageOrder
from symcache.errors import UsageError
from symcache.library import Library
from symcache.model import uuid_text
from symcache.verify import Difference
from symcache_server.http.auth import Scope, requires
from symcache_server.keys import BACKGROUND, OVERVIEW, in_background
from symcache_server.lookup.overview import Overview
from symcache_server.pages import documents
from symcache_server.pages.render import first_row, page, page_links, query_link

__all__ = ["diff", "release", "to_diff"]

_ROWS = 200
_FINDINGS = 100
_WORDS = 8
_DIFFERENCES = 500


@requires(Scope.READ)
async def release(request: web.Request) -> web.Response:
    """Show one build, and a page of its images."""
    app, query = request.app, request.query
    try:
        first = first_row(request)
        order = ImageOrder(query.get("sort", "path").removeprefix("-"))
    except ValueError:
        raise UsageError(
            "`from` is the number of the first image, `sort` what the images are sorted by",
            hint=f"sort by one of {', '.join(ImageOrder)}, with - in front from the end",
        ) from None
    text, descending = query.get("q", "").strip()[:200], query.get("sort", "").startswith("-")
    document = await in_background(
        app, _release, app[BACKGROUND], app[OVERVIEW], request.match_info["build"], text, order, descending, first
    )
    links = {
        **page_links(request, first, _ROWS, document["total"]),
        "sort": {
            one.value: query_link(
                request, sort=f"-{one}" if one is order and not descending else one.value, **{"from": None}
            )
            for one in ImageOrder
        },
    }
    return await page(request, "release.html", document | {"links": links})


def _release(
    library: Library, overview: Overview, name: str, text: str, order: ImageOrder, descending: bool, first: int
) -> dict[str, Any]:
    view = overview.release(name)
    mine = view.release.id
    row = documents.release(view.release, view)
    words = [word for word in re.split(r"\s+", text) if word][:_WORDS]
    images = library.catalog.images_of_release(
        mine, words, order=order, descending=descending, offset=first, limit=_ROWS
    )
    rows = library.releases()
    place = next((n for n, r in enumerate(rows) if r.id == mine), len(rows))
    others = [r for r in rows if r.id != mine]
    older = [r for r in rows[place + 1 :] if r.id.product == mine.product]
    files = {
        (f.cache_uuid, f.name): f
        for harvest in library.catalog.records_of(mine)
        for f in library.catalog.cache_files_of_record(harvest.id)
    }
    return {
        "release": row,
        **documents.coverage(view.coverage, view.release, _FINDINGS),
        "harvested_from": [documents.harvest(one) for one in view.harvests],
        "size": view.size._asdict(),
        "query": text,
        "order": order.value,
        "descending": descending,
        "first": first,
        "total": images.total,
        "images": [documents.image(o) for o in images.rows],
        "cache_files": [
            {
                "name": f.name,
                "arch": f.arch,
                "size": f.size,
                "partial": f.partial,
                "cache_uuid": uuid_text(f.cache_uuid) if f.cache_uuid else "",
                "link": f"/caches/{uuid_text(f.cache_uuid)}/{quote(f.name, safe='')}" if f.cache_uuid else "",
            }
            for _, f in sorted(files.items(), key=lambda item: (item[1].arch, item[1].path, item[1].name))
        ],
        "before": older[0].name if older else "",
        "others": [r.name for r in others],
        "namesakes": [documents.release(r, None) for r in others if r.build == mine.build],
    }


@requires(Scope.READ)
async def to_diff(request: web.Request) -> web.Response:
    """Lead the form that names two builds to what differs between them."""
    before, after = (quote(request.query.get(name, "")[:64], safe="") for name in ("before", "after"))
    if not before or not after:
        raise UsageError("name two builds", hint="/diff/22G90/22G120 shows what differs between them")
    raise web.HTTPSeeOther(f"/diff/{before}/{after}")


@requires(Scope.READ)
async def diff(request: web.Request) -> web.Response:
    """Show what differs between two builds."""
    app, builds = request.app, (request.match_info["before"], request.match_info["after"])
    text = request.query.get("q", "").strip()[:200]
    return await page(request, "diff.html", await in_background(app, _diff, app[OVERVIEW], *builds, text))


def _diff(overview: Overview, before: str, after: str, text: str) -> dict[str, Any]:
    found = overview.diff(before, after)
    older, newer = (documents.release(view.release, view) for view in map(overview.release, (before, after)))
    words = text.lower().split()

    def part(rows: list[Difference]) -> Mapping[str, Any]:
        meant = [d for d in rows if all(word in d.path.lower() for word in words)] if words else rows
        return {"total": len(meant), "rows": [d.to_json() for d in meant[:_DIFFERENCES]]}

    return {
        "before": older,
        "after": newer,
        "query": text,
        "same": found.same,
        "changed": part(found.changed),
        "added": part(found.added),
        "removed": part(found.removed),
        "most": _DIFFERENCES,
    }
