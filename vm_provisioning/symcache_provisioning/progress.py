"""Progress of a harvest, as it is reported to whoever shows it."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["HarvestProgress", "NoProgress", "SummedProgress"]


class HarvestProgress(Protocol):
    """Receives the progress of a harvest."""

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Begin another step; `total` is None if it is not known."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Report how much of the step is done."""


class NoProgress:
    """Ignores progress."""

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Do nothing."""


class SummedProgress:
    """Adds up the pieces that a transfer reports; HarvestProgress takes sums."""

    def __init__(self, progress: HarvestProgress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int) -> None:
        """Add a piece."""
        self._done += count
        self._progress.advance(self._done, self._total)
