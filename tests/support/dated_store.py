"""A library in a folder whose clock a test turns: what a year brings is seen in a second."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from symcache.catalog import Catalog
from symcache.library import Library
from symcache.store import LocalStore

__all__ = ["Clock", "DatedStore", "dated_library"]


class Clock:
    """Seconds since the epoch, which go on as a test says."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:  # 2026-01-01
        self.now = start

    def pass_by(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds


class DatedStore(LocalStore):
    """A store that dates what it makes by a `Clock`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root, create=True)
        self._clock = clock

    def create(self, key: str, source: Path) -> bool:
        os.utime(source, (self._clock.now, self._clock.now))
        return super().create(key, source)

    def refresh(self, key: str) -> bool:
        path = self.root / key
        if not path.exists():
            return False
        os.utime(path, (self._clock.now, self._clock.now))
        return True

    def now(self) -> float:
        return self._clock.now


def dated_library(folder: Path, clock: Clock) -> Library:
    """Open the library in a folder, with a catalog of its own, as another machine has it."""
    return Library(DatedStore(folder, clock), Catalog(folder.parent / f"catalog-{threading.get_ident()}.db"))
