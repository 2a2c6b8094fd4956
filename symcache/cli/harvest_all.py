"""`symcache harvest --all`: every machine of the inventory, several at a time, with one report.

Each machine is harvested by its own `symcache harvest NAME`, so that an error with one affects no other.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET  # only written, never read

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from symcache.cli.common import Table, console, out, plain
from symcache.errors import NotFoundError, StorageError
from symcache.own_program import own_environment, own_python
from symcache_provisioning import DRIVERS, GUEST_LIMIT, Inventory, MachineDefinition

__all__ = ["MachineReport", "exit_code", "harvest_machines", "show_reports", "write_junit"]

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


def harvest_machines(
    inventory: Inventory, tags: Sequence[str], options: Sequence[str], jobs: int
) -> list[MachineReport]:
    """Harvest the machines that have all these tags, up to `jobs` at a time, and report on each in their order.

    `options` are those of `symcache harvest`. Raises NotFoundError when there is no such machine.
    """
    chosen = [m for m in inventory.machines.values() if set(tags) <= set(m.tags)]
    if not chosen:
        what = f"with the tags {', '.join(tags)}" if tags else "at all"
        raise NotFoundError(
            f"{inventory.path or 'the inventory'}: has no machine {what}",
            hint="describe machines in machines.toml (docs/machines.md)",
        )
    environment = own_environment() | {"COLUMNS": "10000"}
    if inventory.path is not None:
        environment["SYMCACHE_MACHINES"] = str(inventory.path)
    with _Display(chosen) as display:
        harvests = _Harvests(options, environment, display)
        with ThreadPoolExecutor(jobs, thread_name_prefix="harvest") as pool:
            try:
                running = [pool.submit(harvests.harvest, machine) for machine in chosen]
                return [job.result() for job in running]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                harvests.stop()
                raise


@dataclass
class _Harvests:
    """The harvests that are running."""

    options: Sequence[str]
    environment: dict[str, str]
    display: _Display
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    guests: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(GUEST_LIMIT))
    starting: threading.Lock = field(default_factory=threading.Lock)
    stopping: bool = False

    def harvest(self, machine: MachineDefinition) -> MachineReport:
        """Harvest one machine to its end."""
        limited = DRIVERS[machine.driver].capabilities.apple_limit
        with self.guests if limited else contextlib.nullcontext():
            return self._harvest(machine)

    def _harvest(self, machine: MachineDefinition) -> MachineReport:
        report = MachineReport(machine.name)
        started = time.monotonic()
        child = self._start(machine)
        if child is None:
            return report
        self.display.step(machine.name, "starting")
        with child:
            reader = threading.Thread(target=self._listen, args=(child, report), daemon=True)
            reader.start()
            printed = child.stdout.read() if child.stdout else ""
            report.code = child.wait()
            reader.join()
        with contextlib.suppress(ValueError):
            report.result = json.loads(printed)
        report.seconds = round(time.monotonic() - started, 1)
        self.display.finish(report)
        return report

    def _start(self, machine: MachineDefinition) -> subprocess.Popen[str] | None:
        """Start a harvest that `stop` will interrupt. Return None after `stop`."""
        with self.starting:
            if self.stopping:
                return None
            child = subprocess.Popen(
                own_python("-m", "symcache", "harvest", machine.name, "--json", *self.options),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                start_new_session=True,  # Ctrl+C is passed on by `stop`, once
            )
            self.children.append(child)
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
                self.display.step(report.machine, text)

    def stop(self) -> None:
        """Interrupt all running harvests, and wait until they have cleaned up."""
        with self.starting:
            self.stopping = True
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self.children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()


class _Display:
    """A line for each machine with its current step; without a terminal, a line for each step."""

    def __init__(self, machines: Sequence[MachineDefinition]) -> None:
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.fields[name]}"), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {
            m.name: self._bars.add_task("waiting", name=plain(m.name), start=False, total=None) for m in machines
        }

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def step(self, machine: str, title: str) -> None:
        """Show the step that a machine is at."""
        self._bars.start_task(self._tasks[machine])
        self._bars.update(self._tasks[machine], description=plain(title))
        if not console.is_terminal:
            console.print(f"{plain(machine)}: {plain(title)}", soft_wrap=True)

    def finish(self, report: MachineReport) -> None:
        """Show the outcome of a machine."""
        self._bars.update(self._tasks[report.machine], description=report.outcome, total=1, completed=1)
        if not console.is_terminal:
            console.print(f"{plain(report.machine)}: {report.outcome}", soft_wrap=True)


def show_reports(reports: Sequence[MachineReport]) -> None:
    """Print a table for people on stdout, and problems and errors on stderr."""
    table = Table("machine", "outcome", "release", "images", "new files", "seconds")
    for r in reports:
        release = (r.result or {}).get("release") or {}
        colour = {"sealed": "green", "not sealed": "yellow"}.get(r.outcome, "red")
        numbers = [str((r.result or {}).get(key, "")) for key in ("images", "stored")]
        title = " ".join(str(release.get(key, "")) for key in ("version", "build")).strip()
        table.add_row(plain(r.machine), f"[{colour}]{r.outcome}[/]", plain(title), *numbers, f"{r.seconds:.0f}")
    out.print(table)
    for line in _problem_lines(reports):
        console.print(line, soft_wrap=True)


def _problem_lines(reports: Sequence[MachineReport]) -> Iterator[str]:
    for r in reports:
        for problem in ((r.result or {}).get("problems") or [])[:10]:
            yield f"[yellow]{plain(r.machine)}:[/] {plain(str(problem))}"
        if r.error:
            yield f"[bold red]{plain(r.machine)}:[/] {plain(r.error)}"
            if r.hint:
                yield f"[dim]next:[/] {plain(r.hint)}"


def exit_code(reports: Sequence[MachineReport]) -> int:
    """Return 0 when every machine is sealed, 1 when some are not, 3 when some could not be harvested at all."""
    codes = {r.code for r in reports}
    return 0 if codes <= {0} else 1 if codes <= {0, 1} else 3


def write_junit(reports: Sequence[MachineReport], file: Path) -> None:
    """Write a JUnit report, a test case a machine. Raises StorageError."""
    failures, errors = sum(r.code == 1 for r in reports), sum(r.code not in {0, 1} for r in reports)
    seconds = f"{sum(r.seconds for r in reports):.1f}"
    counts = {"tests": str(len(reports)), "failures": str(failures), "errors": str(errors), "time": seconds}
    suites = ET.Element("testsuites", {"name": "symcache", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": "symcache harvest", **counts})
    for r in reports:
        attributes = {"classname": "symcache.harvest", "name": r.machine, "time": f"{r.seconds:.1f}"}
        case = ET.SubElement(suite, "testcase", attributes)
        if r.code:
            kind = "failure" if r.code == 1 else "error"
            body = ET.SubElement(case, kind, {"message": r.error or r.outcome, "type": r.outcome})
            body.text = "\n".join([*((r.result or {}).get("problems") or []), r.hint])
    ET.indent(suites)
    try:
        file.write_bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise StorageError(
            f"{file}: cannot be written: {error.strerror}", hint="check --junit, and the free space"
        ) from error
