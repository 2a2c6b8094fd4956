"""`symcache harvest --all`: every machine of the inventory, several at a time, with one report.

Each machine is harvested by its own `symcache harvest NAME`, so that an error with one affects no other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from symcache.cli import junit
from symcache.cli.common import Table, console, out, plain
from symcache.cli.harvest_process import HarvestProcesses, MachineReport, harvest_environment
from symcache.cli.junit import Case
from symcache.errors import NotFoundError
from symcache_provisioning import DRIVERS, GUEST_LIMIT, Inventory, MachineDefinition

__all__ = ["MachineReport", "exit_code", "harvest_machines", "show_reports", "write_junit"]


def harvest_machines(
    inventory: Inventory, tags: Sequence[str], options: Sequence[str], jobs: int
) -> list[MachineReport]:
    """Harvest the machines that have all these tags, up to `jobs` at a time, and report on each in their order.

    `options` are those of `symcache harvest`. Raises NotFoundError when there is no such machine.
    """
    chosen = inventory.tagged(tags)
    if not chosen:
        what = f"with the tags {', '.join(tags)}" if tags else "at all"
        raise NotFoundError(
            f"{inventory.path or 'the inventory'}: has no machine {what}",
            hint="describe machines in machines.toml (docs/machines.md)",
        )
    environment = harvest_environment(inventory)
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


class _Harvests(HarvestProcesses):
    """The harvests that are running, as many guests of Apple's at a time as may be."""

    def __init__(self, options: Sequence[str], environment: dict[str, str], display: _Display) -> None:
        super().__init__(options, environment, display.step)
        self._display = display
        self._guests = threading.Semaphore(GUEST_LIMIT)

    def harvest(self, machine: MachineDefinition) -> MachineReport:
        """Harvest one machine to its end."""
        limited = DRIVERS[machine.driver].capabilities.apple_limit
        with self._guests if limited else contextlib.nullcontext():
            report = self.run(machine.name)
        if report.seconds:
            self._display.finish(report)
        return report


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
    cases = [
        Case(
            r.machine,
            r.seconds,
            kind="" if not r.code else "failure" if r.code == 1 else "error",
            type=r.outcome,
            message=r.error or r.outcome,
            text="\n".join([*((r.result or {}).get("problems") or []), r.hint]),
        )
        for r in reports
    ]
    junit.write_junit("harvest", cases, file)
