"""The fast path: a whole response that was given before goes out again, without task, request object or header map.

Dump loaders ask for hundreds of binaries in a burst, and the next one asks for the same. aiohttp takes some 50 µs of
Python for a request and its response, which is as long as the kernel takes to send 300 KB. So each connection is looked
at first by `_Connection`. It hands everything on to aiohttp's own protocol, but for one case:

- one whole GET or HEAD has come, by itself, with no header fields but those of `_PLAIN` (aiohttp's parser says so);
- aiohttp has responded to everything before it on this connection;
- the same path was responded to in full before, in the same encoding, and the library has not changed since;
- anybody may read, and the client is within its rate.

Then the head is sent again as it was, with a new date, and the file behind it. What the socket does not take at once is
left to aiohttp, which waits for slow readers, and for them to finish when the server stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpProcessingError, HttpRequestParser, HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy

from symcache.errors import NotFoundError
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.content import Content
from symcache_server.http.metrics import REPEATED, TYPE, AccessLogger, RequestInfo, note
from symcache_server.http.negotiation import accepts_zstd

__all__ = ["FastPath", "FastPathLogger", "take_rest"]

_PLAIN = frozenset(
    {
        *("host", "user-agent", "accept", "accept-encoding", "connection"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"),
    }
)
"""Fields that no response depends on, but for Accept-Encoding. With any other one, a request is aiohttp's."""
_REMEMBERED = 1 << 15
_LONGEST_PATH = 200
_SMALL = 32 << 10
"""Up to this size, one read and one write cost less than a write and a sendfile."""
_READ_SIZE = 1 << 16
_IDLE_SECONDS = 3630.0
"""As aiohttp's own: longer than proxies keep connections."""


class _Remembered(NamedTuple):
    """What was sent before."""

    kind: str
    """What the request was, for the metrics."""
    head: bytes
    """Status line and fields, as far as the date."""
    size: int
    """Bytes of the body."""
    reopen: Callable[[], int | None]
    """Opens its file; None: it is not ready."""


class _RequestInfo(NamedTuple):
    """As `symcache_server.http.metrics.RequestInfo`."""

    remote: str
    method: str
    path_qs: str
    headers: CIMultiDictProxy[str]


class FastPath:
    """The responses that one process remembers.

    `wait` counts a look-up, and returns for how many seconds its client may ask no more; None: there is no limit.
    """

    def __init__(
        self, files: DecodedCache, *, enabled: bool, wait: Callable[[RequestInfo], float] | None = None
    ) -> None:
        # Elsewhere sendfile and MSG_MORE are not the same.
        self.enabled, self.wait, self._files = enabled and sys.platform == "linux", wait, files
        self._responses: OrderedDict[tuple[str, bool], _Remembered] = OrderedDict()
        self.age = 0

    def remember(self, request: web.BaseRequest, content: Content, headers: Mapping[str, str], *, stored: bool) -> None:
        """Keep the response to a GET, for all who will send the same."""
        path = request.raw_path
        if not self.enabled or len(path) > _LONGEST_PATH or not _is_plain(request.headers):
            return
        size = content.stored_size if stored else content.size
        fields = dict(headers) | {"Content-Length": str(size), "Server": SERVER_SOFTWARE}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reopen = self._files.reopener(content, stored=stored)
        response = _Remembered(request[TYPE], f"HTTP/1.1 200 OK\r\n{lines}Date: ".encode(), size, reopen)
        self._responses[path, _takes_zstd(request.headers)] = response
        if len(self._responses) > _REMEMBERED:
            self._responses.popitem(last=False)

    def find(self, message: RawRequestMessage) -> _Remembered | None:
        """Return the response to the same request, or None."""
        return self._responses.get((message.path, _takes_zstd(message.headers)))

    def forget(self) -> None:
        """Drop everything: the library has changed."""
        self.age += 1
        self._responses.clear()

    def protocols(self, make: Callable[[], web.RequestHandler]) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of each connection, of one of aiohttp's that `make` returns."""
        return (lambda: _Connection(self, make())) if self.enabled else make


