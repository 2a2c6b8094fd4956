"""What handlers share, from its making to its closing: this is the one place that knows all of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from symcache.dump import SourceTrees
from symcache.errors import StorageError
from symcache.library import Library
from symcache_server.config import ServerConfig
from symcache_server.convert.child import stop_making
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.made import MadeFiles
from symcache_server.files.repairs import Repairs
from symcache_server.files.scrubber import Scrubber
from symcache_server.files.uploads import Uploads
from symcache_server.http.auth import TokenStore
from symcache_server.http.limits import Limits
from symcache_server.http.metrics import flush_access_log
from symcache_server.http.offload import Offload
from symcache_server.keys import (
    BACKGROUND,
    CACHE_MATCHER,
    CONFIG,
    DECODED,
    LIBRARY,
    LIMITS,
    MADE,
    MISS_LOG,
    OFFLOAD,
    REFRESHER,
    RESOLVER,
    SCRUBBER,
    SOURCES,
    TOKENS,
    UPLOADS,
)
from symcache_server.lookup.cache_match import CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.refresh import Refresher
from symcache_server.lookup.resolver import Resolver
from symcache_server.lookup.upstreams import Upstreams, station

__all__ = ["set_up"]

_PATIENCE = 3.0
"""Seconds that an object store may be away before clients are told: they ask again themselves."""

log = logging.getLogger("symcache.server")


def set_up(app: web.Application, config: ServerConfig) -> None:
    """Make what the handlers of `app` share, and have it closed with it. Raises NotFoundError, StorageError."""
    open_library = partial(Library.open, config.library, patience=_PATIENCE)
    library, background = open_library(), open_library()
    repairs = Repairs(open_library, config.upstreams, {"Via": station(config.identity)})
    folder = config.cache_dir / "decoded"
    decoded = DecodedCache(library, folder, config.cache_bytes, repairs.repair)
    limits = Limits(*config.rates, config.trusted_proxies, config.processes)
    if config.x_accel or config.redirect_to_store:
        app[OFFLOAD] = Offload(config, library.store, decoded)
    upstreams = None
    if config.upstreams:
        upstreams = Upstreams(config.upstreams, config.cache_dir / "upstream", config.cache_bytes, config.identity)
    resolver = Resolver(library, upstreams)
    app[CONFIG], app[LIBRARY], app[BACKGROUND] = config, library, background
    app[RESOLVER], app[REFRESHER] = resolver, Refresher(library, background, resolver.forget)
    app[DECODED], app[MADE], app[LIMITS] = decoded, MadeFiles(decoded.files), limits
    app[SCRUBBER] = Scrubber(library, folder, config.state_dir, repairs.repair)
    app[TOKENS] = TokenStore(config.tokens)
    app[UPLOADS] = Uploads(config.state_dir / "uploads", config.max_upload, config.max_uploads)
    app[SOURCES] = SourceTrees(config.sources)
    app[CACHE_MATCHER] = CacheMatcher(library)
    app[MISS_LOG] = MissLog(config.state_dir / "misses.db")
    app.cleanup_ctx.append(_lifetime)


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    upkeep = asyncio.create_task(_keep_up(app))
    app[SCRUBBER].start()
    yield
    upkeep.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await upkeep
    await app[RESOLVER].close()
    flush_access_log()
    await asyncio.to_thread(app[MISS_LOG].close)
    app[MADE].stop()
    stop_making()
    for part in (app[SCRUBBER], app[MADE], app[DECODED]):
        await asyncio.to_thread(part.close)
    app[BACKGROUND].close()
    app[LIBRARY].close()


async def _keep_up(app: web.Application) -> None:
    """Follow the library, and write down what is kept in memory, every now and then."""
    failed = False
    while True:
        await asyncio.sleep(app[CONFIG].refresh_seconds)
        await app[REFRESHER].refresh()
        flush_access_log()
        try:
            await asyncio.to_thread(app[MISS_LOG].flush)
            failed = False
        except StorageError as error:  # a disk that is full keeps no look-up from being served
            if not failed:
                log.warning("what nobody had is not noted down: %s", error)
            failed = True
