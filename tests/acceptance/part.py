"""What one part of the run has found."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from symcache.errors import SymcacheError

__all__ = ["Fact", "Part", "SkippedError"]

Fact = str | int | float | bool | None
_LISTED = 50
"""Differences of one kind that are written down; all are counted."""


class SkippedError(Exception):
    """A part needs something that is not there; `todo` says how to have it."""

    def __init__(self, why: str, todo: str) -> None:
        super().__init__(why)
        self.todo = todo


@dataclass
class Part:
    """One part. What it keeps are names, numbers, hashes and UUIDs: never the content of a file of Apple's."""

    name: str
    checks: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    """How often something was not as it should be, by kind."""
    differences: list[dict[str, Fact]] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Fact]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """What was left out of it: why, and what to do."""
    failed: str = ""
    """Why it ended early, though all that it needs is there."""

    def check(self, fine: bool, kind: str, **about: Fact) -> bool:
        """Count a check; if it is not `fine`, keep what it is about as a difference of that kind."""
        self.checks += 1
        if not fine:
            self.differing[kind] += 1
            if self.differing[kind] <= _LISTED:
                self.differences.append({"kind": kind, **about})
        return fine

    def count(self, fact: str, number: int = 1) -> None:
        """Add to a fact that is a number."""
        self.facts[fact] = int(self.facts.get(fact) or 0) + number

    def row(self, table: str, **cells: Fact) -> None:
        """Add a row to a table of facts."""
        self.tables.setdefault(table, []).append(cells)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure how long something takes, in seconds."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0) + time.monotonic() - began, 1)

    @contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Let what is within be skipped by itself, or fail, without ending the part."""
        try:
            yield
        except SkippedError as skipped:
            self.skipped.append((f"{what}: {skipped}", skipped.todo))
        except (SymcacheError, OSError) as error:
            self.check(False, "failed", what=what, reason=str(error), next=getattr(error, "hint", ""))
