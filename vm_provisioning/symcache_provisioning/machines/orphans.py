"""Machines that symcache made and that nobody looks after any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from symcache.errors import SymcacheError
from symcache_provisioning.drivers import RUN_PREFIX, Driver
from symcache_provisioning.machines.runs import Run, RunStore

__all__ = ["Stray", "strays"]


@dataclass(frozen=True, slots=True)
class Stray:
    """A machine that symcache made and lost. `run` is its record; without one, it may be another user's."""

    driver: str
    vm: str
    run: Run | None


def strays(store: RunStore, drivers: Iterable[Driver[Any]]) -> tuple[list[Stray], list[str]]:
    """Return the machines that nobody looks after, and what could not be asked."""
    runs, problems = store.runs(), []
    found = [Stray(r.definition.driver, r.vm, r) for r in runs if r.abandoned]
    known = {(r.definition.driver, r.vm) for r in runs}
    for driver in drivers:
        if not driver.capabilities.life_cycle:
            continue
        try:
            listed = driver.list()
        except SymcacheError as error:
            problems.append(str(error))
            continue
        found += [
            Stray(driver.name, m.name, None)
            for m in listed
            if m.name.startswith(RUN_PREFIX) and (driver.name, m.name) not in known
        ]
    return found, problems + store.problems
