"""Source files of the binaries that the library holds: debuginfod's `/buildid/{hex}/source/{path}`.

Served is what lies in the trees that the operator named, and what the line tables of the binary or of its dSYM name.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from uuid import UUID

from aiohttp import web

from symcache.dump import source_path
from symcache.errors import NotFoundError
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.model import Kind, uuid_text
from symcache_server.convert.sources import REVISION, make_file_list
from symcache_server.http.content import REVALIDATE, Content, PlainSource, header_text, send
from symcache_server.keys import DECODED, MADE, RESOLVER, SOURCES
from symcache_server.layouts import Lookup
from symcache_server.lookup.headers import size_headers

__all__ = ["read_source", "send_source"]


class _Bytes(PlainSource):
    """Content that is in memory, as a file that can be sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor. Raises OSError."""
        return await asyncio.to_thread(self._write)

    def _write(self) -> int:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("source", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        with open(descriptor, "wb", closefd=False) as out:
            out.write(self._data)
        return descriptor


async def send_source(request: web.Request, lookup: Lookup) -> web.StreamResponse:
    """Send a source file. Raises NotFoundError, and UsageError for what is no path."""
    uuid, path = lookup.image.uuid, source_path("/" + lookup.detail)
    data = await read_source(request.app, lookup.image, path)
    headers = {
        "Cache-Control": REVALIDATE,
        "X-Symcache-Uuid": uuid_text(uuid),
        **size_headers(len(data)),
        "X-DEBUGINFOD-FILE": header_text(path),
    }
    content = Content(hashlib.sha256(data).hexdigest(), len(data), len(data))
    return await send(request, _Bytes(data), content, headers)


async def read_source(app: web.Application, image: ImageRequest, path: str) -> bytes:
    """Return a source file of an image, or of its dSYM. Raises NotFoundError, and UsageError for what is no path."""
    path = source_path(path)
    if not app[SOURCES]:
        raise NotFoundError(f"source of {uuid_text(image.uuid)}: none are served here", hint="symcache serve --sources")
    kinds = (Kind.DEBUGINFO, Kind.EXECUTABLE)
    images = [one for kind in kinds if (one := await app[RESOLVER].resolve(image._replace(kind=kind)))]
    if not images:
        raise NotFoundError(f"{uuid_text(image.uuid)}: nobody here has this binary, nor its sources")
    await _must_name(app, image.uuid, images, path)
    return await asyncio.to_thread(app[SOURCES].read, path, image.uuid)


async def _must_name(app: web.Application, uuid: UUID, images: list[Found], path: str) -> None:
    """Raise NotFoundError unless the line tables of one of the images of a UUID name a file."""
    any_table = False
    for image in images:
        # Cached for each content, since it takes a process to read one.
        parts = [(app[DECODED], image.sha256, image.size)]
        source, content = await app[MADE].get(parts, f"sources{REVISION}", make_file_list)
        if content.size == 0:
            continue
        descriptor = await source.open(content.sha256, content.size)
        if await asyncio.to_thread(_has_line, descriptor, path):
            return
        any_table = True
    if any_table:
        raise NotFoundError(f"{path[:200]!r}: the line tables of {uuid_text(uuid)} name no such file")
    raise NotFoundError(
        f"{uuid_text(uuid)}: has no line tables here, which tell what its sources are",
        hint="have its dSYM added: `symcache add` or `symcache push`",
    )


def _has_line(descriptor: int, line: str) -> bool:
    """Return whether a file has a line; closes it."""
    with open(descriptor, "rb") as file:
        return f"\n{line}\n".encode() in b"\n" + file.read()
