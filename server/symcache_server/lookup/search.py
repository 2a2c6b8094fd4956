"""Searching the library for what has no UUID: names and releases. Slow, so not for the event loop."""

from __future__ import annotations

from symcache.catalog import Occurrence, ReleaseRow
from symcache.errors import NotFoundError, UsageError
from symcache.library import Library

__all__ = ["by_name", "releases_named"]

_MOST_STARS = 4
"""For each further star, SQLite tries every split of a path once more."""


def by_name(library: Library, pattern: str, limit: int) -> list[Occurrence]:
    """Return what matches a glob, `limit` at most. Raises UsageError for one that would take for ever."""
    if pattern.count("*") > _MOST_STARS:
        raise UsageError(f"{pattern[:60]!r}: {_MOST_STARS} stars are enough for any name")
    return library.by_name(pattern, limit)


def releases_named(library: Library, name: str) -> list[ReleaseRow]:
    """Return the releases that a build or `PRODUCT:BUILD` may mean, one at least. Raises NotFoundError."""
    rows = [row for row in library.releases() if row.id.is_meant_by(name)]
    if not rows:
        raise NotFoundError(f"{name[:80]!r}: no such build in the library", hint="/api/v1/releases lists them")
    return rows
