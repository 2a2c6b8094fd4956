"""Running the application: sockets, signals, one process or several, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from aiohttp import web

from symcache.errors import EnvironmentFailure, UsageError
from symcache.library import Library
from symcache.own_program import keep_working_folder_out
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.connection import is_worth_a_line, protocol
from symcache_server.http.metrics import AccessLogger, access_logger, flush_access_log, forget_process

__all__ = ["listen", "run"]

log = logging.getLogger("symcache.server")
_BACKLOG = 1024
_START_SECONDS = 120.0
_RESTART_SECONDS = 1.0
"""A process that ends by itself is started again, but not more often than this."""

Ready = Callable[[str], None]


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


def run(config: ServerConfig, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once connections are taken.

    Downloads that are under way may finish, for as long as `config.stop_seconds`. Raises what `create_app` raises.
    """
    config.check()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    if config.processes == 1:
        asyncio.run(_serve(config, listen(config.host, config.port), ready))
        return
    Library.open(config.library).close()  # folds what is new, once, and tells what is wrong with it
    with tempfile.TemporaryDirectory(prefix="symcache-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        keep_working_folder_out()
        _Supervisor(config).run(ready)


async def _serve(config: ServerConfig, sock: socket.socket, ready: Ready) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if (supervisor := multiprocessing.parent_process()) is not None:
        loop.add_reader(supervisor.sentinel, stop.set)  # killed: nobody else would end this process
    tls = config.tls()
    loop.add_signal_handler(signal.SIGHUP, _reload, config, tls)
    logging.getLogger("aiohttp.server").addFilter(is_worth_a_line)
    runner = web.AppRunner(
        create_app(config),
        access_log_class=AccessLogger,
        access_log=access_logger(config.access_log),
        shutdown_timeout=config.stop_seconds,
    )
    await runner.setup()
    server = cast(web.Server, runner.server)
    listener = await loop.create_server(partial(protocol, server), sock=sock, ssl=tls, backlog=_BACKLOG)
    try:
        ready(_url(config, sock))
        await stop.wait()
    finally:
        if supervisor is not None:
            loop.remove_reader(supervisor.sentinel)
        listener.close()
        # aiohttp waits once for handlers to end, and as long again for them to take note of that.
        over = loop.call_later(config.stop_seconds, _abort, server)
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()
        over.cancel()


def _abort(server: web.Server) -> None:
    """Cut what is still being sent or received."""
    for connection in list(server.connections):
        if connection.transport is not None:
            connection.transport.abort()


def _reload(config: ServerConfig, tls: ssl.SSLContext | None) -> None:
    """Take up a certificate that was renewed; everything else is followed without being told."""
    flush_access_log()
    if tls is not None:
        try:
            config.renew(tls)
        except UsageError as error:
            log.error("the certificate stays as it was: %s", error)


def _child(config: ServerConfig, sock: socket.socket, pipe: Connection) -> None:
    """Body of one of several processes."""

    def ready(url: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # of a replacement nobody waits for this
            pipe.send(url)
        pipe.close()

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(config, sock, ready))


class _Supervisor:
    """Starts the processes, replaces one that dies, and ends them all."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        # On Linux the kernel spreads connections over sockets that share a port; elsewhere all take from one.
        spread = sys.platform == "linux"
        if spread and config.port:
            listen(config.host, config.port).close()  # what shares is not told of another server there
        first = listen(config.host, config.port, shared=spread)
        port = first.getsockname()[1]
        more = [listen(config.host, port, shared=True) if spread else first for _ in range(config.processes - 1)]
        self._sockets = [first, *more]
        self._processes: list[SpawnProcess] = []
        self._stopping = False

    def run(self, ready: Ready) -> None:
        """Serve until a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hand_on)
        try:
            pipes = [self._start(n) for n in range(self._config.processes)]
            for pipe in pipes:
                if not pipe.poll(_START_SECONDS) or self._stopping:
                    break
                try:
                    pipe.recv()
                except EOFError:
                    raise EnvironmentFailure("a server process ended at once", hint="see its messages above") from None
            else:
                ready(_url(self._config, self._sockets[0]))
                self._watch()
        finally:
            self._end()

    def _start(self, number: int) -> Connection:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_child, args=(self._config, self._sockets[number], sender), name=f"server-{number}"
        )
        process.start()
        sender.close()
        self._processes[number:] = [process, *self._processes[number + 1 :]]
        return receiver

    def _watch(self) -> None:
        while not self._stopping:
            wait([p.sentinel for p in self._processes], timeout=1.0)
            for number, process in enumerate(self._processes):
                if not process.is_alive() and not self._stopping:
                    log.error("server process %s ended with %s: it is started again", process.pid, process.exitcode)
                    forget_process(process.pid or 0)
                    time.sleep(_RESTART_SECONDS)
                    self._start(number)

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        for process in self._processes:
            if process.pid and process.is_alive():
                process.terminate()

    def _hand_on(self, number: int, _: Any) -> None:
        for process in self._processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    def _end(self) -> None:
        self._stop()
        deadline = time.monotonic() + self._config.stop_seconds + 5
        for process in self._processes:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for sock in {s.fileno(): s for s in self._sockets}.values():
            sock.close()


def _url(config: ServerConfig, sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    if address in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        address = socket.gethostname()
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"
