"""Many downloads at a time: an event loop in a thread of its own, one session, and the order of servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from typing import Any, TypeVar

import aiohttp

from symcache import __version__
from symcache.client.fetch import Fetcher
from symcache.client.local_cache import LocalCache
from symcache.client.model import FetchedImage
from symcache.client.tasks import all_done
from symcache.errors import IntegrityError, RemoteError
from symcache.images import ImageRequest

__all__ = ["Downloads", "SymbolJob"]

_T = TypeVar("_T")
_AT_ONCE = 16
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 90.0
"""A server may decode a large file before its first byte; a whole download may take as long as it takes."""


class Downloads:
    """An event loop for work over HTTP, for callers that have none."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="symbol-client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End connections, loop and thread."""
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def session(self) -> aiohttp.ClientSession:
        """Return the session, in the event loop's thread."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Bodies are unpacked here, in bounded memory, and their hash is that of the unpacked file.
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS),
                headers={"User-Agent": f"symcache/{__version__}"},
                connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            )
        return self._session

    def run(self, work: Coroutine[Any, Any, _T], tick: Callable[[], object] | None = None) -> _T:
        """Wait for `work` and return its result; `tick` is called now and then, and at the end, in this thread."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    result = future.result(_POLL_SECONDS)
                except NotDone:
                    if future.done():
                        raise
                    if tick:
                        tick()
                else:
                    if tick:
                        tick()
                    return result
        except BaseException:
            future.cancel()
            raise


class SymbolJob:
    """One `fetch_many`: its requests, and how far they are."""

    def __init__(
        self,
        urls: list[str],
        tokens: dict[str, str],
        wanted: list[ImageRequest],
        failures: dict[ImageRequest, list[str]],
        down: Mapping[str, str],
    ) -> None:
        self.tokens = tokens
        self.urls, self.wanted, self.failures = urls, wanted, failures
        self.found: dict[ImageRequest, FetchedImage] = {}
        self.done = self.total = 0
        self.answered = False
        self._down = dict(down)

    def count(self, arrived: int, expected: int) -> None:
        """Take note of bytes that have arrived, and of bytes that will."""
        self.done += arrived
        self.total = max(self.total + expected, self.done)

    async def run(self, cache: LocalCache, session: Callable[[], aiohttp.ClientSession]) -> None:
        """Fetch everything. Raises StorageError."""
        fetcher = Fetcher(session(), cache, tokens=self.tokens)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(request: ImageRequest) -> None:
            async with gate:
                await self._fetch(fetcher, request)

        await all_done(one(request) for request in self.wanted)

    async def _fetch(self, fetcher: Fetcher, request: ImageRequest) -> None:
        for url in self.urls:
            if url in self._down:
                self.failures.setdefault(request, []).append(self._down[url])
                continue
            try:
                fetched = await fetcher.fetch(url, request, self.count)
            except IntegrityError as error:
                self.answered = True
                self.failures.setdefault(request, []).append(str(error))
                continue
            except RemoteError as error:
                # Not asked again in this call: a burst of hundreds must not wait for a dead server each time.
                self._down[url] = str(error)
                self.failures.setdefault(request, []).append(str(error))
                continue
            self.answered = True
            if fetched is not None:
                self.found[request] = fetched
                return
