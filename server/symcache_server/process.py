"""Running the application: sockets, signals, one process or several, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from aiohttp import web

from symcache.errors import EnvironmentFailure, UsageError
from symcache.library import Library
from symcache.own_program import keep_working_folder_out
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.connection import ClientConnection, is_worth_a_line
from symcache_server.http.line_writer import log_to_stderr
from symcache_server.http.listener import Listener, listen, raise_file_limit
from symcache_server.http.metric_files import clear_live_metrics, common_metrics, set_place
from symcache_server.http.metrics import AccessLogger, access_writer, open_access_log

__all__ = ["run"]

log = logging.getLogger("symcache.server")
_START_SECONDS = 120.0
_RESTART_SECONDS = 1.0
"""Pause before a process that ended is started again; doubled each time that it ends soon."""
_LONGEST_PAUSE = 60.0
"""Seconds. A process that lived longer than that starts again with the shortest pause."""
_MADE_BETWEEN_COLLECTIONS = 50_000
"""Objects between two runs of the garbage collector: one request for names makes that many, none in a cycle."""
_LATER = frozenset({signal.SIGHUP, signal.SIGINT})
"""Blocked until their handlers are installed: before, they would kill a starting process, Ctrl-C with a traceback."""

Ready = Callable[[str], None]


def run(config: ServerConfig, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once connections are taken.

    Downloads that are under way may finish, for as long as `config.stop_seconds`. Raises what `create_app` raises.
    """
    config.check()
    raise_file_limit()
    log_to_stderr()
    if config.public_reads and (addresses := _public_addresses(config.host)):
        log.warning(
            "whoever can connect to %s may read, without a token, and most of these files are Apple's: leave out"
            " --public-reads, or let a firewall decide who can connect",
            ", ".join(addresses),
        )
    if config.processes == 1:
        asyncio.run(_serve(config, listen(config.host, config.port), ready))
        return
    Library.open(config.library).close()  # folds what is new, once, and tells what is wrong with it
    with common_metrics(config.processes, config.state_dir):
        keep_working_folder_out()
        _Supervisor(config).run(ready)


