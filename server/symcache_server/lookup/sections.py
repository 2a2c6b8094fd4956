"""One section of an image, for debuginfod's `/section/{name}`: found by the headers, and sent from the decoded file.

Images that are not in the library are fetched whole from upstream servers, since a section alone cannot be checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web

from symcache.library import Found
from symcache.macho import Section
from symcache.model import Kind, uuid_text
from symcache_server.convert.sections import find_in_slice, find_section, is_debug
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.content import REVALIDATE, Content, PlainFile, PlainSource, Source, send
from symcache_server.keys import DECODED, RESOLVER
from symcache_server.layouts import Lookup
from symcache_server.lookup.headers import fetched_headers, image_headers, not_found, size_headers

__all__ = ["send_section"]


class _SectionFile(NamedTuple):
    """A section: the headers of the image that has it, where its file is opened, what to send of that."""

    headers: Mapping[str, str]
    source: Source
    content: Content


class _Image(PlainSource):
    """The file that a section is a part of."""

    def __init__(self, decoded: DecodedCache, image: Found) -> None:
        self._decoded, self._image = decoded, image

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the whole image."""
        return await self._decoded.open(self._image.sha256, self._image.size)


async def send_section(request: web.Request, lookup: Lookup) -> web.StreamResponse:
    """Send the bytes of one section, or 404. Raises RemoteError when it may be upstream and no server is reached."""
    section = await _find(request, lookup)
    if section is None:
        return not_found(f"nobody here has the section {lookup.detail[:100]!r} of {uuid_text(lookup.image.uuid)}")
    headers = {**section.headers, **size_headers(section.content.size), "Cache-Control": REVALIDATE}
    return await send(request, section.source, section.content, headers)


async def _find(request: web.Request, lookup: Lookup) -> _SectionFile | None:
    """Return the section of the library's dSYM, its binary, or of what upstream servers have."""
    resolver, decoded = request.app[RESOLVER], request.app[DECODED]
    missing = []
    for wanted in (lookup.image._replace(kind=Kind.DEBUGINFO), lookup.image):
        image = await resolver.resolve(wanted)
        if image is None:
            missing.append(wanted)
            continue
        descriptor = await decoded.open(image.sha256, image.size)
        section = await asyncio.to_thread(find_section, descriptor, 0, image.size, lookup.detail)
        if section is not None:
            return _SectionFile(image_headers(image), _Image(decoded, image), _content(image.sha256, section))
    if not is_debug(lookup.detail):  # what is fetched is large: the likelier one first
        missing.reverse()
    for wanted in missing:
        if (fetched := await resolver.fetch(wanted, request)) is None:
            continue
        section = await asyncio.to_thread(find_in_slice, fetched.path, wanted, lookup.detail)
        if section is not None:
            content = _content(fetched.sha256, section)
            return _SectionFile(fetched_headers(wanted, fetched), PlainFile(fetched.path), content)
    return None


def _content(sha256: str, section: Section) -> Content:
    tag = f"{sha256}-{section.offset}-{section.size}"
    return Content(tag, section.size, section.size, section.offset)
