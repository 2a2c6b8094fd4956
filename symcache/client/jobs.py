"""Many HTTP jobs at a time: their limit, their errors, the order of servers, and an event loop to run them in."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

import aiohttp

from symcache.client.session import http_session
from symcache.errors import IntegrityError, RemoteError

__all__ = ["ByteCount", "FetchJob", "HttpThread", "RequestFailedError", "run_many"]

_T = TypeVar("_T")
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")
_POLL_SECONDS = 0.1
_MOST_FAILED = 4
"""Requests that a server fails with, and responds to no other, until it counts as down."""


async def run_many(job: Callable[[_T], Awaitable[None]], items: Iterable[_T], limit: int) -> None:
    """Run `job` for every item, at most `limit` at a time. The first error ends the others and is raised by itself."""
    gate = asyncio.Semaphore(limit)

    async def one(item: _T) -> None:
        async with gate:
            await job(item)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__


class RequestFailedError(RemoteError):
    """A server that cannot respond to one request, such as for a file that is damaged there: it may well to others."""


class ByteCount:
    """How far downloads are, in bytes."""

    def __init__(self) -> None:
        self.done = self.total = 0

    def __call__(self, arrived: int, expected: int) -> None:
        """Add bytes that have arrived, and bytes that will."""
        self.done += arrived
        self.total = max(self.total + expected, self.done)


class FetchJob(Generic[_Request, _Result]):
    """Fetches many things. Servers are tried in their order, the first that has it wins; one that is down, once.

    `fetch` gets a server's URL and a request. It returns None for what the server does not have, and raises RemoteError
    for a server that is down, RequestFailedError for one that fails with this request, IntegrityError for a response
    that is not what it should be.
    """

    def __init__(
        self,
        urls: Sequence[str],
        fetch: Callable[[str, _Request], Awaitable[_Result | None]],
        down: Mapping[str, str] | None = None,
    ) -> None:
        """`down` are servers that are known to be down, and why."""
        self._urls, self._fetch_from = urls, fetch
        self._down = dict(down or {})
        self.results: dict[_Request, _Result] = {}
        self.failures: dict[_Request, list[str]] = {}
        """What went wrong, by request."""
        self.problems: dict[str, str] = {}
        """What went wrong last, by server."""
        self._responding: set[str] = set()
        self._failed: Counter[str] = Counter()
        """How many requests each server has failed with."""

    @property
    def responded(self) -> bool:
        """Whether any server did."""
        return bool(self._responding)

    async def run(self, requests: Iterable[_Request], limit: int) -> None:
        """Fetch everything, at most `limit` at a time. Raises what `fetch` does, but for the errors above."""
        await run_many(self._fetch, requests, limit)

    async def _fetch(self, request: _Request) -> None:
        for url in self._urls:
            if url in self._down:
                self.failures.setdefault(request, []).append(self._down[url])
                continue
            try:
                result = await self._fetch_from(url, request)
            except (IntegrityError, RemoteError) as error:
                self.problems[url] = str(error)
                self.failures.setdefault(request, []).append(str(error))
                if isinstance(error, IntegrityError):
                    self._responding.add(url)
                elif self._is_down(url, error):
                    # Not tried again in this call: a burst of hundreds must not wait for a dead server each time.
                    self._down[url] = str(error)
                continue
            self._responding.add(url)
            if result is not None:
                self.results[request] = result
                return

    def _is_down(self, url: str, error: RemoteError) -> bool:
        if not isinstance(error, RequestFailedError):
            return True
        self._failed[url] += 1
        return self._failed[url] >= _MOST_FAILED and url not in self._responding


class HttpThread:
    """A thread with an event loop and an HTTP session, for callers that have none."""

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

    def run(
        self,
        work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, _T]],
        tick: Callable[[], object] | None = None,
    ) -> _T:
        """Wait for `work` and return its result; `tick` is called now and then, and at the end, in this thread."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(self._with_session(work), self._loop)
        try:
            # Not `future.result(_POLL_SECONDS)`: its TimeoutError may be the work's own as well.
            while not wait([future], _POLL_SECONDS).done:
                if tick:
                    tick()
            result = future.result()
            if tick:
                tick()
            return result
        except BaseException:
            future.cancel()
            raise

    async def _with_session(self, work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, _T]]) -> _T:
        if self._session is None:
            self._session = http_session()
        return await work(self._session)
