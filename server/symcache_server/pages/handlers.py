"""The handlers of the pages. Everything on them comes from other machines, so all of it is escaped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
from aiohttp import web

from symcache import __version__
from symcache.catalog import Occurrence
from symcache.errors import NotFoundError, UsageError
from symcache.library import Found, Library
from symcache.macho import parse_uuid
from symcache.model import uuid_text
from symcache.store import blob_key
from symcache.text import printable_value
from symcache_server.http.auth import Scope, requires
from symcache_server.http.content import IMMUTABLE, Content, send
from symcache_server.keys import BACKGROUND, DECODED, LIBRARY, MISS_LOG, OFFLOAD, in_background
from symcache_server.lookup.headers import image_headers
from symcache_server.lookup.search import by_name, release_of_build

__all__ = ["register"]

_ROWS = 500
"""Images on one page."""
_HEADERS = {
    # No script at all, nothing from elsewhere, in nobody's frame: what they list was named by strangers.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def register(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/", start)
    app.router.add_get("/search", search)
    app.router.add_get("/releases", releases)
    app.router.add_get("/releases/{build}", release)
    app.router.add_get("/images/{uuid}", image)
    app.router.add_get("/images/{uuid}/{sha256:[0-9a-f]{64}}", content)
    app.router.add_get("/missing", missing)
    app.router.add_get("/style.css", style)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("symcache_server.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=printable_value,
    )
    environment.filters["uuid"] = lambda uuid: uuid_text(uuid) if uuid else ""
    environment.filters["size"] = _size
    environment.filters["segment"] = lambda text: quote(str(text), safe="")
    return environment


async def _page(request: web.Request, name: str, **values: Any) -> web.Response:
    template = _environment().get_template(name)
    text = await in_background(request.app, template.render, version=__version__, **values)
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)


@requires(Scope.READ)
async def start(request: web.Request) -> web.Response:
    """Show the releases, and how debuggers are pointed here."""
    rows = await in_background(request.app, request.app[BACKGROUND].releases)
    return await _page(request, "start.html", releases=rows, base=f"{request.scheme}://{request.host}")


@requires(Scope.READ)
async def releases(request: web.Request) -> web.Response:
    """The list of releases is on the first page."""
    raise web.HTTPFound("/")


@requires(Scope.READ)
async def search(request: web.Request) -> web.Response:
    """Find images by UUID, name or path."""
    text = request.query.get("q", "").strip()[:1024]
    try:
        uuid = parse_uuid(text)
    except UsageError:
        rows: Sequence[Occurrence] = []
        if text:
            rows = await in_background(request.app, by_name, request.app[BACKGROUND], text, _ROWS + 1)
        return await _page(request, "search.html", query=text, images=rows[:_ROWS], more=len(rows) > _ROWS)
    raise web.HTTPFound(f"/images/{uuid_text(uuid)}")


@requires(Scope.READ)
async def release(request: web.Request) -> web.Response:
    """Show the images of one build."""
    library, build = request.app[BACKGROUND], request.match_info["build"]
    try:
        first = max(0, min(int(request.query.get("from", "0")), 10_000_000))
    except ValueError:
        raise UsageError("`from` is the number of the first image to show") from None
    row = await in_background(request.app, release_of_build, library, build)
    images = await in_background(request.app, _images, library, build)
    return await _page(
        request,
        "release.html",
        release=row,
        images=images[first : first + _ROWS],
        total=len(images),
        first=first,
        following=first + _ROWS if first + _ROWS < len(images) else None,
    )


def _images(library: Library, build: str) -> list[Occurrence]:
    """Return every image of a build once, by path."""
    images: dict[tuple[Any, ...], Occurrence] = {}
    for record in library.catalog.records_of(build):
        for o in library.catalog.objects_of(record.id):
            images.setdefault((o.path, o.arch, o.kind, o.uuid, o.cache_uuid), o)
    return sorted(images.values(), key=lambda o: (o.path, o.arch, o.kind))


@requires(Scope.READ)
async def image(request: web.Request) -> web.Response:
    """Show everything under one UUID."""
    uuid = parse_uuid(request.match_info["uuid"])
    contents = await asyncio.to_thread(request.app[LIBRARY].variants, uuid)
    if not contents:
        raise NotFoundError(f"{uuid_text(uuid)}: not in the library", hint="harvest the release that holds it")
    return await _page(request, "image.html", uuid=uuid, contents=contents)


@requires(Scope.READ)
async def content(request: web.Request) -> web.StreamResponse:
    """Send one content of a UUID, whichever one a look-up prefers."""
    uuid, sha256 = parse_uuid(request.match_info["uuid"]), request.match_info["sha256"]
    app, library = request.app, request.app[LIBRARY]
    for row in await asyncio.to_thread(library.variants, uuid):
        if row.sha256 == sha256 and (stat := await asyncio.to_thread(library.store.stat, blob_key(sha256))):
            headers = dict(image_headers(Found(row, stat.stored_size))) | {"Cache-Control": IMMUTABLE}
            stored = Content(row.sha256, row.size, stat.stored_size)
            return await send(request, app[DECODED], stored, headers, app.get(OFFLOAD))
    raise NotFoundError(f"{uuid_text(uuid)}: has no such content here", hint=f"see /images/{uuid_text(uuid)}")


@requires(Scope.READ)
async def missing(request: web.Request) -> web.Response:
    """Show what was requested and nobody had."""
    rows = await in_background(request.app, request.app[MISS_LOG].recent)
    return await _page(request, "missing.html", misses=rows[:_ROWS])


@requires(Scope.READ)
async def style(request: web.Request) -> web.Response:
    """Return the style sheet."""
    text = _environment().get_template("style.css").render()
    return web.Response(text=text, content_type="text/css", headers={"Cache-Control": "public, max-age=3600"})


def _size(size: int) -> str:
    """Return a size for people, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
