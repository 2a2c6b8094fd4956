"""What all tests share: a neutral environment, and the rule that no test is skipped without a word."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from typer.testing import CliRunner

# No example may fail for being slow: the machine may be busy with something else just then.
hypothesis.settings.register_profile(
    "patient", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

sys.dont_write_bytecode = False  # what pytest has rewritten is kept for its next run

_ALLOWED = Path(__file__).with_name("allowed-skips.txt")
_skipped: list[tuple[str, str]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help=f"fail when a test is skipped that {_ALLOWED.name} does not name"
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def _unexplained() -> list[tuple[str, str]]:
    """Return what was skipped without leave: lines are globs over node ids, or over reasons behind `because: `."""
    lines = [line.partition("#")[0].strip() for line in _ALLOWED.read_text().splitlines()]
    nodes = [line for line in lines if line and not line.startswith("because: ")]
    reasons = [line.removeprefix("because: ") for line in lines if line.startswith("because: ")]
    return [
        (node, why)
        for node, why in _skipped
        if not any(fnmatch.fnmatchcase(node, p) for p in nodes)
        and not any(fnmatch.fnmatchcase(why, r) for r in reasons)
    ]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist has seen: it tells of no module that is skipped as a whole."""
    _skipped.extend(map(tuple, node.workeroutput.get("skipped_modules", ())))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["skipped_modules"] = [s for s in _skipped if "::" not in s[0]]
        return
    if session.config.getoption("--strict-skips") and exitstatus == 0 and _unexplained():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--strict-skips"):
        for node, why in _unexplained():
            terminalreporter.write_line(f"skipped, but not on {_ALLOWED.name}: {node}: {why}", red=True)


@pytest.fixture(autouse=True)
def described_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever JSON a command prints here, docs/reference/json.md tells of each key."""
    invoke, undescribed = CliRunner.invoke, []

    def looked_at(runner: CliRunner, app: Any, args: Any = None, **options: Any) -> Any:
        result = invoke(runner, app, args, **options)
        if args and "--json" in args:
            from tests.reference.json_output import undescribed_keys

            with contextlib.suppress(ValueError):  # an error, which is said in words
                undescribed.extend(undescribed_keys(args, json.loads(result.stdout)))
        return result

    monkeypatch.setattr(CliRunner, "invoke", looked_at)
    yield
    assert undescribed == []


@pytest.fixture(autouse=True)
def neutral_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the library, caches or settings of whoever runs it."""
    # Not by mktemp, which looks through all folders of the run to find the next number.
    homes = tmp_path_factory.getbasetemp() / "homes"
    homes.mkdir(exist_ok=True)
    home = tempfile.mkdtemp(dir=homes)
    for name in [n for n in os.environ if n.startswith("SYMCACHE_") and not n.startswith("SYMCACHE_TEST_")]:
        monkeypatch.delenv(name)
    for name in ("DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "LLDB_DEBUGSERVER_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")  # where all servers of tests are
    monkeypatch.setenv("HOME", home)
    for name, folder in (
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_CACHE_HOME", ".cache"),
        ("XDG_STATE_HOME", ".local/state"),
    ):
        monkeypatch.setenv(name, f"{home}/{folder}")
