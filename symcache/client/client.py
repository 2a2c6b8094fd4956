"""The synchronous face of fetching: requests in, files out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from symcache.client.local_cache import DEFAULT_LIMIT, LocalCache
from symcache.client.model import FetchedImage, Holdings
from symcache.client.sources import SourceJob, find_source, is_source_path
from symcache.client.urls import split_tokens
from symcache.errors import RemoteError, SymcacheError
from symcache.images import ImageRequest, SourceRequest

if TYPE_CHECKING:
    from symcache.client.downloads import Downloads

__all__ = ["SymbolClient"]

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
        self.failures: dict[ImageRequest, list[str]] = {}
        """Of the last `fetch_many`: what went wrong at servers on the way, one sentence each."""
        self.source_failures: list[str] = []
        """Of the last `fetch_sources`."""
        self._cache = LocalCache(cache_dir, max_bytes)
        self._down: dict[str, str] = {}
        """Servers that the last look-up could not reach, and why: not asked for files until one reaches them."""
        self._entered = False
        self._downloads: Downloads | None = None

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        if self._downloads:
            self._downloads.close()
            self._downloads = None

    def fetch_many(
        self, requests: Iterable[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, FetchedImage]:
        """Return a checked local file for every request that the cache or a server can answer.

        An absent key means that nobody has it; `failures` tells where a server could not be asked or lied. Raises
        RemoteError when something is not in the cache and no server could be reached at all.
        """
        self.failures = {}
        found: dict[ImageRequest, FetchedImage] = {}
        wanted: list[ImageRequest] = []
        for request in dict.fromkeys(requests):
            if cached := self._cache.find(request):
                found[request] = cached
            else:
                wanted.append(request)
        if not wanted or not self.urls:
            return found
        if all(url in self._down for url in self.urls):
            self.failures = {request: list(self._down.values()) for request in wanted}
            raise self._unanswered(wanted[0])
        from symcache.client.downloads import SymbolJob  # noqa: PLC0415 - see symcache.client

        downloads = self._open_downloads()
        job = SymbolJob(self.urls, self._tokens, wanted, self.failures, self._down)
        downloads.run(job.run(self._cache, downloads.session), lambda: progress and progress(job.done, job.total))
        found |= job.found
        if job.found:
            self._cache.evict()
        if not job.answered:
            raise self._unanswered(wanted[0])
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
        downloads = self._open_downloads()
        downloads.run(job.run(self._cache, downloads.session))
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
        from symcache.client.holdings import UnreachableError, ask_holdings  # noqa: PLC0415 - see symcache.client

        loads: dict[UUID, int | None] = dict(images) if isinstance(images, Mapping) else dict.fromkeys(images)
        reasons = []
        for url in self.urls:
            self._down.pop(url, None)
            try:
                return ask_holdings(url, loads, self._tokens.get(url), note_missing=note_missing)
            except UnreachableError as error:
                self._down[url] = str(error)
                reasons.append(str(error))
            except SymcacheError as error:
                reasons.append(str(error))
        raise RemoteError(
            f"no server tells what it holds: {'; '.join(reasons) or 'none is named'}",
            hint="name a symcache server with --server or SYMCACHE_URL",
        )

    def _unanswered(self, request: ImageRequest) -> RemoteError:
        reason = next((text for texts in self.failures.values() for text in texts), "no answer")
        return RemoteError(
            f"none of {', '.join(self.urls)} could be asked for {request}: {reason}",
            hint="check the URL, and that the server is up",
        )

    def _open_downloads(self) -> Downloads:
        """Return what downloads, which a warm cache does not need."""
        from symcache.client.downloads import Downloads  # noqa: PLC0415 - see symcache.client

        if not self._entered:
            raise RuntimeError("SymbolClient is used outside of its `with` block")
        if self._downloads is None:
            self._downloads = Downloads()
        return self._downloads
