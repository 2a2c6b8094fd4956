"""Waiting for what another process or thread does: no test may assume how fast that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

__all__ = ["until"]

_PATIENCE = 120.0
_PAUSE = 0.02

T = TypeVar("T")


def until(happened: Callable[[], T], what: str = "it never happened") -> T:
    """Ask again and again until the answer is true, and return it; fail with `what` after two minutes."""
    end = time.monotonic() + _PATIENCE
    while not (answer := happened()):
        if time.monotonic() > end:
            pytest.fail(what)
        time.sleep(_PAUSE)
    return answer
