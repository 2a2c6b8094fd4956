"""What handlers take from the application, each thing under a key of its own; `lifetime` makes and closes them."""

from __future__ import annotations

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
from symcache_server.http.offload import Offload
from symcache_server.lookup.cache_match import CacheMatcher
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.refresh import Refresher
from symcache_server.lookup.resolver import Resolver

__all__ = [
    "BACKGROUND",
    "CACHE_MATCHER",
    "CONFIG",
    "DECODED",
    "LIBRARY",
    "LIMITS",
    "MADE",
    "MISS_LOG",
    "OFFLOAD",
    "REFRESHER",
    "RESOLVER",
    "SCRUBBER",
    "SOURCES",
    "TOKENS",
    "UPLOADS",
]

CONFIG = web.AppKey("config", ServerConfig)
LIBRARY = web.AppKey("library", Library)
BACKGROUND = web.AppKey("background", Library)
"""The same library for what may take long, such as folding in a large record: look-ups do not wait for it."""
RESOLVER = web.AppKey("resolver", Resolver)
REFRESHER = web.AppKey("refresher", Refresher)
MISS_LOG = web.AppKey("miss_log", MissLog)
CACHE_MATCHER = web.AppKey("cache_matcher", CacheMatcher)
DECODED = web.AppKey("decoded", DecodedCache)
MADE = web.AppKey("made", MadeFiles)
UPLOADS = web.AppKey("uploads", Uploads)
SCRUBBER = web.AppKey("scrubber", Scrubber)
SOURCES = web.AppKey("sources", SourceTrees)
TOKENS = web.AppKey("tokens", TokenStore)
LIMITS = web.AppKey("limits", Limits)
OFFLOAD = web.AppKey("offload", Offload)
"""Absent where this server sends every body itself."""
