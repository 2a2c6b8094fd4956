"""Noting in the library which builds it was asked for, once a day each: what `symcache prune` may not take."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable

from symcache.errors import StorageError
from symcache.library import Library, note_uses

__all__ = ["UseLog"]

log = logging.getLogger("symcache.server")
_RETRY_SECONDS = 600.0
"""A library that cannot be written may be read-only for good, or its store away for a moment."""
_MOST_PENDING = 10_000


class UseLog:
    """Builds that were requested since the last `flush`. The event loop adds to it, one thread at a time writes."""

    def __init__(self, library: Library, clock: Callable[[], float] = time.monotonic) -> None:
        self._library, self._clock = library, clock
        self._pending: set[tuple[dt.date, str]] = set()
        self._noted: set[tuple[dt.date, str]] = set()
        """What this process has noted today."""
        self._retry_at = 0.0
        self._told = False

    def add(self, builds: Iterable[str | None]) -> None:
        """Count the builds that a response came from; cheap."""
        today = _today()
        for build in builds:
            if build is not None and (today, build) not in self._noted and len(self._pending) < _MOST_PENDING:
                self._pending.add((today, build))

    def flush(self) -> None:
        """Write what is not noted yet. What cannot be written is kept, and tried again ten minutes later."""
        if self._clock() < self._retry_at:
            return
        today = _today()
        # `~` says that uses were noted today at all, even if there were none.
        noted = {entry for entry in self._noted if entry[0] == today}
        pending = {*self._pending, *({(today, "~")} - noted)}
        days: dict[dt.date, list[str]] = {}
        for day, build in pending - noted:
            days.setdefault(day, []).append(build)
        try:
            for day, builds in days.items():
                note_uses(self._library.store, day, builds)
        except StorageError as error:
            if not self._told:
                log.info("which builds are asked for is not noted, and prune cannot know it: %s", error)
            self._told, self._retry_at = True, self._clock() + _RETRY_SECONDS
            return
        self._told = False
        self._pending -= pending
        self._noted = noted | {entry for entry in pending if entry[0] == today}


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
