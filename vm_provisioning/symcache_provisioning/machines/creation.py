"""Installing macOS as the image of a machine, and having it set itself up where the driver can tell it how."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

from symcache.errors import SymcacheError, UsageError
from symcache_provisioning.drivers import DRIVERS, MachineState
from symcache_provisioning.interrupts import Interrupts, defer_interrupts
from symcache_provisioning.machines.life_cycle import Machine
from symcache_provisioning.machines.runs import Run

__all__ = ["Created", "create_machine"]


class Created(NamedTuple):
    """The result: either `run`, which is up and lets the user in, or what is `left` to do by hand, and why."""

    run: Run | None
    left: str
    why: str


def create_machine(machine: Machine, ipsw: str) -> Created:
    """Install macOS from `ipsw`, a path or `latest`, as the image of a machine. If that fails, no VM is left.

    Raises UsageError, EnvironmentFailure; not for an image that cannot set itself up, which a person can do.
    """
    definition, driver, image = machine.definition, machine.driver, machine.definition.image
    if not driver.capabilities.create_from_ipsw:
        able = ", ".join(n for n, d in DRIVERS.items() if d.capabilities.create_from_ipsw)
        raise UsageError(
            f"{definition.name}: driver {driver.name} cannot install macOS from an IPSW",
            hint=f"drivers that can: {able}",
        )
    if image is None or "/" in image:
        raise UsageError(f"{definition.name}: its image {image} is of a registry", hint="name a new machine as `image`")
    if driver.state(image) is not MachineState.MISSING:
        raise UsageError(f"{image}: {driver.name} has a machine of that name already", hint="remove or rename it")
    password = definition.login.password() if driver.capabilities.first_start else None
    with Interrupts():
        try:
            left = driver.create(image, ipsw)
        except BaseException:
            with defer_interrupts(forget=True), contextlib.suppress(SymcacheError):
                driver.destroy(image)  # nothing of that name was there before
            raise
    if not driver.capabilities.first_start:
        return Created(None, left, "")
    if password is None:
        return Created(None, left, "the inventory names no password_env with the password that its user is to get")
    try:
        run = machine.up(clone=False, start=functools.partial(driver.first_start, definition.user, password))
    except SymcacheError as error:
        return Created(None, left, f"{error} ({error.hint})" if error.hint else str(error))
    return Created(run, "", "")
