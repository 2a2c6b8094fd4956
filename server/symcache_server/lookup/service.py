"""What all handlers share: the library, its answers, the caches, and their upkeep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from uuid import UUID

from aiohttp import web

from symcache.catalog import Occurrence, ReleaseRow
from symcache.client import FetchedImage
from symcache.dump import SourceTrees
from symcache.errors import NotFoundError, StorageError, SymcacheError, UsageError
from symcache.images import ImageRequest
from symcache.library import Found, Library
from symcache.model import Kind
from symcache.store import LocalStore
from symcache_server.config import ServerConfig
from symcache_server.convert.breakpad import stop_making
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.uploads import Uploads
from symcache_server.http.auth import TokenStore
from symcache_server.http.fast_path import FastPath
from symcache_server.http.limits import Limits
from symcache_server.http.metrics import LIBRARY_AGE, flush_access_log
from symcache_server.http.offload import Offload
from symcache_server.layouts import Lookup
from symcache_server.lookup.cache_match import CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.upstreams import Upstreams

__all__ = ["SERVICE", "Service"]

log = logging.getLogger("symcache.server")
_Key = tuple[UUID, Kind | None, UUID | None, str | None]
_MOST_STARS = 4
"""SQLite tries every way to share a path out among the stars of a glob."""
_REMEMBERED = 200_000
"""Answers kept in memory, until the catalog changes."""


class Service:
    """One library being served by this process."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.open_reads = config.open_reads
        self.library = Library.open(config.library)
        self.background = Library.open(config.library)
        """The same library for what may take long, such as folding in a large record: look-ups do not wait for it."""
        self.decoded = DecodedCache(self.library, config.cache_dir / "decoded", config.cache_bytes)
        self.tokens = TokenStore(config.tokens)
        self.limits = Limits(*config.rates, config.trusted_proxies, config.shared_dir)
        self.offload = (
            Offload(config, self.library.store, self.decoded) if config.x_accel or config.redirect_to_store else None
        )
        self.fast = FastPath(
            self.decoded,
            enabled=self.open_reads and self.offload is None and config.tls_cert is None,
            wait=self.limits.wait if self.limits.on else None,
        )
        self.uploads = Uploads(config.state_dir / "uploads", config.max_upload, config.max_uploads)
        self.upstreams: Upstreams | None = None
        self.sources = SourceTrees(config.sources)
        self.matcher = CacheMatcher(self.library)
        self.misses = MissLog(config.state_dir / "misses.db")
        self.refreshed = time.time()
        self.refresh_error = ""
        self._misses_error = ""
        self._answers: OrderedDict[_Key, Found | None] = OrderedDict()
        self._age = 0
        """How often they were dropped."""
        self._remote = not isinstance(self.library.store, LocalStore)
        self._version = self._data_version()
        self._upkeep: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the library, from inside the event loop."""
        if self.config.upstreams:
            folder = self.config.cache_dir / "upstream"
            self.upstreams = Upstreams(self.config.upstreams, folder, self.config.cache_bytes, self.config.identity)
        self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Stop following, and write down what is still in memory."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        if self.upstreams is not None:
            await self.upstreams.close()
        flush_access_log()
        await asyncio.to_thread(self.misses.close)
        self.decoded.stop_making()
        stop_making()
        await asyncio.to_thread(self.decoded.close)
        self.background.close()
        self.library.close()

    async def resolve(self, lookup: Lookup) -> Found | None:
        """Return the content that answers, from memory if the catalog has not changed since.

        A pin chooses among the contents that shared caches or releases give a UUID. What lies in no shared cache, or
        belongs to no release, is the same under every pin: a debugger that is pinned by its base URL still finds its
        own program.
        """
        key = (lookup.uuid, lookup.what.kind, lookup.cache, lookup.build)
        try:
            return self._answers[key]
        except KeyError:
            pass
        # SQLite answers faster than a thread is reached; only what asks over the network may not be waited for.
        while True:
            age = self._age
            found = await asyncio.to_thread(self._ask, *key) if self._remote else self._ask(*key)
            if age == self._age:  # else the library has changed meanwhile
                break
        self._answers[key] = found
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return found

    def _ask(self, uuid: UUID, kind: Kind | None, cache: UUID | None, build: str | None) -> Found | None:
        return self.library.resolve(uuid, kind, cache=cache, build=build, or_unbound=True)

    async def fetch(self, asked: ImageRequest, asker: web.BaseRequest) -> FetchedImage | None:
        """Return what another server has, or None. Raises RemoteError when it may be there and none can be asked.

        Other servers are trusted least: they are not asked where the library itself has a say about the UUID. Where it
        knows it from other caches or releases only, their answer counts if it is of the one that is asked for.
        """
        if self.upstreams is None or self.library.has_a_say(asked.uuid, cache=asked.cache, build=asked.build):
            return None
        found = await self.upstreams.fetch(asked, asker)
        if found is None or not self.library.variants(asked.uuid):
            return found
        bound = asked.cache in {None, found.cache_uuid} and asked.build in {None, found.build}
        return found if bound else None

    def by_name(self, pattern: str, limit: int) -> list[Occurrence]:
        """Return what matches a glob, `limit` at most; slow. Raises UsageError for one that would take for ever."""
        if pattern.count("*") > _MOST_STARS:
            raise UsageError(f"{pattern[:60]!r}: {_MOST_STARS} stars are enough for any name")
        return self.background.by_name(pattern, limit)

    async def release(self, build: str) -> ReleaseRow:
        """Return one release. Raises NotFoundError."""
        for row in await asyncio.to_thread(self.background.releases):
            if row.build == build:
                return row
        raise NotFoundError(f"{build[:80]!r}: no such build in the library", hint="/api/v1/releases lists them")

    def forget(self) -> None:
        """Drop remembered answers: something they promised is gone."""
        self._age += 1
        self._answers.clear()
        self.fast.forget()

    def _data_version(self) -> int:
        return self.library.catalog.data_version()

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self.config.refresh_seconds)
            try:
                await asyncio.to_thread(self.background.refresh)
                # Another process may have folded: every change to the catalog file counts.
                if (version := await asyncio.to_thread(self._data_version)) != self._version:
                    self._version = version
                    self.forget()
                self.refreshed, self.refresh_error = time.time(), ""
                LIBRARY_AGE.set(self.refreshed)
            except Exception as error:  # whatever it is, it may be over the next time
                if not self.refresh_error:
                    log.warning("cannot look for new records: %s", error, exc_info=not isinstance(error, SymcacheError))
                self.refresh_error = str(error) or type(error).__name__
            await self._write_down()

    async def _write_down(self) -> None:
        """Write what is kept in memory; a disk that is full keeps nobody from being answered."""
        flush_access_log()
        try:
            await asyncio.to_thread(self.misses.flush)
            self._misses_error = ""
        except StorageError as error:
            if not self._misses_error:
                log.warning("what nobody had is not noted down: %s", error)
            self._misses_error = str(error)


SERVICE = web.AppKey("service", Service)
