"""Harvests as processes of their own: `symcache harvest SOURCE --json`, so that an error with one affects no other."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from symcache.own_program import own_environment, own_python
from symcache_provisioning import Inventory

__all__ = ["HarvestProcesses", "MachineReport", "harvest_environment"]

_STOP_SECONDS = 120
"""Time for taking machines down."""
_OUTCOMES = {0: "sealed", 1: "not sealed", 130: "interrupted"}


@dataclass
class MachineReport:
    """Outcome of one machine. `result` is what `symcache harvest --json` printed, or None if it printed nothing."""

    machine: str
    code: int = 130
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    result: dict[str, Any] | None = None

    @property
    def outcome(self) -> str:
        """`sealed`, `not sealed`, `failed` or `interrupted`."""
        return _OUTCOMES.get(self.code, "failed")

    def to_json(self) -> dict[str, Any]:
        """Return the report as `--json` prints it."""
        return {"machine": self.machine, "outcome": self.outcome, "exit_code": self.code, "seconds": self.seconds} | {
            "error": self.error,
            "hint": self.hint,
            "result": self.result,
        }


def harvest_environment(inventory: Inventory) -> dict[str, str]:
    """Return the environment of a harvest that knows the same machines."""
    environment = own_environment() | {"COLUMNS": "10000"}
    if inventory.path is not None:
        environment["SYMCACHE_MACHINES"] = str(inventory.path)
    return environment


class HarvestProcesses:
    """The harvests that are running. `step` is called with the name of the source and what is done there."""

    def __init__(self, options: Sequence[str], environment: dict[str, str], step: Callable[[str, str], None]) -> None:
        """`options` are those of `symcache harvest`."""
        self._options, self._environment, self._step = options, environment, step
        self._children: list[subprocess.Popen[str]] = []
        self._starting = threading.Lock()
        self._stopping = False

    def run(self, source: str, name: str = "") -> MachineReport:
        """Harvest a source to its end; `name` is what it is called in the report."""
        report = MachineReport(name or source)
        started = time.monotonic()
        child = self._start(source)
        if child is None:
            return report
        self._step(report.machine, "starting")
        with child:
            reader = threading.Thread(target=self._listen, args=(child, report), daemon=True)
            reader.start()
            printed = child.stdout.read() if child.stdout else ""
            report.code = child.wait()
            reader.join()
        with contextlib.suppress(ValueError):
            report.result = json.loads(printed)
        report.seconds = max(0.1, round(time.monotonic() - started, 1))
        return report

    def _start(self, source: str) -> subprocess.Popen[str] | None:
        """Start a harvest that `stop` will interrupt. Return None after `stop`."""
        with self._starting:
            if self._stopping:
                return None
            child = subprocess.Popen(
                own_python("-m", "symcache", "harvest", source, "--json", *self._options),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                start_new_session=True,  # Ctrl+C is passed on by `stop`, once
            )
            self._children.append(child)
            return child

    def _listen(self, child: subprocess.Popen[str], report: MachineReport) -> None:
        """Show each step, and store the error in the report."""
        for line in child.stderr or ():
            text = line.strip()
            if text.startswith("error: "):
                report.error = text.removeprefix("error: ")
            elif text.startswith("next: "):
                report.hint = text.removeprefix("next: ")
            elif text and not text.startswith(("problem: ", "note: ", "missing: ")):
                self._step(report.machine, text)

    def stop(self) -> None:
        """Interrupt all running harvests, and wait until they have cleaned up."""
        with self._starting:
            self._stopping = True
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
