"""Sending stored content as HTTP means it: validators, ranges, stored encoding, sendfile.

RFC 9110: 8.8.3 (ETag), 13.1 (preconditions), 13.1.5 (If-Range), 14 (ranges); RFC 9111: 5.2.2 (Cache-Control).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from symcache import __version__
from symcache.errors import NotFoundError

__all__ = [
    "IMMUTABLE",
    "MISSING",
    "PINNED",
    "REVALIDATE",
    "SIGNATURE",
    "Content",
    "Memory",
    "OffloadedBody",
    "Offloader",
    "PlainFile",
    "Source",
    "send",
    "send_json",
]

IMMUTABLE = "public, max-age=31536000, immutable"
"""Where the path names one content for ever."""
PINNED = "public, max-age=86400, immutable"
"""Where it names one content as long as nobody extracts it anew with a better extractor: a day's delay then."""
REVALIDATE = "public, max-age=300"
"""Where a later harvest may give a better answer."""
MISSING = "public, max-age=60"
"""For what nobody has: the next harvest may bring it."""
SIGNATURE = {"X-Symcache-Version": __version__, "X-Content-Type-Options": "nosniff"}
"""On every answer: a 404 of this server is about all layouts and pins."""

_INLINE = 32 << 10
"""Up to this size, one read and one write cost less than sending headers and file apart."""
_NO_SENDFILE = sys.platform != "linux"
_CODING = re.compile(r"\s*(zstd|identity)\s*(?:;\s*q=([0-9.]+)\s*)?", re.IGNORECASE)
_MAX_SIZE = re.compile(r"\s*[0-9]{1,18}\s*")
_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE)
_ENDLESS = 10**20
"""More bytes than any content has."""


@dataclass(frozen=True, slots=True)
class Content:
    """One blob to send: sizes in bytes; `stored_size` is that of its zstd frame, or `size` where there is none.

    `sha256` is what its entity tag says; for what is made from a blob, with a word behind it for what and how.
    """

    sha256: str
    size: int
    stored_size: int
    start: int = 0
    """Where it begins in the file that holds it, plain."""


