"""Breakpad symbol files, made from dSYM and binary when they are first requested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web

from symcache.client import FetchedImage
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.macho import identify
from symcache.model import Kind
from symcache_server.convert.breakpad import REVISION, make_symbol_file
from symcache_server.http.content import REVALIDATE, PlainFile, Source, send
from symcache_server.keys import DECODED, MADE, RESOLVER
from symcache_server.layouts import Lookup
from symcache_server.lookup.headers import size_headers

__all__ = ["send_fetched_symbol_file", "send_symbol_file"]

_Part = tuple[Source, str, int]
"""Where an image is opened, its hash and its size."""


async def send_symbol_file(
    request: web.Request, lookup: Lookup, image: Found, headers: dict[str, str]
) -> web.StreamResponse:
    """Send the symbol file of a binary of the library, or of a dSYM whose binary is not there."""
    dsym = await request.app[RESOLVER].resolve(lookup.image._replace(kind=Kind.DEBUGINFO))
    images = dict.fromkeys(one for one in (dsym, image) if one is not None)
    parts = [(request.app[DECODED], one.sha256, one.size) for one in images]
    make = partial(make_symbol_file, uuid=lookup.image.uuid, arch=image.arch, name=image.name)
    return await _send_made(request, parts, make, headers)


async def send_fetched_symbol_file(
    request: web.Request, wanted: ImageRequest, binary: FetchedImage, headers: dict[str, str]
) -> web.StreamResponse:
    """Send the symbol file of a binary that an upstream server has."""
    parts: list[_Part] = [(PlainFile(binary.path), binary.sha256, binary.size)]
    if dsym := await request.app[RESOLVER].fetch(wanted._replace(kind=Kind.DEBUGINFO), request):
        parts.insert(0, (PlainFile(dsym.path), dsym.sha256, dsym.size))
    # By the name in the file itself: the result is cached for all clients, whatever name they use.
    image = next(i for i in await asyncio.to_thread(identify, binary.path) if i.uuid == wanted.uuid)
    name = (image.install_name or "").rpartition("/")[2] or wanted.uuid.hex
    make = partial(make_symbol_file, uuid=wanted.uuid, arch=image.arch, name=name)
    return await _send_made(request, parts, make, headers)


async def _send_made(
    request: web.Request, parts: Sequence[_Part], make: Callable[..., None], headers: dict[str, str]
) -> web.StreamResponse:
    source, content = await request.app[MADE].get(
        parts, f"sym{REVISION}", lambda descriptors, target: make(tuple(descriptors), target=target)
    )
    # Not immutable: a dSYM may be added, and a later version of this program may make a better file.
    headers |= size_headers(content.size) | {"Cache-Control": REVALIDATE}
    return await send(request, source, content, headers)
