"""The synchronous face of fetching: requests in, files out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from symcache import __version__
from symcache.client.local_cache import DEFAULT_LIMIT, LocalCache
from symcache.client.model import FetchedSymbol, Holdings, SourceRequest, SymbolRequest
from symcache.client.sources import SourceJob, find_source, is_source_path
from symcache.client.urls import split_tokens
from symcache.errors import IntegrityError, RemoteError, SymcacheError

if TYPE_CHECKING:
    import aiohttp

    from symcache.client.fetch import Fetcher

__all__ = ["SymbolClient"]

_T = TypeVar("_T")
_AT_ONCE = 16
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 90.0
"""A server may decode a large file before its first byte; a whole download may take as long as it takes."""

Progress = Callable[[int, int], None]
"""Called in the caller's thread with (bytes done, bytes in all as far as known)."""


class SymbolClient:
    """Asks servers in their order, first answer wins, and keeps what was fetched in `cache_dir`.

    A context manager. The work is done by an event loop in a thread of its own, so it can be used from anywhere;
    one client is to be used from one thread at a time. Several clients and processes may share a cache. A server that
    asks for a token gets the password of its URL: `https://any:TOKEN@host`.
    """

    def __init__(self, urls: Sequence[str], cache_dir: Path, *, max_bytes: int = DEFAULT_LIMIT) -> None:
        self.urls, self._tokens = split_tokens(urls)
        """Without the tokens that they may have brought along: these are never shown."""
        self.failures: dict[SymbolRequest, list[str]] = {}
        """Of the last `fetch_many`: what went wrong at servers on the way, one sentence each."""
        self.source_failures: list[str] = []
        """Of the last `fetch_sources`."""
        self._cache = LocalCache(cache_dir, max_bytes)
        self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        if self._loop is None or self._thread is None:
            return
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = self._session = None

    def fetch_many(
        self, requests: Iterable[SymbolRequest], progress: Progress | None = None
    ) -> dict[SymbolRequest, FetchedSymbol]:
        """Return a checked local file for every request that the cache or a server can answer.

        An absent key means that nobody has it; `failures` tells where a server could not be asked or lied. Raises
        RemoteError when something is not in the cache and no server could be reached at all.
        """
        self.failures = {}
        found: dict[SymbolRequest, FetchedSymbol] = {}
        wanted: list[SymbolRequest] = []
        for request in dict.fromkeys(requests):
            if cached := self._cache.find(request):
                found[request] = cached
            else:
                wanted.append(request)
        if not wanted or not self.urls:
            return found
        job = _Job(self.urls, self._tokens, wanted, self.failures)
        self._run(job.run(self._cache, self._open_session), lambda: progress and progress(job.done, job.total))
        found |= job.found
        if job.found:
            self._cache.evict()
        if not job.answered:
            reason = next((text for texts in self.failures.values() for text in texts), "no answer")
            raise RemoteError(
                f"none of {', '.join(self.urls)} could be asked for {wanted[0]}: {reason}",
                hint="check the URL, and that the server is up",
            )
        return found

    def fetch_source(self, uuid: UUID, path: str) -> Path | None:
        """Return a local copy of one source file of a binary; see `fetch_sources`."""
        return self.fetch_sources([wanted := SourceRequest(uuid, path)]).get(wanted)

    def fetch_sources(self, requests: Iterable[SourceRequest]) -> dict[SourceRequest, Path]:
        """Return a local, checked copy of every source file that the cache or a server has, under its own hash.

        Paths that no server can be asked for, such as relative ones, are left out. `source_failures` tells what went
        wrong on the way. Raises RemoteError when something is not in the cache and no server could be asked at all.
        """
        self.source_failures = []
        found: dict[SourceRequest, Path] = {}
        wanted: list[SourceRequest] = []
        for request in dict.fromkeys(requests):
            if cached := find_source(self._cache, request):
                found[request] = cached
            elif is_source_path(request.path):
                wanted.append(request)
        if not wanted or not self.urls:
            return found
        job = SourceJob(self.urls, self._tokens, wanted)
        self._run(job.run(self._cache, self._open_session))
        self.source_failures = list(job.problems.values())
        if job.found:
            self._cache.evict()
        if not job.answered:
            raise RemoteError(
                f"no server could be asked for {wanted[0]}: {self.source_failures[0]}",
                hint="check the URL, and that the server is up",
            )
        return found | job.found

    def holdings(self, images: Iterable[UUID] | Mapping[UUID, int], *, note_missing: bool = True) -> Holdings:
        """Ask which of many images servers hold, in one call to the first server that answers.

        With load addresses (a mapping from UUID to the address of the image's header in the crashed process) the
        answer says which shared caches have exactly this layout. What is asked for to check, not to have, is not to be
        noted as missing. Raises RemoteError when nobody answers.
        """
        from symcache.client.holdings import ask_holdings  # noqa: PLC0415 - see symcache.client

        loads: dict[UUID, int | None] = dict(images) if isinstance(images, Mapping) else dict.fromkeys(images)
        reasons = []
        for url in self.urls:
            try:
                return ask_holdings(url, loads, self._tokens.get(url), note_missing=note_missing)
            except SymcacheError as error:
                reasons.append(str(error))
        raise RemoteError(
            f"no server tells what it holds: {'; '.join(reasons) or 'none is named'}",
            hint="name a symcache server with --server or SYMCACHE_URL",
        )

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - see symcache.client

        if self._session is None:
            headers = {"User-Agent": f"symcache/{__version__}"}
            self._session = aiohttp.ClientSession(
                # Bodies are unpacked here, in bounded memory, and their hash is that of the unpacked file.
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS),
                headers=headers,
                connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            )
        return self._session

    def _run(self, work: Coroutine[Any, Any, _T], tick: Callable[[], object] | None = None) -> _T:
        if not self._entered:
            work.close()
            raise RuntimeError("SymbolClient is used outside of its `with` block")
        if self._loop is None:  # not before: a warm cache needs none
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="symbol-client", daemon=True)
            self._thread.start()
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


class _Job:
    """One `fetch_many`: its requests, and how far they are."""

    def __init__(
        self,
        urls: list[str],
        tokens: dict[str, str],
        wanted: list[SymbolRequest],
        failures: dict[SymbolRequest, list[str]],
    ) -> None:
        self.tokens = tokens
        self.urls, self.wanted, self.failures = urls, wanted, failures
        self.found: dict[SymbolRequest, FetchedSymbol] = {}
        self.done = self.total = 0
        self.answered = False
        self._down: dict[str, str] = {}

    def count(self, arrived: int, expected: int) -> None:
        self.done += arrived
        self.total = max(self.total + expected, self.done)

    async def run(self, cache: LocalCache, session: Callable[[], aiohttp.ClientSession]) -> None:
        from symcache.client.fetch import Fetcher  # noqa: PLC0415 - see symcache.client

        fetcher = Fetcher(session(), cache, tokens=self.tokens)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(request: SymbolRequest) -> None:
            async with gate:
                await self._fetch(fetcher, request)

        async with asyncio.TaskGroup() as group:
            for request in self.wanted:
                group.create_task(one(request))

    async def _fetch(self, fetcher: Fetcher, request: SymbolRequest) -> None:
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