class _Connection(asyncio.Protocol):
    """One connection: what cannot be sent at once is `handler`'s, which is aiohttp's protocol."""

    def __init__(self, fast: FastPath, handler: web.RequestHandler) -> None:
        self._fast, self._handler = fast, handler
        self._parser: HttpRequestParser | None = None
        """None: something has come that only aiohttp can follow, and so is all that comes after."""
        self._pending = 0
        """How many requests aiohttp was given and has not said yet that it has responded to."""
        self.rest: _Rest | None = None
        """What is left of an response, until aiohttp takes it over."""
        self._used = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """Ends the connection when nothing has come for long, as aiohttp's timer does, while that one is off."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler.connection_made(transport)
        self._socket = socket.socket(fileno=transport.get_extra_info("socket").fileno())
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self._handler, loop, _READ_SIZE)
        _connections[self._handler] = self

    def data_received(self, data: bytes) -> None:
        if not self._respond(data):
            self._stop_timer()
            self._handler.data_received(data)

    def eof_received(self) -> None:
        self._handler.eof_received()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        _connections.pop(self._handler, None)
        self._stop_timer()
        self._socket.detach()  # the transport closes it
        if self.rest is not None:
            os.close(self.rest.descriptor)
        self._handler.connection_lost(error)

    def responded(self) -> None:
        """Take note that aiohttp has sent the response to what it was given."""
        self._pending -= 1

    def _start_timer(self) -> None:
        self._handler.keep_alive(True)  # stops its timer, which knows nothing of this request
        loop = asyncio.get_running_loop()
        self._used = loop.time()
        if self._timer is None:
            self._timer = loop.call_at(self._used + _IDLE_SECONDS, self._close_if_idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_idle(self) -> None:
        loop, end = asyncio.get_running_loop(), self._used + _IDLE_SECONDS
        if loop.time() < end:
            self._timer = loop.call_at(end, self._close_if_idle)
        else:
            self._transport.close()

    def _respond(self, data: bytes) -> bool:
        """Return whether the request was responded to; if not, it is aiohttp's."""
        start = time.perf_counter()
        if self._parser is None or (message := _parse(self._parser, data)) is None:
            # Also behind others that wait for their responses: what comes next may be the body of this one.
            self._parser = None
            return False
        self._pending += 1
        if self._pending > 1 or not _is_plain(message.headers) or (response := self._fast.find(message)) is None:
            return False
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        descriptor = _reopen(response)
        if descriptor is None:
            return False
        try:
            info = _RequestInfo(self._address, message.method, message.path, message.headers)
            if self._fast.wait is not None and self._fast.wait(info):
                return False  # aiohttp's handler will find the same, and say so
            sent = self._send(response, descriptor, body=message.method == hdrs.METH_GET)
            if sent < response.size and message.method == hdrs.METH_GET:
                self.rest, descriptor = _Rest(response.kind, descriptor, sent, response.size), -1
                return False
        except ConnectionError:
            self._transport.abort()
            return True
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        self._pending -= 1
        self._start_timer()
        REPEATED.inc()
        note(response.kind, HTTPStatus.OK, sent, time.perf_counter() - start, info)
        return True

    def _send(self, response: _Remembered, descriptor: int, *, body: bool) -> int:
        """Send the head and what the socket takes of the body; return how much of that. Raises ConnectionError."""
        head = response.head + _date_and_end(int(time.time()))
        sent, written = 0, 0
        with contextlib.suppress(BlockingIOError):
            if not body or response.size <= _SMALL:
                data = os.pread(descriptor, response.size, 0) if body else b""
                written = self._socket.send(head + data)
                sent = max(0, written - len(head))
            else:
                written = self._socket.send(head, socket.MSG_MORE)
                while written == len(head) and sent < response.size:
                    part = os.sendfile(self._socket.fileno(), descriptor, sent, response.size - sent)
                    if not part:
                        break  # shorter than it was: found out by whoever sends the rest
                    sent += part
        if written < len(head):
            self._transport.write(head[written:])
        return sent


_connections: dict[web.RequestHandler, _Connection] = {}


class _Rest(web.StreamResponse):
    """What the socket did not take of an response whose head has been sent."""

    keep_alive = True  # as the head has said

    def __init__(self, kind: str, descriptor: int, sent: int, size: int) -> None:
        super().__init__()
        self.kind, self.descriptor, self.sent, self._size = kind, descriptor, sent, size

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with open(self.descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            transport = request.transport
            if transport is None:
                raise ConnectionResetError("the client has gone")
            loop = asyncio.get_running_loop()
            self.sent += await loop.sendfile(transport, file, self.sent, self._size - self.sent)
        if self.sent != self._size:
            transport.abort()  # what is cut must look cut
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        del data


def take_rest(request: web.BaseRequest) -> web.StreamResponse | None:
    """Return the rest of a response that the fast path has begun, or None."""
    connection = _connections.get(request.protocol)
    if connection is None or (rest := connection.rest) is None:
        return None
    connection.rest = None
    request[TYPE] = rest.kind
    return rest


class FastPathLogger(AccessLogger):
    """Tells the fast path, too, that an response has been sent."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Take note of one response; `time` in seconds."""
        super().log(request, response, time)
        if (connection := _connections.get(request.protocol)) is not None:
            connection.responded()


def _parse(parser: HttpRequestParser, data: bytes) -> RawRequestMessage | None:
    """Return the one request of which `data` is the whole head, or None."""
    if not data.startswith((b"GET /", b"HEAD /")) or data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    try:
        messages, upgraded, _ = parser.feed_data(data)
    except HttpProcessingError:
        return None
    if upgraded or len(messages) != 1:
        return None
    message, body = messages[0]
    if message.should_close or message.version != HttpVersion11 or not body.is_eof():
        return None
    return message


def _is_plain(headers: Mapping[str, str]) -> bool:
    return all(name.lower() in _PLAIN for name in headers)


def _takes_zstd(headers: CIMultiDictProxy[str]) -> bool:
    fields = headers.getall(hdrs.ACCEPT_ENCODING, None)
    return fields is not None and accepts_zstd(",".join(fields))


def _reopen(response: _Remembered) -> int | None:
    try:
        return response.reopen()
    except (OSError, NotFoundError):
        return None


@lru_cache(2)
def _date_and_end(now: int) -> bytes:
    return f"{formatdate(now, usegmt=True)}\r\n\r\n".encode()
