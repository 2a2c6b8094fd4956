"""A pytest plugin: says to coverage which test is running, and writes how long each test that passed took.

To the file that `SYMCACHE_TEST_DURATIONS` names: JSON, seconds by node id, with what had to be set up for it.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import coverage
import pytest

_seconds: dict[str, float] = defaultdict(float)
_failed: set[str] = set()


def _switch(item: pytest.Item, phase: str) -> None:
    """Have lines counted for a test, in the words that its child processes find in PYTEST_CURRENT_TEST."""
    running = coverage.Coverage.current()
    assert running is not None
    running.switch_context(f"{item.nodeid} ({phase})")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _switch(item, "setup")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _switch(item, "call")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    _switch(item, "teardown")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    passed = {node: seconds for node, seconds in _seconds.items() if node not in _failed}
    Path(os.environ["SYMCACHE_TEST_DURATIONS"]).write_text(json.dumps(passed))
