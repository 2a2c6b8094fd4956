"""Noticing that the store's clock was set while a run relied on it, by the monotonic clock of this machine."""

from __future__ import annotations

import time

from symcache.store import Store

__all__ = ["StoreClock"]

_TOLERANCE = 60.0
"""Seconds that the two clocks may drift apart during a run."""


class StoreClock:
    """The store's clock from some moment on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._moment = self._read()
        self.start = self._moment[1]
        """Seconds since the epoch, as the store has them."""

    def _read(self) -> tuple[float, float, float]:
        # A store that is away for a while is waited for: the time it tells lies somewhere between the two.
        return time.monotonic(), self._store.now(), time.monotonic()

    def was_turned(self) -> bool:
        """Return whether more or less time has gone by there than here, as also after this machine was asleep."""
        (before, start, after), (again, now, end) = self._moment, self._read()
        return not again - after - _TOLERANCE <= now - start <= end - before + _TOLERANCE
