"""A TCP proxy that is as slow as a home's line: one rate for all connections together, and a round-trip time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

__all__ = ["SlowUrl", "slow_link"]

_CHUNK = 16 << 10


class _Line:
    """One direction: bytes leave one after the other, at `rate` bytes a second, and arrive `delay` seconds later."""

    def __init__(self, rate: float, delay: float) -> None:
        self._rate, self._delay = rate, delay
        self.passed = 0
        self._free_at = 0.0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass everything on, to the end."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self.passed += len(data)
                self._free_at = max(self._free_at, loop.time()) + len(data) / self._rate
                loop.call_at(self._free_at + self._delay, writer.write, data)
                await asyncio.sleep(self._free_at - loop.time())  # so no more than a chunk of each connection waits
        loop.call_at(loop.time() + self._delay, writer.close)


class SlowUrl(str):
    """The URL of a slow link."""

    received: Callable[[], int]
    """Return how many bytes have come back from the server."""


@contextlib.contextmanager
def slow_link(url: str, *, rate: float, round_trip: float) -> Iterator[SlowUrl]:
    """Yield the URL under which the server at `url` is reached at `rate` bytes a second in each direction.

    `round_trip` in seconds passes before a connection is there, and again before the first byte of an answer. Lost
    packets and slow starts there are none.
    """
    parts = urlsplit(url)
    lines = _Line(rate, round_trip / 2), _Line(rate, round_trip / 2)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)  # the kernel has accepted it at once
        back_reader, back_writer = await asyncio.open_connection(parts.hostname, parts.port)
        with contextlib.suppress(asyncio.CancelledError):  # at the end
            await asyncio.gather(lines[0].relay(reader, back_writer), lines[1].relay(back_reader, writer))

    async def serve() -> None:
        async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
            started.set_result((asyncio.get_running_loop(), server.sockets[0].getsockname()[1]))
            await stop.wait()

    started: Future[tuple[asyncio.AbstractEventLoop, int]] = Future()
    stop = asyncio.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="slow-link", daemon=True)
    thread.start()
    loop, port = started.result()
    try:
        slow = SlowUrl(f"http://127.0.0.1:{port}")
        slow.received = lambda: lines[1].passed
        yield slow
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
