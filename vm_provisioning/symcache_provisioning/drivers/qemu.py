"""QEMU by itself: a process, a disk that is an overlay over the image, and SSH forwarded to this machine's loopback.

The user gives the arguments, since no two macOS machines under QEMU are set up alike; the overlay, the network, the
monitor and `-display none` are added. The image is a disk image.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from symcache.errors import StorageError, UsageError
from symcache_provisioning.drivers.programs import Child, Program
from symcache_provisioning.drivers.protocol import (
    RUN_PREFIX,
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
)
from symcache_provisioning.drivers.qmp import Qmp, QmpError

__all__ = ["QEMU", "QEMU_IMG"]

QEMU_IMG = Program("qemu-img", hint="install it, e.g. apt-get install qemu-utils, or brew install qemu")
_QEMU = Program("qemu-system-x86_64", hint="install it, e.g. apt-get install qemu-system-x86, or brew install qemu")
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\] +[0-9]+ +127\.0\.0\.1 +([0-9]{1,5}) +[0-9.]+ +22 ")
_SOCKET, _DISK = "qmp.sock", "disk.qcow2"
_COPY_LIMIT = 256 << 20

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]


class QEMUOptions(DriverOptions):
    """`arguments`: of QEMU, in which `{disk}` stands for the run's own disk, and `{KEY}` for its own copy of the file
    that `copies` names, e.g. NVRAM. `nic`: the network card, e.g. `vmxnet3` for High Sierra; none adds no card.
    """

    arguments: Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]
    copies: Mapping[Key, Path] = {}
    disk_format: Literal["qcow2", "raw"] = "qcow2"
    """Of the image. Never guessed: what a guest wrote to a raw disk may look like another format."""
    nic: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] = "virtio-net-pci"

    @field_validator("arguments")
    @classmethod
    def _uses_the_disk(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not any("{disk}" in argument for argument in value):
            raise ValueError("must use {disk} somewhere, e.g. -drive file={disk},format=qcow2,if=virtio")
        return value


class QEMU(Driver[QEMUOptions]):
    """See the docstring of the module."""

    name = "qemu"
    capabilities = Capabilities(child_process=True)
    options_type = QEMUOptions
    programs = (_QEMU, QEMU_IMG)

    def _home(self, machine: str) -> Path:
        if _is_clone(machine):
            return self.folder / machine
        return self.folder / f"image-{hashlib.sha256(machine.encode()).hexdigest()[:16]}"

    def _disk(self, machine: str) -> Path:
        return self._home(machine) / _DISK if _is_clone(machine) else Path(machine).expanduser().absolute()

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        names = sorted(p.name for p in self.folder.glob(f"{RUN_PREFIX}*") if p.is_dir())
        return [ListedMachine(name, self.state(name)) for name in names]

    def state(self, machine: str) -> MachineState:
        """See Driver."""
        if not (self._home(machine) if _is_clone(machine) else self._disk(machine)).exists():
            return MachineState.MISSING
        try:
            with Qmp(self._home(machine) / _SOCKET) as monitor:
                response = monitor.execute("query-status")
        except QmpError:
            return MachineState.STOPPED
        status = response.get("status") if isinstance(response, dict) else None
        return MachineState.SUSPENDED if status in {"paused", "suspended"} else MachineState.RUNNING

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        base, home = Path(image).expanduser().absolute(), self._home(machine)
        if not base.is_file():
            raise UsageError(f"{image}: no such disk image", hint="check `image` in the inventory")
        home.mkdir(parents=True, mode=0o700)
        make = ["-q", "-f", "qcow2", "-F", self.options.disk_format, "-b", str(base), str(self._disk(machine))]
        QEMU_IMG.run("create", *make, machine=machine)
        for key, file in self.options.copies.items():
            source = file.expanduser()
            try:
                if source.stat().st_size > _COPY_LIMIT:
                    raise UsageError(f"{source}: too large to be copied for each run", hint="`copies` is for NVRAM")
                shutil.copyfile(source, home / f"copy-{key}")
            except OSError as error:
                raise StorageError(f"{source}: cannot be copied: {error.strerror}", hint="check `copies`") from error

    def start(self, machine: str, log: Path) -> Child:
        """See Driver. The port on loopback is QEMU's own choice, so that none is taken by another in between."""
        home = self._home(machine)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / _SOCKET).unlink(missing_ok=True)
        files = {"disk": self._disk(machine)} | {
            key: home / f"copy-{key}" if _is_clone(machine) else file.expanduser()
            for key, file in self.options.copies.items()
        }
        arguments = list(self.options.arguments)
        for key, file in files.items():
            text = str(file).replace(",", ",,")  # as option lists of QEMU want it
            arguments = [a.replace(f"{{{key}}}", text) for a in arguments]
        network = ["-netdev", "user,id=symcache,hostfwd=tcp:127.0.0.1:0-:22"]
        card = [] if self.options.nic == "none" else ["-device", f"{self.options.nic},netdev=symcache"]
        monitor = ["-qmp", f"unix:{_SOCKET},server=on,wait=off", "-display", "none"]
        return _QEMU.spawn(*arguments, *network, *card, *monitor, log=log, folder=home)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver."""
        try:
            with Qmp(self._home(machine) / _SOCKET) as monitor:
                response = monitor.execute("human-monitor-command", **{"command-line": "info usernet"})
        except QmpError:
            return None  # not listening yet; `check_child` tells whether it runs
        match = _FORWARD.search(str(response))
        return Endpoint("127.0.0.1", int(match[1])) if match else None

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        socket = self._home(machine) / _SOCKET
        for command, seconds in (("system_powerdown", grace), ("quit", 10.0)):
            deadline = time.monotonic() + seconds
            try:
                with Qmp(socket) as monitor:
                    monitor.execute(command)
            except QmpError:
                return  # it has ended
            while time.monotonic() < deadline:
                if self.state(machine) in {MachineState.STOPPED, MachineState.MISSING}:
                    return
                time.sleep(0.1)

    def destroy(self, machine: str) -> None:
        """See Driver."""
        if not _is_clone(machine):
            raise UsageError(f"{machine}: is an image, not a machine that symcache made")
        try:
            shutil.rmtree(self._home(machine))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"{self._home(machine)}: cannot be removed: {error.strerror}") from error


def _is_clone(machine: str) -> bool:
    """Return whether it is a machine that symcache made; an image is the path of a disk."""
    return machine.startswith(RUN_PREFIX) and "/" not in machine