def _public_addresses(host: str) -> list[str]:
    """Return at which addresses of the public internet a server on `host` listens; best effort."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        if found & {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            found = {str(address[0]) for *_, address in socket.getaddrinfo(socket.gethostname(), None)}
    except (OSError, UnicodeError):
        return []
    return sorted(a for a in found if ipaddress.ip_address(a.partition("%")[0]).is_global)


async def _serve(config: ServerConfig, sock: socket.socket, ready: Ready) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if (supervisor := multiprocessing.parent_process()) is not None:
        loop.add_reader(supervisor.sentinel, stop.set)  # killed: nobody else would end this process
    tls = config.tls()
    loop.add_signal_handler(signal.SIGHUP, _reload, config, tls)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LATER)
    logging.getLogger("aiohttp.server").addFilter(is_worth_a_line)
    runner = web.AppRunner(create_app(config), shutdown_timeout=config.stop_seconds)
    await runner.setup()
    gc.freeze()  # what is here stays: it need not be gone through again
    gc.set_threshold(_MADE_BETWEEN_COLLECTIONS)
    server = cast(web.Server, runner.server)
    open_access_log(config.access_log)

    def connection() -> ClientConnection:
        return ClientConnection(server, config, loop=loop, access_log_class=AccessLogger)

    listener = Listener(sock, connection, config, tls)
    try:
        ready(_url(config, sock))
        await stop.wait()
    finally:
        if supervisor is not None:
            loop.remove_reader(supervisor.sentinel)
        listener.close()
        # aiohttp waits for handlers to end, then cancels them and waits as long again.
        over = loop.call_later(config.stop_seconds, listener.abort)
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()
        over.cancel()
        if writer := access_writer():
            await asyncio.to_thread(writer.close)


def _reload(config: ServerConfig, tls: ssl.SSLContext | None) -> None:
    """Take up a certificate that was renewed; everything else is followed without being told."""
    if writer := access_writer():
        writer.flush()
    if tls is not None:
        try:
            config.renew(tls)
        except UsageError as error:
            log.error("the certificate stays as it was: %s", error)


def _child(config: ServerConfig, sock: socket.socket, pipe: Connection) -> None:
    """Body of one of several processes."""

    def ready(url: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody waits for the URL of a replacement
            pipe.send(url)
        pipe.close()

    log_to_stderr()
    asyncio.run(_serve(config, sock, ready))


class _Supervisor:
    """Starts the processes, replaces one that dies, and ends them all."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        # On Linux the kernel spreads connections over sockets that share a port; elsewhere all take from one.
        spread = sys.platform == "linux"
        if spread and config.port:
            listen(config.host, config.port).close()  # SO_REUSEPORT hides other servers there
        first = listen(config.host, config.port, shared=spread)
        port = first.getsockname()[1]
        more = [listen(config.host, port, shared=True) if spread else first for _ in range(config.processes - 1)]
        self._sockets = [first, *more]
        self._slots = [_Slot(number) for number in range(config.processes)]
        self._stopping = False

    def run(self, ready: Ready) -> None:
        """Serve until a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hand_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LATER)
        try:
            pipes = [self._start(n) for n in range(self._config.processes)]
            for slot, pipe in zip(self._slots, pipes, strict=True):
                is_told = pipe.poll(_START_SECONDS)
                if self._stopping:
                    break
                if not is_told:
                    raise EnvironmentFailure(
                        f"a server process did not take connections within {_START_SECONDS:.0f} seconds",
                        hint="see what keeps the disk or the object store busy, and start it again",
                    )
                try:
                    pipe.recv()
                except EOFError:
                    if not slot.was_killed():  # which says nothing about the others, and its replacement may do better
                        raise EnvironmentFailure(
                            "a server process ended at once", hint="see its messages above"
                        ) from None
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
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _LATER)  # which it inherits
        set_place(number)
        try:
            process.start()
            self._slots[number].take(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()
        return receiver

    def _watch(self) -> None:
        while not self._stopping:
            wait([slot.process.sentinel for slot in self._slots if slot.process], timeout=0.5)
            for number, slot in enumerate(self._slots):
                if not self._stopping and slot.is_due():  # what ends by our signal is not replaced, nor told
                    self._start(number).close()

    def _running(self) -> list[SpawnProcess]:
        return [slot.process for slot in self._slots if slot.process and slot.process.is_alive()]

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        for process in self._running():
            process.terminate()

    def _hand_on(self, number: int, _: Any) -> None:
        for process in self._running():
            os.kill(cast(int, process.pid), number)

    def _end(self) -> None:
        self._stop()
        deadline = time.monotonic() + self._config.stop_seconds + 5
        for process in self._running():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for sock in {s.fileno(): s for s in self._sockets}.values():
            sock.close()


class _Slot:
    """The place of one process, and when the next one may start in it."""

    def __init__(self, number: int) -> None:
        self.process: SpawnProcess | None = None
        self._number, self._started, self._due = number, 0.0, 0.0
        self._soon = 0

    def take(self, process: SpawnProcess) -> None:
        """Note a process that was just started."""
        self.process, self._started = process, time.monotonic()

    def was_killed(self) -> bool:
        """Return whether a signal has ended the process."""
        if self.process is None:
            return False
        self.process.join(1.0)
        return (self.process.exitcode or 0) < 0

    def is_due(self) -> bool:
        """Return whether the process has ended and another one may take its place now; log the end once."""
        now = time.monotonic()
        if self.process is not None:
            if self.process.is_alive():
                return False
            pid, code, self.process = self.process.pid, self.process.exitcode, None
            pause = min(_RESTART_SECONDS * 2 ** min(self._soon, 10), _LONGEST_PAUSE)
            self._soon = 0 if now - self._started > _LONGEST_PAUSE else self._soon + 1
            self._due = now + pause
            log.error("server process %s ended with %s: another is started in %.0f s", pid, code, pause)
            clear_live_metrics(self._number)
        return now >= self._due


def _url(config: ServerConfig, sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    if address in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        address = socket.gethostname()
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"
