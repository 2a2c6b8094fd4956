"""What a harvest tells while it works, and what it says in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from symcache.model import ManifestEntry, Release

__all__ = ["CacheSummary", "Counter", "HarvestProgress", "HarvestResult", "Silent"]


class HarvestProgress(Protocol):
    """What a harvest tells while it works."""

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Another step begins; `total` is None where nobody knows."""

    def advance(self, done: int, total: int | None = None) -> None:
        """So much of the step is done."""


class Silent:
    """Tells nobody."""

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Say nothing."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """One shared cache of the harvest; `images` is how many it says it has."""

    path: str
    arch: str
    uuid: UUID | None
    images: int


@dataclass(frozen=True, slots=True)
class HarvestResult:
    """What came of a harvest. Unless `sealed`, `missing` and `problems` say why."""

    release: Release
    source: str
    extractor: str
    """What was used: `raw`, `util` or `raw+util`; empty where there was no shared cache."""
    record_id: str
    sealed: bool
    images: int
    """Size of the manifest."""
    stored: int
    skipped: int
    caches: list[CacheSummary]
    missing: list[ManifestEntry]
    problems: list[str]
    notes: list[str]
    """What was passed over, and does not keep a harvest from being sealed."""


class Counter:
    """Adds up pieces for a progress that wants sums."""

    def __init__(self, progress: HarvestProgress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int) -> None:
        """Add a piece."""
        self._done += count
        self._progress.advance(self._done, self._total)
