"""Response bodies that are parts of files, sent by the kernel (sendfile)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

__all__ = ["FileBody", "SendingConnection"]

_NO_SENDFILE = sys.platform != "linux"


class SendingConnection:
    """A connection that knows what it sends.

    asyncio never ends a sendfile whose connection it closes, and goes on watching its descriptor, which is another
    connection's by then: whoever closes one while a body goes out has to cancel `sending` first.
    """

    __slots__ = ()
    sending: asyncio.Future[int] | None


class FileBody(web.StreamResponse):
    """`count` bytes of an open file from `offset` on, by sendfile where the transport can."""

    def __init__(self, descriptor: int, offset: int, count: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._descriptor, self._offset, self._count = descriptor, offset, count
        self.content_length = count
        self.sent = 0
        """Bytes of the body that have gone out."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send headers and body; of a body that turns out shorter, the connection is cut."""
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
                rest = loop.sendfile(transport, file, self._offset + self.sent, self._count - self.sent)
                sending = loop.create_task(rest)
                if isinstance(request.protocol, SendingConnection):
                    request.protocol.sending = sending
                self.sent += await sending
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
