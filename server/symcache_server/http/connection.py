"""aiohttp's protocol for one connection, with time limits for clients that send or read nothing.

Requests that are no HTTP never reach the application: aiohttp responds to them by itself, and so it does when a handler
fails. Those responses get the same headers here as all others.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from symcache_server.config import ServerConfig
from symcache_server.http.content import SIGNATURE
from symcache_server.http.file_body import SendingConnection

__all__ = ["ClientConnection", "is_worth_a_line"]


class ClientConnection(web.RequestHandler, SendingConnection):
    """One connection to a `web.Server`.

    The head of the first request must be complete `config.head_seconds` after the connection was made, that of a later
    one as long after its first byte. Between requests aiohttp's `keepalive_timeout` holds, which is longer than that of
    any proxy. While the server works on a response, there is no limit.
    """

    __slots__ = ("_body_seconds", "_head_seconds", "_head_timer", "_made", "_taken", "active", "lost", "sending")

    def __init__(self, server: web.Server, config: ServerConfig, **options: Any) -> None:
        super().__init__(server, **options)
        self._head_seconds, self._body_seconds = config.head_seconds, config.body_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._made: asyncio.Transport | None = None
        self._taken = -1, 0.0
        self.sending: asyncio.Future[int] | None = None
        self.active = self._loop.time()
        """When the client last sent anything, in the event loop's time."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection has ended."""

    @property
    def is_idle(self) -> bool:
        """Whether the server waits for the head of a request, or for the end of the TLS handshake."""
        if self._made is None:
            return not self.lost.done()
        return self._waiter is not None and not self._waiter.done()

    def has_stalled(self) -> bool:
        """Return whether the client has read nothing of what waits for it for `config.body_seconds`; call it regularly.

        It goes by the bytes that the client's system has acknowledged: sendfile shows nothing else of its progress.
        """
        waits, taken = _output(self._made)
        now = self._loop.time()
        if not waits or taken != self._taken[0]:
            self._taken = taken, now
        return now - self._taken[1] >= self._body_seconds

    def abort(self) -> bool:
        """End the connection at once; return False if it has not begun yet."""
        if self._made is None:
            return False
        if self.sending is not None:
            self.sending.cancel()
        self._made.abort()
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first request's head."""
        self._made = cast(asyncio.Transport, transport)
        self._head_timer = self._loop.call_later(self._head_seconds, self._made.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer, and mark the connection as lost."""
        self._end_head()
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; stop the timer when a head is complete, start it at the first byte of the next one."""
        self.active = self._loop.time()
        heads = self._request_count
        super().data_received(data)
        if self._request_count > heads:
            self._end_head()
        elif self.is_idle and data and self._head_timer is None and self._made is not None:
            self._head_timer = self._loop.call_later(self._head_seconds, self._made.abort)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to an invalid request, or to one whose handler has failed."""
        if isinstance(exc, UnicodeEncodeError) and not _is_text(request):
            # Bytes that are not UTF-8 arrive as surrogates, which no response can hold.
            response: web.StreamResponse = web.Response(status=400, text="a header field is not UTF-8\n")
            response.force_close()
        else:
            response = super().handle_error(request, status, exc, message)
        response.headers.update(SIGNATURE | {"Cache-Control": "no-store"})
        return response


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a log record of aiohttp's is about this server; those about invalid requests (400) are not."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | RequestPayloadError))


def _output(transport: asyncio.Transport | None) -> tuple[int, int]:
    """Return how many bytes sent the client has not acknowledged, and how many it has; zeros if nobody can tell.

    Source: tcp(7) for SIOCOUTQ, struct tcp_info in linux/tcp.h for tcpi_bytes_acked.
    """
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.fileno() < 0 or sys.platform != "linux":  # below 0 where it has just ended
        return 0, 0
    try:
        (waits,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        (taken,) = struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), 120)
    except (OSError, struct.error):
        return 0, 0
    return waits, taken


def _is_text(request: web.BaseRequest) -> bool:
    try:
        "".join(request.headers.values()).encode()
    except UnicodeEncodeError:
        return False
    return True
