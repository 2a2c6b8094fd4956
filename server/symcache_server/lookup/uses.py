"""Noting in the library which builds it was asked for, once a day each: what `symcache prune` may not take."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable

from symcache.errors import StorageError
from symcache.library import Library, note_uses

__all__ = ["UseLog"]

log = logging.getLogger("symcache.server")


class UseLog:
    """What was asked for since the last `flush`. The event loop adds to it, one thread at a time writes."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._pending: set[tuple[dt.date, str]] = set()
        self._noted: set[tuple[dt.date, str]] = set()
        """By this process; of today."""
        self._told = False

    def add(self, builds: Iterable[str | None]) -> None:
        """Count what a request was answered with; cheap."""
        today = _today()
        for build in builds:
            if build is not None and (today, build) not in self._noted:
                self._pending.add((today, build))

    def flush(self) -> None:
        """Write what is not noted yet; of a library that may not be written, that is said once."""
        today = _today()
        # Also where nothing was asked for: that this is known is noted, too.
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
            self._told = True
        else:
            self._told = False
        self._pending -= pending
        self._noted = noted | {entry for entry in pending if entry[0] == today}


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
