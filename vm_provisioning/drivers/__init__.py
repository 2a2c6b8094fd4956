"""Drivers of virtual machines, one module each, behind one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vm_provisioning.drivers.anka import Anka
from vm_provisioning.drivers.libvirt import Libvirt
from vm_provisioning.drivers.parallels import Parallels
from vm_provisioning.drivers.programs import Child, ProgramError, process_start
from vm_provisioning.drivers.protocol import (
    RUN_PREFIX,
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
)
from vm_provisioning.drivers.qemu import QEMU
from vm_provisioning.drivers.static import Static
from vm_provisioning.drivers.tart import Tart
from vm_provisioning.drivers.utm import UTM
from vm_provisioning.drivers.vmware import VMware

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
