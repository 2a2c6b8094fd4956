"""The handlers of the API. What may take long runs in a thread, so that downloads go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from symcache.catalog import Occurrence
from symcache.client import LayoutMatch
from symcache.errors import NotFoundError
from symcache.library import Library
from symcache.macho import parse_uuid
from symcache.model import Kind, SourceNote, uuid_text
from symcache_server.api import models, reports, uploads
from symcache_server.api.messages import json_response, read_body, read_parameters
from symcache_server.api.openapi import document
from symcache_server.http.auth import Scope, requires, wait_for_access
from symcache_server.http.content import REVALIDATE, send_json
from symcache_server.http.limits import charge
from symcache_server.keys import BACKGROUND, CACHE_MATCHER, CONFIG, LIBRARY, MISS_LOG, TOKENS, in_background
from symcache_server.layouts import What
from symcache_server.lookup.cache_match import CacheMatch, CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.search import by_name, releases_named

__all__ = ["register"]

_PREFIX = "/api/v1"
_MOST_NAMED = 1000
"""Contents that are looked at for one name."""


def register(app: web.Application) -> None:
    """Add the routes of this module."""
    router = app.router
    router.add_get(f"{_PREFIX}/openapi.json", openapi)
    router.add_post(f"{_PREFIX}/uuids", uuids, expect_handler=wait_for_access)
    router.add_get(f"{_PREFIX}/uuids/{{uuid}}", one_uuid)
    router.add_get(f"{_PREFIX}/images", images)
    router.add_get(f"{_PREFIX}/releases", releases)
    router.add_get(f"{_PREFIX}/releases/{{build}}", one_release)
    router.add_get(f"{_PREFIX}/coverage/{{build}}", coverage)
    router.add_get(f"{_PREFIX}/missing", missing)
    router.add_get(f"{_PREFIX}/tokens", tokens)
    reports.register(app)
    uploads.register(app)


@requires(Scope.READ)
async def openapi(request: web.Request) -> web.Response:
    """Return the description of this API."""
    return send_json(request, json.dumps(document()), REVALIDATE)


@requires(Scope.READ)
async def uuids(request: web.Request) -> web.Response:
    """Return what the library has of many images, and which shared caches fit their load addresses."""
    query = await read_body(request, models.UuidsQuery, 3 * models.MAX_IMAGES)
    app = request.app
    charge(request, len(query.images) - 1)  # one is counted already
    body = await in_background(app, _holdings, app[BACKGROUND], app[CACHE_MATCHER], app[MISS_LOG], query)
    return json_response(body)


def _holdings(library: Library, matcher: CacheMatcher, misses: MissLog, query: models.UuidsQuery) -> bytes:
    """Return `models.Holdings` as JSON. Written piece by piece: during one the event loop waits."""
    order = list(dict.fromkeys(i.uuid for i in query.images))
    contents = library.holdings(order)
    for uuid in order:
        if query.note_missing and uuid not in contents:
            misses.add(uuid, What.EXECUTABLE)
    layout = _layout(matcher, query.images, contents)
    images = ",".join(image.model_dump_json() for image in _held_images(library, order, contents))
    return f'{{"images":[{images}],"layout":{layout.model_dump_json() if layout else "null"}}}'.encode()


def _layout(
    matcher: CacheMatcher, images: Sequence[models.ImageQuery], contents: Mapping[UUID, Sequence[Occurrence]]
) -> models.Layout | None:
    """Return which shared caches fit the load addresses, or None where there are none."""
    each = {(i.uuid, i.load_address) for i in images if i.load_address is not None}
    if not each:
        return None
    loads = dict(each)
    # An image with two addresses fits no cache, since no cache has an image twice.
    fitting = matcher.match(loads, contents) if len(each) == len(loads) else CacheMatch((), None)
    match = (LayoutMatch.NONE, LayoutMatch.UNIQUE, LayoutMatch.AMBIGUOUS)[min(len(fitting.caches), 2)]
    return models.Layout(match=match, caches=list(fitting.caches), slide=fitting.slide)


@requires(Scope.READ)
async def one_uuid(request: web.Request) -> web.Response:
    """Return what the library has under one UUID."""
    library, uuid = request.app[LIBRARY], parse_uuid(request.match_info["uuid"])
    contents = await asyncio.to_thread(library.variants, uuid)
    if not contents:
        request.app[MISS_LOG].add(uuid, What.EXECUTABLE)
        raise NotFoundError(f"{uuid_text(uuid)}: not in the library", hint="harvest the release that holds it")
    (image,) = await asyncio.to_thread(lambda: list(_held_images(library, [uuid], {uuid: contents})))
    return json_response(image)


@requires(Scope.READ)
async def images(request: web.Request) -> web.Response:
    """Find images by name, or by path; both may hold `*` and `?`."""
    query = read_parameters(request, models.NameQuery)
    return json_response(await in_background(request.app, _named, request.app[BACKGROUND], query))


def _named(library: Library, query: models.NameQuery) -> bytes:
    rows = by_name(library, query.name, _MOST_NAMED + 1)
    by_uuid: dict[UUID, list[Occurrence]] = {}
    for o in rows[:_MOST_NAMED]:
        if o.uuid is not None:
            by_uuid.setdefault(o.uuid, []).append(o)
    named = list(by_uuid)[: query.limit]
    more = len(rows) > _MOST_NAMED or len(named) < len(by_uuid)
    return _json(models.Images(images=list(_held_images(library, named, by_uuid)), more=more))


@requires(Scope.READ)
async def releases(request: web.Request) -> web.Response:
    """List the macOS builds, newest first."""
    rows = await in_background(request.app, request.app[BACKGROUND].releases)
    return json_response(models.Releases(releases=[models.Release.model_validate(r) for r in rows]))


@requires(Scope.READ)
async def one_release(request: web.Request) -> web.Response:
    """Describe one release; of several systems of one build the newest."""
    rows = await in_background(request.app, releases_named, request.app[BACKGROUND], request.match_info["build"])
    return json_response(models.Release.model_validate(rows[0]))


@requires(Scope.READ)
async def coverage(request: web.Request) -> web.Response:
    """Return whether a release is complete; of several systems of one build, whether all are."""
    library = request.app[BACKGROUND]
    return json_response(
        await in_background(request.app, _coverage, library, request.match_info["build"], request.app[CONFIG].releases)
    )


def _coverage(library: Library, build: str, releases: Path | None) -> bytes:
    from symcache.verify import Expectations, Level, verify  # noqa: PLC0415 (takes its time to import, with numpy)

    wanted = releases_named(library, build)
    report = verify(
        library, [str(row.id) for row in wanted], level=Level.CATALOG, expectations=Expectations.load(releases)
    )
    return _json(
        models.Coverage(
            build=wanted[0].build,
            complete=not report.findings,
            level="catalog",
            images=report.images,
            findings=[
                models.CoverageFinding(
                    code=f.code,
                    text=f.message,
                    path=f.path,
                    arch=f.arch,
                    uuid=f.uuid,
                    cache_uuid=f.cache_uuid,
                    elsewhere=f.elsewhere,
                )
                for f in report.findings
            ],
        )
    )


@requires(Scope.READ)
async def missing(request: web.Request) -> web.Response:
    """List what was requested and nobody had."""
    return json_response(await in_background(request.app, _missing, request.app[MISS_LOG]))


def _missing(misses: MissLog) -> bytes:
    return _json(
        models.Missing(
            missing=[
                models.MissingImage(
                    uuid=m.uuid,
                    kind=m.kind,
                    cache_uuid=m.cache,
                    build=m.build,
                    times=m.times,
                    first_asked=m.first_asked,
                    last_asked=m.last_asked,
                    name=m.name,
                )
                for m in misses.recent()
            ]
        )
    )


@requires(Scope.ADMIN)
async def tokens(request: web.Request) -> web.Response:
    """List who has a token, and for what."""
    rows = await asyncio.to_thread(request.app[TOKENS].all)
    issued = [
        models.IssuedToken(name=t.name, scopes=sorted(t.scopes), created=t.created, expires=t.expires) for t in rows
    ]
    return json_response(models.Tokens(tokens=issued))


def _held_images(
    library: Library, order: list[UUID], contents: Mapping[UUID, list[Occurrence]]
) -> Iterator[models.HeldImage]:
    own = [u for u in order if any(o.kind is Kind.DEBUGINFO for o in contents.get(u, []))]
    notes = library.sources(own) if own else {}
    for u in order:
        yield models.HeldImage(
            uuid=u,
            contents=[models.Content.model_validate(o) for o in contents.get(u, [])],
            sources=[SourceNote(recorded=recorded, place=place) for recorded, place in notes.get(u, [])],
        )


def _json(value: BaseModel) -> bytes:
    return value.model_dump_json().encode()
