"""Responses to look-ups, whichever layout they came in."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache

from aiohttp import web

from symcache.client import FetchedImage
from symcache.dyld import EXTRACTOR, REVISION
from symcache.errors import NotFoundError
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.macho import identify
from symcache.model import Kind, uuid_text
from symcache_server.convert.universal import make_universal
from symcache_server.http.content import (
    IMMUTABLE,
    PINNED,
    REVALIDATE,
    Content,
    PlainFile,
    header_text,
    send,
    send_json,
)
from symcache_server.http.metrics import MISSES
from symcache_server.keys import CONFIG, DECODED, LIBRARY, MADE, MISS_LOG, OFFLOAD, RESOLVER, USE_LOG
from symcache_server.layouts import Lookup, RawCacheFile, What
from symcache_server.lookup.headers import fetched_headers, image_headers, not_found, size_headers
from symcache_server.lookup.sections import send_section
from symcache_server.lookup.sources import send_source
from symcache_server.lookup.symbol_files import send_fetched_symbol_file, send_symbol_file
from symcache_server.lookup.upstreams import came_through

__all__ = ["send_lookup", "send_raw_cache"]


async def send_lookup(request: web.Request, lookup: Lookup) -> web.StreamResponse:
    """Send what is requested in any layout, or 404."""
    config = request.app[CONFIG]
    if config.upstreams and came_through(request, config.identity):
        return not_found("this server has passed the request on itself, so it has nothing")
    if lookup.what is What.SOURCE:
        return await send_source(request, lookup)
    if lookup.what is What.SECTION:
        return await send_section(request, lookup)
    resolver = request.app[RESOLVER]
    wanted, what = lookup.image, lookup.what
    image = await resolver.resolve(wanted)
    if image is None and what is not What.META and (fetched := await resolver.fetch(wanted, request)):
        return await _send_fetched(request, lookup, fetched)
    if image is None and what in {What.META, What.BREAKPAD}:  # a dSYM alone has everything but how to unwind
        image = await resolver.resolve(wanted._replace(kind=Kind.DEBUGINFO))
    if image is None:
        MISSES.labels(lookup.layout).inc()
        request.app[MISS_LOG].add(wanted.uuid, what, wanted.cache, wanted.build, lookup.name)
        return not_found(f"nobody here has the {what} of {uuid_text(wanted.uuid)}")
    try:
        return await _send_image(request, lookup, image)
    except NotFoundError:
        resolver.forget()  # collected since it was looked up
        return not_found(f"the {what} of {uuid_text(wanted.uuid)} has just been removed")


async def _send_image(request: web.Request, lookup: Lookup, image: Found) -> web.StreamResponse:
    """Send an image of the library, or what is made from it."""
    caching = PINNED if _is_final(image, lookup) else REVALIDATE
    if lookup.what is What.META:
        meta = {"name": image.name, "arch": image.arch, "file_format": "macho"}
        return send_json(request, json.dumps(meta), caching)
    headers = dict(image_headers(image)) | {"Cache-Control": caching}
    if lookup.what is What.BREAKPAD:
        return await send_symbol_file(request, lookup, image, headers)
    app = request.app
    if "universal" in request.query and len(slices := app[LIBRARY].catalog.slices_of(image.occurrence)) > 1:
        source, content = await make_universal(app[MADE], app[DECODED], slices)
        archs = header_text(" ".join(one.arch for one in slices))
        headers |= size_headers(content.size) | {"X-Symcache-Arch": archs}
        return await send(request, source, content, headers)
    content = Content(image.sha256, image.size, image.stored_size)
    return await send(request, app[DECODED], content, headers, app.get(OFFLOAD))


def _is_final(image: Found, lookup: Lookup) -> bool:
    """Return whether only a later version of this program, or somebody's decision, can change what is sent.

    Of the contents of one image in one shared cache, a sealed harvest's is preferred to a partial one's, and what this
    extractor made to what earlier ones and other tools did: `symcache reextract` replaces those.
    """
    occurrence = image.occurrence
    ours = occurrence.extractor == EXTRACTOR and occurrence.revision >= REVISION
    pinned = occurrence.cache_uuid is not None and occurrence.cache_uuid == lookup.image.cache
    return pinned and ours and occurrence.sealed


async def _send_fetched(request: web.Request, lookup: Lookup, fetched: FetchedImage) -> web.StreamResponse:
    """Send an image that an upstream server has, or the symbol file that is made from it."""
    wanted = lookup.image
    headers = fetched_headers(wanted, fetched)
    if lookup.what is What.BREAKPAD:
        return await send_fetched_symbol_file(request, wanted, fetched, headers)
    content = Content(fetched.sha256, fetched.size, fetched.size)
    if "universal" not in request.query:
        content = await asyncio.to_thread(_thin, fetched, wanted)
        headers |= size_headers(content.size)
    return await send(request, PlainFile(fetched.path), content, headers)


@lru_cache(1 << 14)
def _thin(fetched: FetchedImage, wanted: ImageRequest) -> Content:
    """Return the requested image of a file that may be universal: other servers may keep those whole."""
    for image in identify(fetched.path):
        if (image.uuid, image.kind) == (wanted.uuid, wanted.kind) and image.size != fetched.size:
            return Content(f"{fetched.sha256}-{image.offset}-{image.size}", image.size, image.size, image.offset)
    return Content(fetched.sha256, fetched.size, fetched.size)


async def send_raw_cache(request: web.Request, file: RawCacheFile) -> web.StreamResponse:
    """Send a raw file of a shared cache, or 404."""
    app = request.app
    library = app[LIBRARY]
    row = await asyncio.to_thread(library.cache_file, file.cache_uuid, file.name)
    if row is None:
        return not_found(f"no file {file.name!r} of the shared cache {uuid_text(file.cache_uuid)} is kept here")
    app[USE_LOG].add(await asyncio.to_thread(library.catalog.builds_of_cache, file.cache_uuid))
    headers = {
        "Cache-Control": IMMUTABLE,
        "X-Symcache-Size": str(row.size),
        "X-Symcache-Cache": uuid_text(file.cache_uuid),
    }
    content = Content(row.sha256, row.size, row.stored_size)
    return await send(request, app[DECODED], content, headers, app.get(OFFLOAD))
