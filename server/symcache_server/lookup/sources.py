"""Source files of the binaries that the library holds: debuginfod's `/buildid/{hex}/source/{path}`.

Served is what lies in the trees that the operator named, of a binary that the library holds, and if it holds the debug
info, too, only files whose name is in the line table.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile

from aiohttp import web

from symcache.dump import source_path
from symcache.errors import NotFoundError
from symcache.model import Kind, uuid_text
from symcache_server.convert.sources import names_file
from symcache_server.http.content import REVALIDATE, Content, header_text, send
from symcache_server.keys import DECODED, RESOLVER, SOURCES
from symcache_server.layouts import Lookup
from symcache_server.lookup.headers import size_headers

__all__ = ["send_source"]


class _Bytes:
    """Content that is in memory, as a file that can be sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor."""
        with tempfile.TemporaryFile() as file:
            file.write(self._data)
            file.flush()
            return os.dup(file.fileno())

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor; there is no other form than the plain one."""
        return await self.open(sha256, size)


async def send_source(request: web.Request, lookup: Lookup) -> web.StreamResponse:
    """Send a source file. Raises NotFoundError, and UsageError for what is no path."""
    app, uuid = request.app, lookup.image.uuid
    path = source_path("/" + lookup.detail)
    if not app[SOURCES]:
        raise NotFoundError(f"source of {uuid_text(uuid)}: none are served here", hint="symcache serve --sources")
    debug_info = await app[RESOLVER].resolve(lookup.image._replace(kind=Kind.DEBUGINFO))
    if debug_info is not None:
        descriptor = await app[DECODED].open(debug_info.sha256, debug_info.size)
        if not await asyncio.to_thread(names_file, descriptor, path.rpartition("/")[2]):
            raise NotFoundError(f"{path[:200]!r}: the line tables of {uuid_text(uuid)} name no such file")
    elif await app[RESOLVER].resolve(lookup.image) is None:
        raise NotFoundError(f"{uuid_text(uuid)}: nobody here has this binary, nor its sources")
    data = await asyncio.to_thread(app[SOURCES].read, path, uuid)
    headers = {
        "Cache-Control": REVALIDATE,
        "X-Symcache-Uuid": uuid_text(uuid),
        **size_headers(len(data)),
        "X-DEBUGINFOD-FILE": header_text(path),
    }
    content = Content(hashlib.sha256(data).hexdigest(), len(data), len(data))
    return await send(request, _Bytes(data), content, headers)
