"""Where the binaries of a dump come from: folders, then the library, then servers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from symcache.cli.settings import cache_dir, open_library, server_urls
from symcache.client import SymbolClient, SymbolRequest
from symcache.dump import CacheGuess, ChainResolver, FolderResolver, ModuleResolver, ResolvedFile, Wanted
from symcache.dump.symbols import Progress
from symcache.errors import NotFoundError
from symcache.library import Library
from symcache.model import Kind

__all__ = ["LibraryResolver", "ServerResolver", "module_resolver"]


class LibraryResolver:
    """Finds modules in a library; contents are unpacked once, by their hash, below `folder`."""

    def __init__(self, library: Library, folder: Path) -> None:
        self._library, self._folder = library, folder

    def resolve(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> dict[Wanted, ResolvedFile]:
        """See `ModuleResolver.resolve`."""
        have = self._library.holdings(list({w.uuid for w in wanted}))
        known = [w for w in wanted if any(o.kind is w.kind for o in have.get(w.uuid, ()))]
        done = 0
        found: dict[Wanted, ResolvedFile] = {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 2), thread_name_prefix="unpack") as pool:
            for one, file in zip(known, pool.map(self._one, known), strict=True):
                done += 1
                if file:
                    found[one] = file
                if progress:
                    progress(done, len(wanted))
        return found

    def guess_caches(self, uuids: Sequence[UUID]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`."""
        images: Counter[UUID] = Counter()
        builds: dict[UUID, str | None] = {}
        for occurrences in self._library.holdings(uuids).values():
            for cache in {o.cache_uuid for o in occurrences if o.cache_uuid and o.kind is Kind.EXECUTABLE}:
                images[cache] += 1
            for o in occurrences:
                if o.cache_uuid and o.build:
                    builds.setdefault(o.cache_uuid, o.build)
        # Newest build first among equals would be a guess; the UUID at least always gives the same answer.
        ranked = sorted(images.items(), key=lambda item: (-item[1], item[0].hex))
        return [CacheGuess(cache, builds.get(cache), count) for cache, count in ranked]

    def _one(self, wanted: Wanted) -> ResolvedFile | None:
        hit = self._library.resolve(wanted.uuid, wanted.kind, cache=wanted.cache, build=wanted.build)
        if hit is None:
            return None
        target = self._folder / hit.sha256[:2] / hit.sha256
        if not target.is_file() or target.stat().st_size != hit.size:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._library.materialize(hit.sha256, hit.size, target)
        return ResolvedFile(target, f"library {self._library.store.location}", hit.build, hit.cache_uuid)


class ServerResolver:
    """Finds modules on symbol servers; the client checks and keeps what it fetched."""

    def __init__(self, client: SymbolClient) -> None:
        self._client = client

    def resolve(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> dict[Wanted, ResolvedFile]:
        """See `ModuleResolver.resolve`."""
        requests = {SymbolRequest(w.uuid, w.kind, w.cache, w.build): w for w in wanted}
        fetched = self._client.fetch_many(requests, progress)
        return {
            requests[request]: ResolvedFile(file.path, file.server, file.build, file.cache_uuid)
            for request, file in fetched.items()
        }

    def guess_caches(self, uuids: Sequence[UUID]) -> list[CacheGuess]:
        """Return nothing: servers are asked for files only."""
        del uuids
        return []


@contextmanager
def module_resolver(
    folders: Sequence[Path], library: str | None, servers: list[str] | None
) -> Iterator[ModuleResolver]:
    """Open everything that may have binaries. A library that does not exist is an error only if it was named."""
    with ExitStack() as stack:
        resolvers: list[ModuleResolver] = [FolderResolver(folders)] if folders else []
        try:
            opened = stack.enter_context(open_library(library))
        except NotFoundError:
            if library or os.environ.get("SYMCACHE_LIBRARY"):
                raise
        else:
            resolvers.append(LibraryResolver(opened, cache_dir() / "library"))
        if urls := server_urls(servers):
            resolvers.append(ServerResolver(stack.enter_context(SymbolClient(urls, cache_dir()))))
        yield ChainResolver(resolvers)
