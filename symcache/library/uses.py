"""When a build was last asked for: `uses/<day>/<build>` in the store, one object a build and day, whoever notes it.

`uses/<day>/~` says that somebody noted uses on that day at all: without it, nobody knows what was asked for. Programs
that know nothing of `uses/` pass it over.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from symcache.model import is_build_name
from symcache.store import Store, put_object

__all__ = ["Uses", "forget_uses", "note_uses", "read_uses"]

_KEY = re.compile(r"uses/([0-9]{4}-[0-9]{2}-[0-9]{2})/(~|[A-Za-z0-9._-]{1,64})")
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Uses:
    """What is known of uses."""

    since: dt.date | None
    """The first day on which they were noted; None if they never were."""
    last: Mapping[str, dt.date]
    """The last day on which each build was asked for."""


def note_uses(store: Store, day: dt.date, builds: Iterable[str]) -> None:
    """Note that these builds were asked for on a day. Raises StorageError."""
    for name in ("~", *(build for build in builds if is_build_name(build))):
        put_object(store, f"uses/{day.isoformat()}/{name}", [b"{}\n"])


def read_uses(store: Store) -> Uses:
    """Return what was noted. Raises StorageError."""
    since, last = None, dict[str, dt.date]()
    for key in store.list("uses/"):
        match = _KEY.fullmatch(key)
        try:
            day = dt.date.fromisoformat(match[1]) if match else None
        except ValueError:
            continue
        if match is None or day is None:
            continue
        since = min(since or day, day)
        if match[2] != "~":
            last[match[2]] = max(last.get(match[2], day), day)
    return Uses(since, last)


def forget_uses(store: Store, before: dt.date) -> None:
    """Delete notes of days before this one. Raises StorageError."""
    young = store.now() - _DAY
    for key in list(store.list("uses/")):
        match = _KEY.fullmatch(key)
        if match and match[1] < before.isoformat():
            store.delete_older(key, young)
