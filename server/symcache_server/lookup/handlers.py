"""Answers to the look-up layouts, whichever one was spoken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from aiohttp import web

from symcache.catalog import Occurrence
from symcache.client import FetchedImage
from symcache.dyld import EXTRACTOR, REVISION
from symcache.errors import NotFoundError
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.macho import identify
from symcache.model import Kind, uuid_text
from symcache_server.convert.breakpad import REVISION as BREAKPAD_REVISION
from symcache_server.convert.breakpad import make_symbol_file
from symcache_server.convert.sections import find_section
from symcache_server.convert.sources import answer_source
from symcache_server.convert.universal import make_universal
from symcache_server.http.content import (
    IMMUTABLE,
    MISSING,
    PINNED,
    REVALIDATE,
    Content,
    PlainFile,
    Source,
    header_text,
    send,
    send_json,
)
from symcache_server.http.metrics import MISSES
from symcache_server.layouts import Lookup, RawCacheFile, What
from symcache_server.lookup.service import Service

__all__ = ["answer", "answer_raw_cache", "missing"]

_Part = tuple[Source, str, int]
"""Where an image is opened, its hash and its size."""


async def answer(request: web.Request, service: Service, lookup: Lookup) -> web.StreamResponse:
    """Answer a request in any layout."""
    if lookup.what is What.SOURCE:
        return await answer_source(request, service, lookup)
    if lookup.what is What.SECTION:
        return await _section(request, service, lookup)
    found = await service.resolve(lookup)
    if found is None and (kind := lookup.what.kind) is not None:
        asked = ImageRequest(lookup.uuid, kind, lookup.cache, lookup.build)
        fetched = await service.fetch(asked, request)
        if fetched is not None and lookup.what is What.BREAKPAD:
            return await _fetched_symbol_file(request, service, asked, fetched)
        if fetched is not None:
            content, headers = _fetched(asked, fetched)
            if "universal" not in request.query:
                content = await asyncio.to_thread(_thin, fetched, asked)
                headers |= {"X-Symcache-Size": str(content.size), "X-DEBUGINFOD-SIZE": str(content.size)}
            return await send(request, PlainFile(fetched.path), content, headers)
    if found is None and lookup.what is What.BREAKPAD:  # a dSYM alone has everything but how to unwind
        found = await service.resolve(replace(lookup, what=What.DEBUGINFO))
    if found is None:
        MISSES.labels(lookup.layout).inc()
        service.misses.add(lookup.uuid, lookup.what, lookup.cache, lookup.build, lookup.name)
        return missing(f"nobody here has the {lookup.what} of {uuid_text(lookup.uuid)}")
    headers = dict(describe(found))
    headers["Cache-Control"] = PINNED if _is_final(found, lookup) else REVALIDATE
    if lookup.what is What.META:
        meta = {"name": found.name, "arch": found.arch, "file_format": "macho"}
        return send_json(request, json.dumps(meta), headers["Cache-Control"])
    try:
        if lookup.what is What.BREAKPAD:
            return await _symbol_file(request, service, lookup, found, headers)
        if "universal" in request.query and len(slices := service.library.catalog.slices_of(found.occurrence)) > 1:
            path, content = await make_universal(service.decoded, slices)
            size = str(content.size)
            headers |= {"X-Symcache-Size": size, "X-DEBUGINFOD-SIZE": size, "X-Symcache-Arch": _archs(slices)}
            return await send(request, PlainFile(path), content, headers)
        content = Content(found.sha256, found.size, found.stored_size)
        return await send(request, service.decoded, content, headers, service.offload, service.fast)
    except NotFoundError:
        service.forget()  # collected since it was looked up
        return missing(f"the {lookup.what} of {uuid_text(lookup.uuid)} has just been removed")


def _archs(slices: Sequence[Occurrence]) -> str:
    return header_text(" ".join(one.arch for one in slices))


def _is_final(found: Found, lookup: Lookup) -> bool:
    """Return whether nothing but a later version of this program, or a person's decision, can change an answer.

    Of the contents of one image in one shared cache, a sealed harvest's is preferred to a partial one's, and what this
    extractor made to what earlier ones and other tools did: `symcache reextract` replaces those.
    """
    image = found.occurrence
    ours = image.extractor == EXTRACTOR and image.revision >= REVISION
    return image.cache_uuid is not None and image.cache_uuid == lookup.cache and ours and image.sealed


async def _section(request: web.Request, service: Service, lookup: Lookup) -> web.StreamResponse:
    """Answer with the bytes of one section."""
    found = await find_section(service, lookup, request)
    if found is None:
        return missing(f"nobody here has the section {lookup.detail[:100]!r} of {uuid_text(lookup.uuid)}")
    image, source, content = found
    headers = dict(describe(image)) if isinstance(image, Found) else _fetched(*image)[1]
    size = str(content.size)
    headers |= {"Cache-Control": REVALIDATE, "X-Symcache-Size": size, "X-DEBUGINFOD-SIZE": size}
    return await send(request, source, content, headers)


async def _symbol_file(
    request: web.Request, service: Service, lookup: Lookup, image: Found, headers: dict[str, str]
) -> web.StreamResponse:
    """Answer with the Breakpad symbol file of a binary of the library, or of a dSYM whose binary is not there."""
    dsym = await service.resolve(replace(lookup, what=What.DEBUGINFO))
    found = dict.fromkeys(found for found in (dsym, image) if found is not None)
    parts = [(service.decoded, part.sha256, part.size) for part in found]
    make = partial(make_symbol_file, uuid=lookup.uuid, arch=image.arch, name=image.name)
    return await _made_symbol_file(request, service, parts, make, headers)


async def _fetched_symbol_file(
    request: web.Request, service: Service, asked: ImageRequest, binary: FetchedImage
) -> web.StreamResponse:
    """Answer with the Breakpad symbol file of a binary that an upstream server has."""
    parts: list[_Part] = [(PlainFile(binary.path), binary.sha256, binary.size)]
    if fetched := await service.fetch(asked._replace(kind=Kind.DEBUGINFO), request):
        parts.insert(0, (PlainFile(fetched.path), fetched.sha256, fetched.size))
    # Named by what the file says of itself: what is made once is for all, whatever name they ask by.
    image = next(i for i in await asyncio.to_thread(identify, binary.path) if i.uuid == asked.uuid)
    name = (image.install_name or "").rpartition("/")[2] or asked.uuid.hex
    make = partial(make_symbol_file, uuid=asked.uuid, arch=image.arch, name=name)
    return await _made_symbol_file(request, service, parts, make, _fetched(asked, binary)[1])


async def _made_symbol_file(
    request: web.Request,
    service: Service,
    parts: Sequence[_Part],
    make: Callable[..., None],
    headers: dict[str, str],
) -> web.StreamResponse:
    """Answer with the symbol file that `make` makes from dSYM and binary when it is first asked for."""
    path, content = await service.decoded.made(
        parts, f"sym{BREAKPAD_REVISION}", lambda descriptors, target: make(tuple(descriptors), target=target)
    )
    size = str(content.size)
    # Revalidated: a dSYM may come, and the next version of this program may tell more.
    headers |= {"Cache-Control": REVALIDATE, "X-Symcache-Size": size, "X-DEBUGINFOD-SIZE": size}
    return await send(request, PlainFile(path), content, headers)


async def answer_raw_cache(request: web.Request, service: Service, file: RawCacheFile) -> web.StreamResponse:
    """Answer a request for a raw file of a shared cache."""
    cache_uuid, name = file
    found = service.library.cache_file(cache_uuid, name)
    if found is None:
        return missing(f"no file {name!r} of the shared cache {uuid_text(cache_uuid)} is kept here")
    headers = {
        "Cache-Control": IMMUTABLE,
        "X-Symcache-Size": str(found.size),
        "X-Symcache-Cache": uuid_text(cache_uuid),
    }
    content = Content(found.sha256, found.size, found.stored_size)
    return await send(request, service.decoded, content, headers, service.offload)


def _fetched(asked: ImageRequest, found: FetchedImage) -> tuple[Content, dict[str, str]]:
    """Return what is sent of an upstream server's answer."""
    headers = {
        "X-Symcache-Uuid": uuid_text(asked.uuid),
        "X-Symcache-Kind": asked.kind.value,
        "X-Symcache-Size": str(found.size),
        "X-Symcache-Upstream": header_text(found.origin),
        "X-DEBUGINFOD-SIZE": str(found.size),
        "Cache-Control": REVALIDATE,
    }
    if found.build:
        headers["X-Symcache-Build"] = found.build
    if found.cache_uuid:
        headers["X-Symcache-Cache"] = uuid_text(found.cache_uuid)
    return Content(found.sha256, found.size, found.size), headers


