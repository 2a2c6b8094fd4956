"""How `symcache sync` harvests a build: by a process of its own, from a machine or from firmware that is downloaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from symcache.cli.common import console, plain
from symcache.cli.harvest_process import HarvestProcesses
from symcache.cli.progress import byte_progress
from symcache.errors import SymcacheError
from symcache_provisioning import Candidate, HarvestOutcome, PublishedBuild, download_firmware

__all__ = ["BuildHarvester"]

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class BuildHarvester:
    """Harvests a candidate by a process of its own; a firmware is downloaded before, and removed after."""

    options: list[str]
    environment: dict[str, str]
    folder: Path

    def __call__(self, build: PublishedBuild, candidate: Candidate, lost: threading.Event) -> HarvestOutcome:
        """Return what came of it; the harvest ends early once `lost` is set."""
        if candidate.firmware is None:
            return self._harvest(candidate.source, candidate.source, lost)
        try:
            with byte_progress() as bar:
                task = bar.add_task(f"downloading {plain(build.build)}", total=candidate.firmware.size)
                console.print(f"{plain(build.build)}: downloading {decimal(candidate.firmware.size)}")

                def advance(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)
                    if lost.is_set():
                        raise _LostError("another runner has taken the build over")

                path = download_firmware(build.build, candidate.firmware, self.folder, advance)
        except _LostError as error:
            return HarvestOutcome("interrupted", str(error))
        except SymcacheError as error:
            return HarvestOutcome("failed", str(error), error.hint)
        try:
            return self._harvest(str(path), build.build, lost)
        finally:
            path.unlink(missing_ok=True)

    def _harvest(self, source: str, name: str, lost: threading.Event) -> HarvestOutcome:
        processes = HarvestProcesses(self.options, self.environment, _step)
        ended = threading.Event()
        watching = threading.Thread(target=_stop_when, args=(lost, ended, processes.stop), daemon=True)
        watching.start()
        try:
            report = processes.run(source, name)
        except BaseException:
            processes.stop()
            raise
        finally:
            ended.set()
            watching.join()
        problems = (report.result or {}).get("problems") or []
        error = report.error or ("; ".join(map(str, problems[:3])) if report.code else "")
        return HarvestOutcome(report.outcome, error, report.hint, report.result)


class _LostError(Exception):
    """The lease is another runner's."""


def _stop_when(lost: threading.Event, ended: threading.Event, stop: Callable[[], None]) -> None:
    while not ended.wait(_POLL_SECONDS):
        if lost.is_set():
            stop()
            return


def _step(name: str, title: str) -> None:
    console.print(f"{plain(name)}: {plain(title)}", soft_wrap=True)
