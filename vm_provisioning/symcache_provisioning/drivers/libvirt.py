"""libvirt by `virsh`: x86_64 guests of QEMU/KVM on Linux.

A clone has overlays over the disks of the image, made by qemu-img; virt-clone makes its definition (MAC, UUID, NVRAM).
No guest agent exists for macOS, so addresses come from the leases of libvirt's own network, or from the ARP table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated
from xml.etree.ElementTree import ParseError

import defusedxml
from defusedxml.ElementTree import fromstring
from pydantic import Field

from symcache.errors import StorageError, UsageError
from symcache_provisioning.drivers.programs import Output, Program, ProgramError
from symcache_provisioning.drivers.protocol import (
    RUN_PREFIX,
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
    first_address,
)
from symcache_provisioning.drivers.qemu import QEMU_IMG

__all__ = ["Libvirt"]

_VIRSH = Program("virsh", hint="install it, e.g. apt-get install libvirt-clients")
_VIRT_CLONE = Program("virt-clone", hint="install it, e.g. apt-get install virtinst")
_STATES = {
    "running": MachineState.RUNNING,
    "idle": MachineState.RUNNING,
    "no state": MachineState.RUNNING,
    "paused": MachineState.SUSPENDED,
    "pmsuspended": MachineState.SUSPENDED,
    "shut off": MachineState.STOPPED,
    "crashed": MachineState.STOPPED,
}
_ROW = re.compile(r" *(?:[0-9]+|-) +(\S.*?) {2,}(\S.*?) *")
_MISSING = re.compile("failed to get domain|domain not found", re.IGNORECASE)
_CLONE_SECONDS = 600


class LibvirtOptions(DriverOptions):
    """`uri`: which libvirt; only this machine's, since disks are made here."""

    uri: Annotated[str, Field(pattern=r"^(qemu:///(system|session)|test:///[A-Za-z0-9._/-]+)$")] = "qemu:///system"


def _missing(output: Output) -> bool:
    return _MISSING.search(output.stderr) is not None


class Libvirt(Driver[LibvirtOptions]):
    """See the docstring of the module."""

    name = "libvirt"
    capabilities = Capabilities()
    options_type = LibvirtOptions
    programs = (_VIRSH, _VIRT_CLONE, QEMU_IMG)

    def _virsh(
        self,
        verb: str,
        machine: str,
        *arguments: str,
        timeout: float = 60,
        accept: Callable[[Output], bool] | None = None,
    ) -> Output:
        given = [machine, *arguments] if machine else arguments
        before = ["-q", "-c", self.options.uri]
        return _VIRSH.run(verb, *given, machine=machine, before=before, timeout=timeout, accept=accept)

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        rows = self._virsh("list", "", "--all").stdout.splitlines()
        return [
            ListedMachine(match[1], _STATES.get(match[2], MachineState.CHANGING))
            for row in rows
            if (match := _ROW.fullmatch(row))
        ]

    def state(self, machine: str) -> MachineState:
        """See Driver."""
        output = self._virsh("domstate", machine, accept=_missing)
        if output.status != 0:
            return MachineState.MISSING
        return _STATES.get(output.stdout.strip(), MachineState.CHANGING)

    def _disks(self, machine: str) -> Iterator[tuple[str, Path]]:
        """Yield target and file of each disk that a clone needs a copy of."""
        output = self._virsh("dumpxml", machine, "--inactive")
        try:
            disks = fromstring(output.stdout).findall("./devices/disk")
        except (ParseError, defusedxml.DefusedXmlException) as error:
            raise ProgramError(f"virsh dumpxml {machine} printed no XML: {error}") from error
        for disk in disks:
            source, target, kind = disk.find("source"), disk.find("target"), disk.find("driver")
            if disk.get("device", "disk") != "disk" or disk.find("readonly") is not None or source is None:
                continue
            if disk.find("shareable") is not None:
                continue
            file, name = source.get("file"), target.get("dev", "") if target is not None else ""
            form = kind.get("type", "raw") if kind is not None else "raw"
            # virt-clone keeps the format in the definition, so an overlay of a raw disk would be read as raw.
            if not file or not re.fullmatch(r"[a-z]{1,8}", name) or form != "qcow2":
                raise UsageError(
                    f"{machine}: its disk {name or '?'} is no qcow2 file, and cannot be laid over",
                    hint="convert it: qemu-img convert -O qcow2; or look after clones yourself, and use driver static",
                )
            yield name, Path(file)

    def _disk_list(self, machine: str) -> Path:
        return self.folder / f"{machine}.disks"

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        state = self.state(image)
        if state is not MachineState.STOPPED:
            raise UsageError(
                f"{image}: is {state}, and only a machine that is shut off can be cloned",
                hint=f"virsh -c {self.options.uri} list --all",
            )
        disks = [(base, base.parent / f"{machine}-{name}.qcow2") for name, base in self._disks(image)]
        self.folder.mkdir(parents=True, exist_ok=True)
        # Written first, so that the overlays can be removed whatever happens.
        self._disk_list(machine).write_text("".join(f"{overlay}\n" for _, overlay in disks))
        files = []
        for base, overlay in disks:
            QEMU_IMG.run("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(overlay), machine=machine)
            files += ["--file", str(overlay)]
        _VIRT_CLONE.run(
            "--original",
            image,
            *["--name", machine, *files, "--preserve-data"],
            machine=machine,
            before=["--connect", self.options.uri],
            timeout=_CLONE_SECONDS,
        )

    def start(self, machine: str, log: Path) -> None:
        """See Driver."""
        del log
        self._virsh("start", machine, timeout=180)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver."""
        failure: ProgramError | None = None
        succeeded = False
        for source in ("lease", "arp"):
            try:
                output = self._virsh("domifaddr", machine, "--source", source, timeout=30)
            except ProgramError as error:
                failure = failure or error
                continue
            succeeded = True
            if host := first_address(output.stdout):
                return Endpoint(host, 22)
        if failure is not None and not succeeded:
            raise failure
        return None

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        if self.state(machine) in {MachineState.MISSING, MachineState.STOPPED}:
            return
        try:
            self._virsh("shutdown", machine)
        except ProgramError:
            grace = 0  # the guest cannot be shut down
        if self.wait_for(machine, {MachineState.STOPPED, MachineState.MISSING}, grace) is not MachineState.STOPPED:
            self._virsh("destroy", machine, accept=lambda o: _missing(o) or "not running" in o.stderr)

    def destroy(self, machine: str) -> None:
        """See Driver."""
        if not machine.startswith(RUN_PREFIX):
            raise UsageError(f"{machine}: is an image, not a machine that symcache made")
        if self.state(machine) is not MachineState.MISSING:
            self._virsh("undefine", machine, "--nvram", "--snapshots-metadata", accept=_missing)
        disk_list = self._disk_list(machine)
        try:
            for line in disk_list.read_text().splitlines() if disk_list.exists() else ():
                if Path(line).name.startswith(machine):
                    Path(line).unlink(missing_ok=True)
            disk_list.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{error.filename}: cannot be removed: {error.strerror}", hint="remove it") from error
