"""Orphaned VMs: those that symcache made and that no process manages any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from symcache.errors import SymcacheError
from symcache_provisioning.drivers import RUN_PREFIX, Driver
from symcache_provisioning.machines.runs import Run, RunStore

__all__ = ["OrphanedVM", "find_orphans"]


@dataclass(frozen=True, slots=True)
class OrphanedVM:
    """A VM that symcache made and lost. `run` is its record; a VM without one may be another user's."""

    driver: str
    vm: str
    run: Run | None


def find_orphans(store: RunStore, drivers: Iterable[Driver[Any]]) -> tuple[list[OrphanedVM], list[str]]:
    """Return the orphaned VMs, and the errors of drivers that could not list theirs and of unreadable records."""
    runs, problems = store.runs(), []
    orphans = [OrphanedVM(r.definition.driver, r.vm, r) for r in runs if r.abandoned]
    known = {(r.definition.driver, r.vm) for r in runs}
    for driver in drivers:
        if not driver.capabilities.life_cycle:
            continue
        try:
            machines = driver.list()
        except SymcacheError as error:
            problems.append(str(error))
            continue
        orphans += [
            OrphanedVM(driver.name, m.name, None)
            for m in machines
            if m.name.startswith(RUN_PREFIX) and (driver.name, m.name) not in known
        ]
    return orphans, problems + store.problems