class _FileBody(web.StreamResponse):
    """`count` bytes of an open file from `offset` on, by sendfile where the transport can."""

    def __init__(self, descriptor: int, offset: int, count: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._descriptor, self._offset, self._count = descriptor, offset, count
        self.content_length = count
        self.sent = 0
        """Bytes of the body that have gone out."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with io.FileIO(self._descriptor, closefd=True) as file:
            with _corked(request.transport):
                writer = await super().prepare(request)
                if writer is None or request.method == hdrs.METH_HEAD or not self._count:
                    await super().write_eof()
                    return writer
                transport = request.transport
                if transport is None:
                    raise ConnectionResetError("the client has gone")
                self._send_at_once(transport)
            if self.sent < self._count:
                # Waits for slow readers; with TLS the event loop reads and writes by itself.
                loop = asyncio.get_running_loop()
                self.sent += await loop.sendfile(transport, file, self._offset + self.sent, self._count - self.sent)
            if self.sent != self._count:
                transport.abort()  # what is cut must look cut
            else:
                await super().write_eof()
            return writer

    def _send_at_once(self, transport: asyncio.Transport) -> None:
        """Send what the socket takes without waiting: mostly everything, for a fraction of the event loop's cost."""
        sock = transport.get_extra_info("socket")
        if _NO_SENDFILE or sock is None or transport.get_extra_info("sslcontext") or transport.get_write_buffer_size():
            return
        with contextlib.suppress(BlockingIOError):
            while self.sent < self._count:
                left = self._count - self.sent
                part = os.sendfile(sock.fileno(), self._descriptor, self._offset + self.sent, left)
                if not part:
                    break
                self.sent += part


@contextlib.contextmanager
def _corked(transport: asyncio.Transport | None) -> Iterator[None]:
    """Have the kernel send headers and file together: apart, the client is woken twice, for a third of the rate."""
    sock = transport.get_extra_info("socket") if transport and not transport.get_extra_info("sslcontext") else None
    if _NO_SENDFILE or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        yield
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


class Source(Protocol):
    """Where open files come from; `DecodedCache` is one."""

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the decoded content."""

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor of the content as one zstd frame."""


class OffloadedBody(web.Response):
    """An answer whose body another program sends."""

    def __init__(self, headers: dict[str, str], count: int) -> None:
        super().__init__(headers=headers)
        self.sent = count
        """Bytes of the body, for the metrics."""


class Offloader(Protocol):
    """Who may have another program send a body; `Offload` is one."""

    async def redirect(
        self, request: web.BaseRequest, content: Content, headers: dict[str, str]
    ) -> web.Response | None:
        """Return an answer that sends the client elsewhere for the stored form, or None. Nothing was opened yet."""

    def handover(
        self, request: web.BaseRequest, content: Content, count: int, headers: dict[str, str]
    ) -> web.Response | None:
        """Return an answer that names the opened file to the proxy, which sends `count` bytes of it, or None."""


class Memory(Protocol):
    """Who may answer the same request by itself, next time; `FastPath` is one."""

    age: int
    """How often it has forgotten everything."""

    def remember(self, request: web.BaseRequest, content: Content, headers: Mapping[str, str], *, stored: bool) -> None:
        """Keep with which headers all of a content is sent: decoded, or as it is `stored`."""


class PlainFile:
    """A file of its own, such as one that was fetched or made here."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor."""
        try:
            return os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            raise NotFoundError(f"{sha256}: made room in the cache", hint="ask again") from None

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor; there is no other form than the plain one."""
        return await self.open(sha256, size)


async def send(
    request: web.BaseRequest,
    cache: Source,
    content: Content,
    headers: dict[str, str],
    offload: Offloader | None = None,
    memory: Memory | None = None,
) -> web.StreamResponse:
    """Return the answer for `content`, with everything that can fail done before its headers go out."""
    ranged = hdrs.RANGE in request.headers and request.method == hdrs.METH_GET
    zstd = (
        not ranged
        and content.stored_size < content.size
        and accepts_zstd(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])))
    )
    known = f'"{content.sha256}"', f'"{content.sha256}-zstd"'
    etag = known[zstd]
    headers |= {"ETag": etag, "Accept-Ranges": "bytes", "Vary": "Accept-Encoding"}

    most = request.headers.get("X-DEBUGINFOD-MAXSIZE", "")
    if _MAX_SIZE.fullmatch(most) and 0 < int(most) < content.size:  # as debuginfod's clients ask
        text = f"{content.size} bytes are more than the {int(most)} that are wanted\n"
        return web.Response(status=406, text=text, headers={"Cache-Control": "no-store"})
    if (match := request.headers.get(hdrs.IF_MATCH)) and not _tags(match) & {"*", *known}:
        return web.Response(status=412, headers=headers)
    if none_match := request.headers.get(hdrs.IF_NONE_MATCH):
        tags = _tags(none_match, weak=True)
        if tags & {"*", etag}:
            return web.Response(status=304, headers=headers)
        if same := tags.intersection(known):
            # Whoever has the content in its other form needs no other one: the tag says which of his is meant.
            return web.Response(status=304, headers=headers | {"ETag": same.pop()})
    headers["Content-Type"] = "application/octet-stream"
    if zstd:
        headers["Content-Encoding"] = "zstd"

    age = memory.age if memory else 0
    length = content.stored_size if zstd else content.size
    first, last, status = 0, length - 1, 200
    if ranged and request.headers.get(hdrs.IF_RANGE, etag).strip() == etag:
        span = parse_range(request.headers[hdrs.RANGE], length)
        if span == ():
            return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{length}"})
        if span:
            (first, last), status = span, 206
            headers["Content-Range"] = f"bytes {first}-{last}/{length}"
    count = last - first + 1
    if request.method == hdrs.METH_HEAD:
        return web.Response(status=200, headers=headers | {"Content-Length": str(length)})

    large = count > _INLINE
    if zstd and large and offload and (elsewhere := await offload.redirect(request, content, headers)):
        return elsewhere
    if zstd:
        descriptor = await cache.open_stored(content.sha256, content.size, content.stored_size)
    else:
        descriptor = await cache.open(content.sha256, content.size)
    if memory and status == HTTPStatus.OK and memory.age == age:  # nothing has changed while it was made ready
        memory.remember(request, content, headers | SIGNATURE, stored=zstd)
    if large and offload and (handed := offload.handover(request, content, count, headers)):
        os.close(descriptor)
        return handed
    if large:
        return _FileBody(descriptor, content.start + first, count, status, headers)
    try:
        body = os.pread(descriptor, count, content.start + first)
    finally:
        os.close(descriptor)
    return web.Response(body=body, status=status, headers=headers)


def send_json(request: web.BaseRequest, text: str, caching: str) -> web.Response:
    """Return the answer for a JSON text that is made anew each time, with a tag to ask again by."""
    body = text.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    none_match = request.headers.get(hdrs.IF_NONE_MATCH, "")
    if _tags(none_match, weak=True) & {"*", etag}:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")


def parse_range(text: str, length: int) -> tuple[int, int] | tuple[()] | None:
    """Return (first, last) of a byte range; `()` if it lies outside; None if it is to be ignored.

    Ignored are malformed ranges, other units and several ranges at once: a server may answer those in full.
    """
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        suffix = min(_number(found[2]), length)
        return (length - suffix, length - 1) if suffix else ()
    first = _number(found[1])
    last = _number(found[2]) if found[2] else length - 1
    if last < first and found[2]:
        return None
    return (first, min(last, length - 1)) if first < length else ()


def _number(digits: str) -> int:
    """Return a number of however many digits, or `_ENDLESS` where it is larger."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 20 else _ENDLESS


@lru_cache(256)
def accepts_zstd(field: str) -> bool:
    """Return whether a client takes zstd, and not rather the plain content; `*` does not count: nobody means it.

    `field` is its Accept-Encoding, of several all with commas between them.
    """
    weights: dict[str, float] = {}
    for part in field.split(","):
        if found := _CODING.fullmatch(part):
            weights.setdefault(found[1].lower(), _weight(found[2]))
    zstd = weights.get("zstd", 0.0)
    return zstd > 0 and zstd >= weights.get("identity", 0.0)


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def header_text(text: str) -> str:
    """Return text from a harvested system, fit for a header: percent-encoded but for what paths are made of."""
    return quote(text, safe="/ ()+,.-_@~=")


def _tags(field: str, *, weak: bool = False) -> set[str]:
    """Return the entity tags of a list; for a `weak` comparison without the mark of weak ones (RFC 9110 8.8.3.2)."""
    tags = (tag.strip() for tag in field.split(","))
    return {tag.removeprefix("W/") for tag in tags} if weak else set(tags)
