"""Makes what handlers share, runs the background tasks, and closes all of it in the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aiohttp import web

from symcache.dump import SourceTrees
from symcache.errors import StorageError, SymcacheError
from symcache.library import Library
from symcache.symbolicate import NamesFolder
from symcache_server.config import ServerConfig
from symcache_server.convert.child import stop_making
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.made import MadeFiles
from symcache_server.files.repairs import Repairs
from symcache_server.files.scrubber import Scrubber
from symcache_server.files.uploads import Uploads
from symcache_server.http.auth import TokenStore
from symcache_server.http.limits import Limits
from symcache_server.http.log_memory import LogMemory
from symcache_server.http.metric_files import SLOT
from symcache_server.http.metrics import DROPPED, LOOP_DELAY, access_writer
from symcache_server.http.offload import Offload
from symcache_server.http.troubles import Troubles, look_at_folders
from symcache_server.keys import (
    BACKGROUND,
    CACHE_MATCHER,
    CONFIG,
    DECODED,
    LIBRARY,
    LIMITS,
    LOG_MEMORY,
    MADE,
    MISS_LOG,
    NAMES,
    OFFLOAD,
    OVERVIEW,
    REFRESHER,
    RESOLVER,
    SCRUBBER,
    SEARCHERS,
    SOURCES,
    TOKENS,
    TROUBLES,
    UPLOADS,
    USE_LOG,
    in_background,
)
from symcache_server.lookup.cache_match import CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.module_names import ServedNames
from symcache_server.lookup.overview import Overview
from symcache_server.lookup.refresh import Refresher
from symcache_server.lookup.resolver import Resolver
from symcache_server.lookup.upstreams import Upstreams, station
from symcache_server.lookup.uses import UseLog

__all__ = ["set_up"]

_PATIENCE = 3.0
"""Seconds that an object store may be away before clients are told: they ask again themselves."""

_THREADS = 32
"""Threads that wait for disks; the default would be few on a machine with few cores."""
_SEARCHERS = 4
_NAMES_SHARE = 4
"""Artifacts of names may take one part in so many of the cache's limit; images are about four times as large."""
_TICK = 0.05

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
    uses = UseLog(background)
    resolver = Resolver(library, upstreams, uses)
    app[CONFIG], app[LIBRARY], app[BACKGROUND] = config, library, background
    app[RESOLVER], app[REFRESHER] = resolver, Refresher(library, background, resolver.forget)
    app[DECODED], app[MADE], app[LIMITS] = decoded, MadeFiles(decoded.files), limits
    app[SCRUBBER] = Scrubber(library, folder, config.state_dir, repairs.repair)
    app[TOKENS] = TokenStore(config.tokens)
    app[UPLOADS] = Uploads(config.state_dir / "uploads", config.max_upload, config.max_uploads, config.body_seconds)
    app[SOURCES] = SourceTrees(config.sources)
    app[CACHE_MATCHER] = CacheMatcher(library)
    app[MISS_LOG], app[USE_LOG] = MissLog(config.state_dir / "misses.db"), uses
    names = NamesFolder(config.cache_dir / "names", config.cache_bytes // _NAMES_SHARE)
    app[NAMES] = ServedNames(config, resolver, decoded, app[MISS_LOG], names)
    app[OVERVIEW] = Overview(background, config.releases)
    app[SEARCHERS] = ThreadPoolExecutor(_SEARCHERS, thread_name_prefix="search")
    app[TROUBLES], app[LOG_MEMORY] = Troubles(), LogMemory()
    app.cleanup_ctx.append(_lifetime)


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    log.addHandler(app[LOG_MEMORY])
    duties = (_keep_up, _keep_overview, _write_misses, _write_uses, _look_after_disks, _measure_delay)
    tasks = [asyncio.create_task(duty(app)) for duty in duties]
    app[SCRUBBER].start()
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await app[NAMES].close()
    log.removeHandler(app[LOG_MEMORY])
    app[OVERVIEW].stop()
    await app[RESOLVER].close()
    with contextlib.suppress(StorageError):  # which was told while it served
        await asyncio.to_thread(app[MISS_LOG].close)
    await asyncio.to_thread(app[USE_LOG].flush)
    app[MADE].stop()
    stop_making()
    for part in (app[SCRUBBER], app[MADE], app[DECODED]):
        await asyncio.to_thread(part.close)
    await asyncio.to_thread(app[SEARCHERS].shutdown, cancel_futures=True)
    app[BACKGROUND].close()
    app[LIBRARY].close()


async def _keep_up(app: web.Application) -> None:
    """Follow the library."""
    while True:
        await asyncio.sleep(app[CONFIG].refresh_seconds)
        await app[REFRESHER].refresh()


async def _keep_overview(app: web.Application) -> None:
    """Find out what pages show of whole releases before anybody wants to see it."""
    while True:
        try:
            await in_background(app, app[OVERVIEW].fill)
            app[TROUBLES].note("overview", "")
        except (SymcacheError, OSError) as error:
            app[TROUBLES].note("overview", f"the releases cannot be looked through: {error}")
        await asyncio.sleep(app[CONFIG].refresh_seconds)


async def _write_misses(app: web.Application) -> None:
    """Write down what nobody had, every now and then; a file that others have locked keeps nothing else waiting."""
    while True:
        try:
            await asyncio.to_thread(app[MISS_LOG].flush)
            app[TROUBLES].note("misses", "")
        except StorageError as error:  # a disk that is full keeps no look-up from being served
            app[TROUBLES].note("misses", f"what nobody had is not noted down: {error}")
        DROPPED.labels("misses").inc(app[MISS_LOG].take_dropped())
        await asyncio.sleep(app[CONFIG].refresh_seconds)


async def _write_uses(app: web.Application) -> None:
    """Note in the library what it was asked for."""
    while True:
        await asyncio.to_thread(app[USE_LOG].flush)
        await asyncio.sleep(app[CONFIG].refresh_seconds)


async def _look_after_disks(app: web.Application) -> None:
    """See whether the server's folders take files, and its logs lines."""
    config, troubles = app[CONFIG], app[TROUBLES]
    folders = {
        "the cache of decoded files": (config.cache_dir, "what is not in there yet cannot be sent", True),
        "the state folder": (config.state_dir, "nothing can be pushed, and no misses are noted", False),
        "the temporary folder": (Path(tempfile.gettempdir()), "what is damaged cannot be had again", False),
    }
    if config.processes > 1 and SLOT not in os.environ:
        troubles.note("metrics", "there is no room for common metrics: each process tells its own")
    while True:
        await asyncio.to_thread(look_at_folders, troubles, folders)
        if writer := access_writer():
            troubles.note("access log", writer.problem and f"the access log cannot be written: {writer.problem}")
            DROPPED.labels("access").inc(writer.take_dropped())
        await asyncio.sleep(config.refresh_seconds)


async def _measure_delay(app: web.Application) -> None:
    """Have the metrics say for how long at once the event loop does not get to its work."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _TICK
        await asyncio.sleep(_TICK)
        LOOP_DELAY.observe(max(0.0, loop.time() - due))
