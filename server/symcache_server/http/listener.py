"""Listens and accepts connections, up to a limit for this process and one for each address.

asyncio's own server accepts every connection, and counts one only when the TLS handshake is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from operator import attrgetter
from typing import Any

from symcache.errors import EnvironmentFailure, UsageError
from symcache_server.config import ServerConfig
from symcache_server.http.connection import ClientConnection
from symcache_server.http.content import SIGNATURE
from symcache_server.http.limits import is_own, is_proxy, network_of

__all__ = ["Listener", "listen", "raise_file_limit"]

log = logging.getLogger("symcache.server")
_BACKLOG = 1024
_AT_ONCE = 64
"""Connections that are accepted before the event loop gets to other work."""
_OTHER_FILES = 128
_LEAST = 16
_RETRY_SECONDS = 0.1
_QUIET_SECONDS = 60.0
_SAFE_FILES = 10240
"""What macOS grants whatever the hard limit says (OPEN_MAX)."""


def raise_file_limit() -> None:
    """Let this process, and those that it starts, open as many files as the system's limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _SAFE_FILES):
        if soft == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and wanted <= soft):
            return
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; `shared`: several of them may listen on one port.

    Raises UsageError for an address that is none, EnvironmentFailure for a port that cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host}: cannot listen there: {error}", hint="give an address of this machine") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise EnvironmentFailure(
            f"port {port} of {host}: {error.strerror or error}", hint="choose another --port, or 0 for any free one"
        ) from error
    return sock


class Listener:
    """Accepts connections. When there is no room for more, it closes those that have been idle for longest."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], ClientConnection],
        config: ServerConfig,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sock, self._make = sock, make
        self._of_one, self._proxies = config.connections_of_one, frozenset(config.trusted_proxies)
        self._most = max(_LEAST, min(config.max_connections, _room()))
        self._options: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": config.head_seconds} if tls else {}
        self._open: dict[ClientConnection, asyncio.Task[None]] = {}
        self._of: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._poll_seconds = config.body_seconds / 10
        self._loop.call_later(self._poll_seconds, self._end_stalled)
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more connections."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def abort(self) -> None:
        """End all connections at once."""
        for connection in self._open:
            connection.abort()

    def _end_stalled(self) -> None:
        self._loop.call_later(self._poll_seconds, self._end_stalled)
        for connection in self._open:
            if connection.has_stalled():
                connection.abort()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._tell("no connection can be taken now: %s", error.strerror or error)
                self._close_idle(4)
                self._loop.remove_reader(self._sock)
                self._timer = self._loop.call_later(_RETRY_SECONDS, self._listen)
                return
            sock.setblocking(False)
            self._take(sock, address[0])

    def _take(self, sock: socket.socket, address: str) -> None:
        network = "" if is_own(address) or is_proxy(address, self._proxies) else network_of(address)
        if network and self._of[network] >= self._of_one:
            self._tell("%s has %d connections already; a proxy is named by --trust-proxy", network, self._of_one)
            self._refuse(
                sock, HTTPStatus.TOO_MANY_REQUESTS, f"{network} has {self._of_one} connections already: close some"
            )
        elif len(self._open) >= self._most and not self._close_idle(50):
            self._tell("all %d connections are in use: no more are taken", self._most)
            self._refuse(sock, HTTPStatus.SERVICE_UNAVAILABLE, "all connections are in use: try again later")
        else:
            connection = self._make()
            task = self._open[connection] = self._loop.create_task(self._serve(sock, connection))
            self._of[network] += 1
            task.add_done_callback(lambda _: self._forget(sock, connection, network))

    async def _serve(self, sock: socket.socket, connection: ClientConnection) -> None:
        with contextlib.suppress(OSError):  # TLS was not agreed upon
            await self._loop.connect_accepted_socket(lambda: connection, sock, **self._options)
            await connection.lost

    def _forget(self, sock: socket.socket, connection: ClientConnection, network: str) -> None:
        sock.close()  # which is still open only where the task was cancelled before it began
        del self._open[connection]
        self._of[network] -= 1
        if not self._of[network]:
            del self._of[network]

    def _close_idle(self, share: int) -> int:
        """Close the connections idle for longest, at most one `share`th of all and one more; return how many."""
        idle = [connection for connection in self._open if connection.is_idle]
        oldest = heapq.nsmallest(1 + len(self._open) // share, idle, key=attrgetter("active"))
        for connection in oldest:
            if not connection.abort():
                self._open[connection].cancel()
        return len(oldest)

    def _refuse(self, sock: socket.socket, status: HTTPStatus, reason: str) -> None:
        if not self._options:
            fields = SIGNATURE | {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": str(len(reason) + 1),
                "Cache-Control": "no-store",
                "Retry-After": "5",
                "Connection": "close",
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            with contextlib.suppress(OSError):
                sock.send(f"HTTP/1.1 {status} {status.phrase}\r\n{head}\r\n{reason}\n".encode())
        sock.close()

    def _tell(self, message: str, *arguments: object) -> None:
        """Log a message that would be repeated for every connection, once a minute at most."""
        now = self._loop.time()
        if now - self._told.get(message, -_QUIET_SECONDS) >= _QUIET_SECONDS:
            self._told[message] = now
            log.warning(message, *arguments)


def _room() -> int:
    """Return how many connections the limit of open files allows: each may need a second one, for a file."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (soft - _OTHER_FILES) // 2 if soft != resource.RLIM_INFINITY else 1 << 30
