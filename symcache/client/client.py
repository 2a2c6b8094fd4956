"""The synchronous client: requests in, files out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import UUID

from symcache.client.local_cache import DEFAULT_LIMIT, LocalCache
from symcache.client.model import FetchedImage, LookupResponse
from symcache.client.sources import find_source, is_source_path
from symcache.client.urls import split_tokens
from symcache.errors import RemoteError, SymcacheError
from symcache.images import ImageRequest, SourceRequest

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from symcache.client.jobs import HttpThread
    from symcache.symbolicate import ModuleNames, ModuleOffsets

__all__ = ["SymbolClient"]

_IMAGES_AT_ONCE, _SOURCES_AT_ONCE = 16, 8

Progress = Callable[[int, int], None]
"""Called in the caller's thread with (bytes done, bytes in all as far as known)."""


class SymbolClient:
    """Fetches from servers in their order, the first that has it wins, and caches what was fetched in `cache_dir`.

    A context manager. The work is done by an event loop in a thread of its own, so it can be used from anywhere;
    one client is to be used from one thread at a time. Several clients and processes may share a cache. A server that
    requires a token gets the password of its URL: `https://any:TOKEN@host`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        cache_dir: Path,
        *,
        max_bytes: int = DEFAULT_LIMIT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`headers` go with every request for an image."""
        self._headers = headers
        self.urls, self._tokens = split_tokens(urls)
        """Without the tokens that they may have brought along: these are never shown."""
        self.failures: dict[ImageRequest, list[str]] = {}
        """Of the last `fetch_many`: what went wrong at servers on the way, one sentence each."""
        self.source_failures: list[str] = []
        """Of the last `fetch_sources`."""
        self._cache = LocalCache(cache_dir, max_bytes)
        self._down: dict[str, str] = {}
        """Servers that the last look-up could not reach, and why: not used until a look-up reaches them."""
        self._entered = False
        self._thread: HttpThread | None = None

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._entered = False
        if self._thread:
            self._thread.close()
            self._thread = None

    def fetch_many(
        self, requests: Iterable[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, FetchedImage]:
        """Return a checked local file for every image that the cache or a server has.

        `failures` tells where a server could not be used or lied. Raises RemoteError when something is not in the cache
        and no server could be reached at all.
        """
        self.failures = {}
        files: dict[ImageRequest, FetchedImage] = {}
        missing: list[ImageRequest] = []
        for request in dict.fromkeys(requests):
            if cached := self._cache.find(request):
                files[request] = cached
            else:
                missing.append(request)
        if not missing or not self.urls:
            return files
        if all(url in self._down for url in self.urls):
            self.failures = {request: list(self._down.values()) for request in missing}
            raise self._no_response(missing[0])
        from symcache.client.fetch import Fetcher  # noqa: PLC0415 - see symcache.client
        from symcache.client.jobs import ByteCount, FetchJob  # noqa: PLC0415

        count = ByteCount()

        async def fetch(session: ClientSession) -> FetchJob[ImageRequest, FetchedImage]:
            fetcher = Fetcher(session, self._cache, headers=self._headers, tokens=self._tokens)
            job: FetchJob[ImageRequest, FetchedImage] = FetchJob(
                self.urls, lambda url, request: fetcher.fetch(url, request, count), self._down
            )
            await job.run(missing, _IMAGES_AT_ONCE)
            return job

        job = self._http_thread().run(fetch, lambda: progress and progress(count.done, count.total))
        self.failures = job.failures
        if job.results:
            self._cache.evict()
        if not job.responded:
            raise self._no_response(missing[0])
        return files | job.results

    def fetch_sources(self, requests: Iterable[SourceRequest]) -> dict[SourceRequest, Path]:
        """Return a local, checked copy of every source file that the cache or a server has, under its own hash.

        Paths that cannot be requested, such as relative ones, are left out. `source_failures` tells what went wrong on
        the way. Raises RemoteError when something is not in the cache and no server could be reached at all.
        """
        self.source_failures = []
        files: dict[SourceRequest, Path] = {}
        missing: list[SourceRequest] = []
        for request in dict.fromkeys(r for r in requests if is_source_path(r.path)):
            if cached := find_source(self._cache, request):
                files[request] = cached
            else:
                missing.append(request)
        if not missing or not self.urls:
            return files
        from symcache.client.jobs import FetchJob  # noqa: PLC0415 - see symcache.client
        from symcache.client.source_fetch import SourceFetcher  # noqa: PLC0415

        async def fetch(session: ClientSession) -> FetchJob[SourceRequest, Path]:
            job = FetchJob(self.urls, SourceFetcher(session, self._cache, self._tokens).fetch)
            await job.run(missing, _SOURCES_AT_ONCE)
            return job

        job = self._http_thread().run(fetch)
        self.source_failures = list(job.problems.values())
        if job.results:
            self._cache.evict()
        if not job.responded:
            raise RemoteError(
                f"no server could be asked for {missing[0]}: {self.source_failures[0]}",
                hint="check the URL, the token in it, and that the server is up",
            )
        return files | job.results

    def look_up(self, images: Iterable[UUID] | Mapping[UUID, int], *, note_missing: bool = True) -> LookupResponse:
        """Look up which of many images are on a server, in one request to the first server that responds.

        With load addresses (a mapping from UUID to the address of the image's header in the crashed process) the
        response says which shared caches have exactly this layout. A look-up that only checks should not be noted as
        missing. Raises RemoteError when no server responds.
        """
        from symcache.client.lookup import UnreachableError, look_up_images  # noqa: PLC0415 - see symcache.client

        loads: dict[UUID, int | None] = dict(images) if isinstance(images, Mapping) else dict.fromkeys(images)
        reasons = []
        for url in self.urls:
            self._down.pop(url, None)
            try:
                return look_up_images(url, loads, self._tokens.get(url), note_missing=note_missing)
            except UnreachableError as error:
                self._down[url] = str(error)
                reasons.append(str(error))
            except SymcacheError as error:
                reasons.append(str(error))
        raise RemoteError(
            f"no server tells what it holds: {'; '.join(reasons) or 'none is named'}",
            hint="name a symcache server with --server or SYMCACHE_URL",
        )

    def look_up_names(self, url: str, modules: Sequence[ModuleOffsets]) -> list[ModuleNames] | None:
        """Return what one of the servers knows of offsets in modules that have UUIDs; None if it names none.

        Raises RemoteError, and IntegrityError for a response that is not what it should be.
        """
        from symcache.client.names import UnspokenError, fetch_names  # noqa: PLC0415 - see symcache.client

        try:
            return self._http_thread().run(lambda session: fetch_names(session, url, self._tokens.get(url), modules))
        except UnspokenError:
            return None

    def _no_response(self, request: ImageRequest) -> RemoteError:
        reason = next((text for texts in self.failures.values() for text in texts), "no answer")
        return RemoteError(
            f"none of {', '.join(self.urls)} could be asked for {request}: {reason}",
            hint="check the URL, the token in it, and that the server is up",
        )

    def _http_thread(self) -> HttpThread:
        """Return the thread that downloads, which a warm cache does not need."""
        from symcache.client.jobs import HttpThread  # noqa: PLC0415 - see symcache.client

        if not self._entered:
            raise RuntimeError("SymbolClient is used outside of its `with` block")
        if self._thread is None:
            self._thread = HttpThread()
        return self._thread
