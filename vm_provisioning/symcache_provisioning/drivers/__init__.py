"""Drivers of virtual machines, one module each, behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symcache_provisioning.drivers.anka import Anka
from symcache_provisioning.drivers.libvirt import Libvirt
from symcache_provisioning.drivers.parallels import Parallels
from symcache_provisioning.drivers.programs import Child, ProgramError, process_start
from symcache_provisioning.drivers.protocol import (
    RUN_PREFIX,
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
)
from symcache_provisioning.drivers.qemu import QEMU
from symcache_provisioning.drivers.static import Static
from symcache_provisioning.drivers.tart import Tart
from symcache_provisioning.drivers.utm import UTM
from symcache_provisioning.drivers.vmware import VMware

__all__ = [
    "DRIVERS",
    "RUN_PREFIX",
    "Capabilities",
    "Child",
    "Driver",
    "DriverOptions",
    "Endpoint",
    "ListedMachine",
    "MachineState",
    "ProgramError",
    "make_driver",
    "process_start",
]

DRIVERS: dict[str, type[Driver[Any]]] = {
    driver.name: driver for driver in (Tart, Anka, Parallels, VMware, UTM, Libvirt, QEMU, Static)
}
"""Every driver by the name that the inventory calls it."""


def make_driver(name: str, options: DriverOptions, folder: Path) -> Driver[Any]:
    """Return a driver; `folder` is where it may keep files of its own."""
    return DRIVERS[name](options, folder / name)
