"""The keys under which handlers find what they share in the application; `lifetime` makes and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web

from symcache.dump import SourceTrees
from symcache.library import Library
from symcache_server.config import ServerConfig
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.made import MadeFiles
from symcache_server.files.scrubber import Scrubber
from symcache_server.files.uploads import Uploads
from symcache_server.http.auth import TokenStore
from symcache_server.http.limits import Limits
from symcache_server.http.log_memory import LogMemory
from symcache_server.http.offload import Offload
from symcache_server.http.troubles import Troubles
from symcache_server.lookup.cache_match import CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.module_names import ServedNames
from symcache_server.lookup.overview import Overview
from symcache_server.lookup.refresh import Refresher
from symcache_server.lookup.resolver import Resolver
from symcache_server.lookup.uses import UseLog

__all__ = [
    "BACKGROUND",
    "CACHE_MATCHER",
    "CONFIG",
    "DECODED",
    "LIBRARY",
    "LIMITS",
    "LOG_MEMORY",
    "MADE",
    "MISS_LOG",
    "NAMES",
    "OFFLOAD",
    "OVERVIEW",
    "REFRESHER",
    "RESOLVER",
    "SCRUBBER",
    "SEARCHERS",
    "SOURCES",
    "TOKENS",
    "TROUBLES",
    "UPLOADS",
    "USE_LOG",
    "in_background",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

CONFIG = web.AppKey("config", ServerConfig)
LIBRARY = web.AppKey("library", Library)
BACKGROUND = web.AppKey("background", Library)
"""The same library, opened once more for what takes long, such as folding in a large record."""
SEARCHERS = web.AppKey("searchers", ThreadPoolExecutor)
RESOLVER = web.AppKey("resolver", Resolver)
REFRESHER = web.AppKey("refresher", Refresher)
MISS_LOG = web.AppKey("miss_log", MissLog)
OVERVIEW = web.AppKey("overview", Overview)
USE_LOG = web.AppKey("use_log", UseLog)
CACHE_MATCHER = web.AppKey("cache_matcher", CacheMatcher)
DECODED = web.AppKey("decoded", DecodedCache)
MADE = web.AppKey("made", MadeFiles)
NAMES = web.AppKey("names", ServedNames)
UPLOADS = web.AppKey("uploads", Uploads)
SCRUBBER = web.AppKey("scrubber", Scrubber)
SOURCES = web.AppKey("sources", SourceTrees)
TROUBLES = web.AppKey("troubles", Troubles)
TOKENS = web.AppKey("tokens", TokenStore)
LIMITS = web.AppKey("limits", Limits)
LOG_MEMORY = web.AppKey("log_memory", LogMemory)
OFFLOAD = web.AppKey("offload", Offload)
"""Absent where this server sends every body itself."""


async def in_background(
    app: web.Application, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
) -> _T:
    """Run what searches or lists a lot in one of a few threads, so that it never takes the threads that open files."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(app[SEARCHERS], lambda: function(*arguments, **named))
