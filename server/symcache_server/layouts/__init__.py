"""The look-up layouts: what a path requests. Pure functions over text."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from uuid import UUID

from symcache_server.layouts.lookup import Lookup, RawCacheFile, What
from symcache_server.layouts.table import LAYOUTS, UUID_TEXT

__all__ = ["LAYOUTS", "MAX_PATH", "Lookup", "RawCacheFile", "What", "match", "match_raw_cache"]

MAX_PATH = 4096
"""Longest path that is matched; longer ones get 414."""

_SHORT = 160
"""Length up to which paths are cached with what they request: clients send the same ones again and again."""
_CACHE_PIN = re.compile(rf"/cache/({UUID_TEXT})(/.+)", re.DOTALL)
_BUILD_PIN = re.compile(r"/build/([A-Za-z0-9._-]{1,64})(/.+)", re.DOTALL)
_RAW_CACHE = re.compile(rf"/caches/({UUID_TEXT})/([^/]{{1,255}})")


def match(path: str) -> Lookup | None:
    """Return what a decoded path requests, in any layout and with its pin, or None."""
    return _match_short(path) if len(path) <= _SHORT else _match(path)


def _match(path: str) -> Lookup | None:
    if len(path) > MAX_PATH:
        return None
    if (lookup := _match_layout(path)) is not None:
        return lookup
    if (pin := _CACHE_PIN.fullmatch(path)) and (lookup := _match_layout(pin[2])) is not None:
        return replace(lookup, image=lookup.image._replace(cache=UUID(pin[1])))
    if (pin := _BUILD_PIN.fullmatch(path)) and (lookup := _match_layout(pin[2])) is not None:
        return replace(lookup, image=lookup.image._replace(build=pin[1]))
    return None


_match_short = lru_cache(1 << 15)(_match)


def match_raw_cache(path: str) -> RawCacheFile | None:
    """Return which raw cache file `/caches/{cache uuid}/{file}` names, or None."""
    matched = _RAW_CACHE.fullmatch(path)
    return RawCacheFile(UUID(matched[1]), matched[2]) if matched else None


def _match_layout(path: str) -> Lookup | None:
    return next((lookup for layout in LAYOUTS if (lookup := layout.match(path)) is not None), None)
