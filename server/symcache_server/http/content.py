"""Sends stored content, in the form and the range that `plan` has decided on.

RFC 9111 5.2.2 (Cache-Control); see `plan` for RFC 9110.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from aiohttp import hdrs, web

from symcache import __version__
from symcache.errors import IntegrityError, NotFoundError
from symcache_server.http.file_body import FileBody
from symcache_server.http.negotiation import entity_tags
from symcache_server.http.plan import Content, HeadersOnly, Transfer, plan

__all__ = [
    "IMMUTABLE",
    "MISSING",
    "PINNED",
    "REVALIDATE",
    "SIGNATURE",
    "Content",
    "OffloadedBody",
    "Offloader",
    "PlainFile",
    "PlainSource",
    "Source",
    "header_text",
    "send",
    "send_json",
]

IMMUTABLE = "public, max-age=31536000, immutable"
"""For a path that always names the same content."""
PINNED = "public, max-age=86400, immutable"
"""For a path that names the same content until somebody extracts it anew with a better extractor."""
REVALIDATE = "public, max-age=300"
"""For a path under which a later harvest may bring a better content."""
MISSING = "public, max-age=60"
"""For a 404: the next harvest may bring the content."""
SIGNATURE = {"X-Symcache-Version": __version__, "X-Content-Type-Options": "nosniff"}
"""On every response. By the version, clients know that a 404 covers all layouts and pins."""

_INLINE = 32 << 10
"""Bytes up to which reading the file and sending it with the headers is cheaper than sendfile."""


class Source(Protocol):
    """Opens files to send; implemented by `DecodedCache`."""

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the decoded content."""

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor of the content as one zstd frame."""


class OffloadedBody(web.Response):
    """A response whose body another program sends."""

    def __init__(self, headers: dict[str, str], count: int) -> None:
        super().__init__(headers=headers)
        self.sent = count
        """Bytes of the body, for the metrics."""


class Offloader(Protocol):
    """Lets another program send a body; implemented by `Offload`."""

    async def redirect(self, request: web.BaseRequest, transfer: Transfer) -> web.Response | None:
        """Return a response that sends the client elsewhere for the stored form, or None. Nothing was opened yet."""

    def handover(self, request: web.BaseRequest, transfer: Transfer) -> web.Response | None:
        """Return a response that names the opened file to the proxy, which sends the body, or None."""


class PlainSource(ABC):
    """Opens files that have no stored form: both methods return the plain one."""

    @abstractmethod
    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor."""

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor, as `open`."""
        return await self.open(sha256, size)


class PlainFile(PlainSource):
    """A single file, such as one that was fetched from another server."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor."""
        try:
            return os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            raise NotFoundError(f"{sha256}: made room in the cache", hint="ask again") from None


async def send(
    request: web.BaseRequest,
    source: Source,
    content: Content,
    headers: dict[str, str],
    offload: Offloader | None = None,
) -> web.StreamResponse:
    """Return the response for `content`. Whatever can fail happens before the headers are sent."""
    transfer = plan(request, content, headers)
    if isinstance(transfer, HeadersOnly):
        return transfer.response()
    offload = offload if transfer.count > _INLINE else None
    if offload and transfer.zstd and (elsewhere := await offload.redirect(request, transfer)):
        return elsewhere
    descriptor = await _open(source, transfer)
    if offload and (handed := offload.handover(request, transfer)):
        os.close(descriptor)
        return handed
    return _body(descriptor, transfer)


async def _open(source: Source, transfer: Transfer) -> int:
    content = transfer.content
    if transfer.zstd:
        return await source.open_stored(content.sha256, content.size, content.stored_size)
    return await source.open(content.sha256, content.size)


def _body(descriptor: int, transfer: Transfer) -> web.StreamResponse:
    """Return a response with the body from an open file, which it closes."""
    offset, status, headers = transfer.content.start + transfer.first, transfer.status, transfer.headers
    if transfer.count > _INLINE:
        return FileBody(descriptor, offset, transfer.count, status, headers)
    try:
        body = os.pread(descriptor, transfer.count, offset)
    finally:
        os.close(descriptor)
    if len(body) != transfer.count:  # sent as it is, it would look whole
        raise IntegrityError(
            f"{transfer.content.sha256}: its file ends after {len(body)} of {transfer.count} bytes",
            hint="delete the server's cache of decoded files",
        )
    return web.Response(body=body, status=status, headers=headers)


def send_json(request: web.BaseRequest, text: str, caching: str) -> web.Response:
    """Return the response for a JSON text that is generated for each request, with an entity tag."""
    body = text.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    none_match = request.headers.get(hdrs.IF_NONE_MATCH, "")
    if entity_tags(none_match, weak=True) & {"*", etag}:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")


def header_text(text: str) -> str:
    """Return text from a harvested system as a header may hold it: percent-encoded, but for usual path characters."""
    return quote(text, safe="/ ()+,.-_@~=")