@lru_cache(1 << 14)
def _thin(found: FetchedImage, asked: ImageRequest) -> Content:
    """Return what is asked for of a file that may be universal: other servers may keep those whole."""
    for image in identify(found.path):
        if (image.uuid, image.kind) == (asked.uuid, asked.kind) and image.size != found.size:
            return Content(f"{found.sha256}-{image.offset}-{image.size}", image.size, image.size, image.offset)
    return Content(found.sha256, found.size, found.size)


@lru_cache(1 << 14)
def describe(found: Found) -> Mapping[str, str]:
    """Return the headers that say which content this is."""
    headers = {
        "X-Symcache-Uuid": uuid_text(found.uuid) if found.uuid else "",
        "X-Symcache-Kind": found.kind.value,
        "X-Symcache-Arch": header_text(found.arch),
        "X-Symcache-Size": str(found.size),
        "X-Symcache-Path": header_text(found.path),
        "X-DEBUGINFOD-SIZE": str(found.size),
        "X-DEBUGINFOD-FILE": header_text(found.name),
    }
    if found.build:
        headers["X-Symcache-Build"] = found.build
    if found.cache_uuid:
        headers["X-Symcache-Cache"] = uuid_text(found.cache_uuid)
    return headers


def missing(reason: str) -> web.Response:
    """Return a 404 that may be remembered for a moment only."""
    return web.Response(status=404, text=reason + "\n", headers={"Cache-Control": MISSING})
