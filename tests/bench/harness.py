"""Interleaved rounds, medians, and one row a figure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ROUNDS", "Row", "compare", "figure"]

ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is value / peer_value, or None where there is no peer."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float | None
    ratio: float | None
    goal: str
    met: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the row as `bench.json` holds it."""
        return asdict(self)


def _seconds(action: Callable[[], object], prepare: Callable[[], object] | None) -> float:
    if prepare:
        prepare()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Callable[[], object],
    peer_name: str,
    peer: Callable[[], object],
    *,
    amount: float,
    unit: str,
    at_least: float | None = None,
    prepare: Callable[[], object] | None = None,
    rounds: int = ROUNDS,
) -> Row:
    """Time both in turn, A B A B …, after one round to warm up; rates are `amount` a second, by the median.

    `at_least` is the goal for ours / peer; `prepare` runs, untimed, before each.
    """
    own: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        pair = _seconds(ours, prepare), _seconds(peer, prepare)
        if number:
            own.append(pair[0])
            theirs.append(pair[1])
    ratio = statistics.median(b / a for a, b in zip(own, theirs, strict=True))
    return Row(
        name,
        amount / statistics.median(own),
        unit,
        peer_name,
        amount / statistics.median(theirs),
        ratio,
        "" if at_least is None else f">= {at_least:g}",
        None if at_least is None else ratio >= at_least,
    )


def figure(name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None) -> Row:
    """Return a row for a figure that has a goal of its own but no peer."""
    goal, met = "", None
    if at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    if at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    return Row(name, value, unit, "", None, None, goal, met)
