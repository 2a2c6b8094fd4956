"""Waiting for a store over the network that is away for a while: for about a minute in all, and said once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from symcache.text import excerpt

__all__ = ["PATIENCE", "Outage"]

PATIENCE = 60.0
"""Seconds that a store may be away: restarted, or moved to another machine."""
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0

log = logging.getLogger("symcache.store")

T = TypeVar("T")


class Outage:
    """What all threads that use one store know of its being away."""

    def __init__(self, location: str, patience: float, passing: Callable[[BaseException], bool]) -> None:
        """`passing` says which errors may be over soon; every other one is a response of the store."""
        self._location, self._patience, self._passing = location, patience, passing
        self._lock = threading.Lock()
        self._since: float | None = None
        """Monotonic time of the first failure that no response came after."""
        self._told = -float("inf")

    def outlast(self, request: Callable[[int], T]) -> T:
        """Return what `request` does; it is made again while its error may pass. It is told how often it was made.

        Between two attempts there is a random part of a time that doubles. Once nothing has worked for the whole of
        `patience`, whoever was waiting gives up, and nobody waits any more until something works again.
        """
        first = float("inf")

        def given_up(state: tenacity.RetryCallState) -> bool:
            nonlocal first
            now = time.monotonic()
            with self._lock:
                if self._since is None:
                    self._since = now
                # Requests of others may work while this one never does.
                first = min(first, self._since, now)
            return now - first >= self._patience

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._passing),
            wait=tenacity.wait_random_exponential(_FIRST_WAIT, max=_LONGEST_WAIT),
            stop=given_up,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    result = request(attempt.retry_state.attempt_number - 1)
        except BaseException as error:
            if not self._passing(error):
                self._since = None
            raise
        self._since = None
        return result

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Log the first failure of an outage, and of one that comes and goes not more than one in a while."""
        now = time.monotonic()
        with self._lock:
            if now - self._told < self._patience:
                return
            self._told = now
        assert state.outcome is not None  # noqa: S101  # an attempt was made
        reason = excerpt(str(state.outcome.exception()).rpartition(" - ")[2].partition("\n")[0])
        log.warning("%s: does not respond (%s); waiting for it, %.0f s at most", self._location, reason, self._patience)
