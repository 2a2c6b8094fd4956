"""The look-up layouts: from a path to what is wanted. Pure functions, no request and no file is touched here.

Each module knows one layout and exports `match(path)`. A pattern spans the whole path, so a binary may have any name,
be it `build`, `api` or `metrics`: what a path means is decided by its shape, not by its first word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from symcache_server.layouts import breakpad, debuginfod, lldb_tree, ssqp, unified
from symcache_server.layouts.wanted import Wanted, What

__all__ = ["LAYOUTS", "MAX_PATH", "RawCacheFile", "Wanted", "What", "match", "match_raw_cache"]

MAX_PATH = 4096
"""Longest path that is looked at; a longer one is answered with 414."""

LAYOUTS: dict[str, Callable[[str], Wanted | None]] = {
    "debuginfod": debuginfod.match,
    "ssqp": ssqp.match,
    "unified": unified.match,
    "lldb": lldb_tree.match,
    "breakpad": breakpad.match,
}

_SHORT = 160
"""What paths up to this length ask for is remembered: debuggers and dump loaders ask for the same again and again."""
_UUID = r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_CACHE_PIN = re.compile(rf"/cache/({_UUID})(/.+)", re.DOTALL)
_BUILD_PIN = re.compile(r"/build/([A-Za-z0-9._-]{1,64})(/.+)", re.DOTALL)
_RAW_CACHE = re.compile(rf"/caches/({_UUID})/([^/]{{1,255}})")


class RawCacheFile(NamedTuple):
    """One raw file of a shared cache."""

    cache_uuid: UUID
    name: str


def match(path: str) -> Wanted | None:
    """Return what a decoded path asks for in any layout, with its pin, or None when it is in none of them."""
    return _match_short(path) if len(path) <= _SHORT else _match(path)


def _match(path: str) -> Wanted | None:
    if len(path) > MAX_PATH:
        return None
    if (wanted := _match_layout(path)) is not None:
        return wanted
    if (pin := _CACHE_PIN.fullmatch(path)) and (wanted := _match_layout(pin[2])) is not None:
        return replace(wanted, cache=UUID(pin[1]))
    if (pin := _BUILD_PIN.fullmatch(path)) and (wanted := _match_layout(pin[2])) is not None:
        return replace(wanted, build=pin[1])
    return None


_match_short = lru_cache(1 << 15)(_match)


def match_raw_cache(path: str) -> RawCacheFile | None:
    """Return which raw cache file `/caches/{cache uuid}/{file}` names, or None."""
    found = _RAW_CACHE.fullmatch(path)
    return RawCacheFile(UUID(found[1]), found[2]) if found else None


def _match_layout(path: str) -> Wanted | None:
    for layout in LAYOUTS.values():
        if (wanted := layout(path)) is not None:
            return wanted
    return None
