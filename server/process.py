"""Running the application: sockets, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from server.application import create_app
from server.config import ServerConfig
from symcache.errors import EnvironmentFailure, UsageError

__all__ = ["listen", "run"]

_BACKLOG = 1024


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; `shared`: several of them may listen on one port. Raises UsageError and others."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host}: cannot listen there: {error.strerror or error}", hint="give an address") from error
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


def run(config: ServerConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once connections are taken.

    Downloads that are under way may finish, for as long as `config.stop_seconds`.
    """
    config.check()
    sock = listen(config.host, config.port)
    asyncio.run(_serve(config, sock, ready))


async def _serve(config: ServerConfig, sock: socket.socket, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(create_app(config), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, sock, shutdown_timeout=config.stop_seconds).start()
        ready(_url(sock))
        await stop.wait()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


def _url(sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    if address in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        address = socket.gethostname()
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
