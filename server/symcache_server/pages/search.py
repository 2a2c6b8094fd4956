"""The search page, and where the search box leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from aiohttp import web

from symcache.catalog import Occurrence, PathSummary
from symcache.library import Library
from symcache.model import uuid_text
from symcache.reports import decoded
from symcache_server.http.auth import Scope, requires
from symcache_server.http.limits import charge
from symcache_server.keys import BACKGROUND, OVERVIEW, in_background
from symcache_server.lookup.overview import Overview
from symcache_server.lookup.search import by_name
from symcache_server.pages import documents
from symcache_server.pages.forms import read_field
from symcache_server.pages.query import Query, releases_meant, understand
from symcache_server.pages.render import page
from symcache_server.pages.report import show_report
from symcache_server.symbolicate.reports import MAX_REPORT

__all__ = ["search", "search_pasted"]

_MOST_TYPED = 4096
_MOST_PASTED = 1 << 20
"""Bytes that are searched for UUIDs; they hold up to twenty thousand."""
_PATHS, _FEW, _IMAGES, _UUIDS = 50, 8, 500, 1000


@requires(Scope.READ)
async def search(request: web.Request) -> web.Response:
    """Find what was typed; where it can mean one thing only, go there."""
    app = request.app
    query = understand(request.query.get("q", "")[:_MOST_TYPED])
    few = request.query.get("limit", "").isdecimal()  # what suggestions show
    document = await in_background(app, _found, app[BACKGROUND], app[OVERVIEW], query, _FEW if few else _PATHS)
    if document["goes_to"] and not request.path.endswith(".json"):
        raise web.HTTPFound(document["goes_to"])
    return await page(request, "search.html", document)


@requires(Scope.READ)
async def search_pasted(request: web.Request) -> web.Response:
    """Find what was pasted, which may be long; what is short has an address of its own."""
    app = request.app
    async with read_field(request, "q", MAX_REPORT) as body:
        query = await in_background(app, lambda: understand(decoded(body[:_MOST_PASTED])))
        if query.is_report:
            return await show_report(request, body)
    if len(query.uuids) < 2:
        raise web.HTTPSeeOther(f"/search?q={quote(query.text[:_MOST_TYPED], safe='')}")
    charge(request, len(query.uuids))
    document = await in_background(app, _found, app[BACKGROUND], app[OVERVIEW], query)
    return await page(request, "search.html", document)


def _found(library: Library, overview: Overview, query: Query, most: int = _PATHS) -> dict[str, Any]:
    releases, paths, images, uuids, goes_to = [], list[PathSummary](), list[Occurrence](), list[dict[str, Any]](), ""
    words = (*query.builds, *query.words)
    if query.uuids:
        uuids = _held_uuids(library, query.uuids[:_UUIDS])
        if len(uuids) == 1:
            goes_to = uuids[0]["link"]
    elif query.sha256:
        found = library.catalog.occurrences_of_blob(query.sha256)
        goes_to = next((f"/images/{uuid_text(o.uuid)}#c-{o.sha256[:16]}" for o in found if o.uuid), "")
    elif query.glob:
        images = by_name(library, query.glob, _IMAGES + 1)
    elif query.text:
        rows = overview.releases()
        meant = {r.id for r in releases_meant(query, [row for row, _ in rows])}
        releases = [documents.release(row, view) for row, view in rows if row.id in meant]
        # A word that looks like a build, but is none here, may be a name: `10Foo`.
        names = query.words if meant else (*query.versions, *words)
        if names:
            paths = library.catalog.paths_like(names, most + 1)
        if query.text.startswith("/") or (len(paths) == 1 and not releases):
            path = query.text if query.text.startswith("/") else paths[0].path
            images = library.by_name(path, _IMAGES + 1)
        if len(releases) == 1 and not paths and not query.archs:
            goes_to = releases[0]["link"]
    different = {o.uuid for o in images if o.uuid}
    if len(different) == 1 and not releases and not query.glob and len({o.path for o in images}) == 1:
        goes_to = f"/images/{uuid_text(different.pop())}"
    return {
        "query": query.text,
        "goes_to": goes_to,
        "archs": list(dict.fromkeys(query.archs)),
        "releases": releases,
        "columns": documents.columns(releases, query.archs),
        "paths": [
            {"path": p.path, "uuids": p.uuids, "builds": p.builds, "newest": p.newest or ""} for p in paths[:most]
        ],
        "images": [documents.image(o) for o in images[:_IMAGES]],
        "uuids": uuids,
        "more": len(paths) > most or len(images) > _IMAGES or len(query.uuids) > _UUIDS,
    }


def _held_uuids(library: Library, uuids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Return what is held of each UUID, be it an image's or a shared cache's."""
    held = library.holdings(uuids)
    unknown = [u for u in uuids if u not in held]
    caches = library.catalog.builds_of_caches(unknown)
    listed = library.catalog.missing_images([u for u in unknown if u not in caches])
    result = []
    for uuid in uuids:
        rows, text = held.get(uuid, []), uuid_text(uuid)
        builds = list(dict.fromkeys(o.build for o in rows if o.build))
        state, link = "missing", ""
        if rows:
            state, link = "held", f"/images/{text}"
        elif uuid in caches:
            state, builds, link = "shared cache", [caches[uuid]], documents.release_link(caches[uuid])
        elif uuid in listed:
            state, builds = "listed, not stored", [listed[uuid].build]
        result.append(
            {
                "uuid": text,
                "state": state,
                "path": rows[0].path if rows else listed[uuid].path if uuid in listed else "",
                "arch": rows[0].arch if rows else "",
                "kinds": sorted({o.kind.value for o in rows}),
                "builds": [{"build": b, "link": documents.release_link(b)} for b in builds[:8] if b],
                "builds_total": len(builds),
                "link": link,
            }
        )
    return result
