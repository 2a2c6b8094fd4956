"""VMware Fusion by `vmrun`: macOS guests on Intel Macs. Machines are .vmx files.

It prints errors on standard output, with exit code 255. Its `-wait` may hang for ever, so it is not used. Programs in
the guest are not run, as the guest's password on the command line could be read by every user of the host.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from symcache.errors import StorageError
from symcache_provisioning.drivers.programs import Program, ProgramError
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

__all__ = ["VMware"]

_VMRUN = Program(
    "vmrun", "/Applications/VMware Fusion.app/Contents/Library/vmrun", hint="install VMware Fusion on an Intel Mac"
)
_TYPE = ("-T", "fusion")
_CLONE_SECONDS = 3600


class VMwareOptions(DriverOptions):
    """`folder`: where clones are made. `snapshot`: of the image, to clone from. `clone`: `linked` or `full`."""

    folder: Path = Path("~/Virtual Machines.localized")
    snapshot: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9 ._-]{0,79}$")] | None = None
    clone: Literal["linked", "full"] = "linked"


class VMware(Driver[VMwareOptions]):
    """See the docstring of the module."""

    name = "vmware"
    capabilities = Capabilities(apple_limit=True)
    options_type = VMwareOptions
    programs = (_VMRUN,)

    def vmx(self, machine: str) -> Path:
        """Return the file of a machine: of a clone by its name, of anything else the path itself."""
        if not machine.startswith(RUN_PREFIX):
            return Path(machine).expanduser()
        return self.options.folder.expanduser() / f"{machine}.vmwarevm" / f"{machine}.vmx"

    def _run(self, verb: str, machine: str, *arguments: str, timeout: float = 60) -> str:
        output = _VMRUN.run(verb, str(self.vmx(machine)), *arguments, machine=machine, before=_TYPE, timeout=timeout)
        if output.stdout.startswith("Error:"):
            raise _VMRUN.failure(verb, machine, output)
        return output.stdout

    def _running(self) -> set[Path]:
        lines = _VMRUN.run("list", before=_TYPE).stdout.splitlines()
        if not lines or not lines[0].startswith("Total running VMs:"):
            raise ProgramError("vmrun list printed no list of machines", hint="run it by hand: vmrun -T fusion list")
        return {Path(line).resolve() for line in lines[1:] if line.strip()}

    def list(self) -> Sequence[ListedMachine]:
        """See Driver. Machines outside the folder of clones are listed only while they run."""
        running = self._running()
        clones = {p.stem: p for p in self.options.folder.expanduser().glob(f"{RUN_PREFIX}*.vmwarevm")}
        vmx = {name: self.vmx(name).resolve() for name in clones}
        machines = [
            ListedMachine(name, MachineState.RUNNING if path in running else MachineState.STOPPED)
            for name, path in vmx.items()
        ]
        return machines + [ListedMachine(str(p), MachineState.RUNNING) for p in sorted(running - set(vmx.values()))]

    def state(self, machine: str) -> MachineState:
        """See Driver."""
        vmx = self.vmx(machine)
        if not vmx.exists() and not vmx.parent.exists():
            return MachineState.MISSING
        return MachineState.RUNNING if vmx.resolve() in self._running() else MachineState.STOPPED

    def is_local(self, image: str) -> bool:
        """See Driver."""
        return self.vmx(image).is_file()

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        self.vmx(machine).parent.parent.mkdir(parents=True, exist_ok=True)
        snapshot = [f"-snapshot={self.options.snapshot}"] if self.options.snapshot else []
        arguments = [str(self.vmx(machine)), self.options.clone, *snapshot, f"-cloneName={machine}"]
        self._run("clone", image, *arguments, timeout=_CLONE_SECONDS)

    def start(self, machine: str, log: Path) -> None:
        """See Driver."""
        del log
        self._run("start", machine, "nogui", timeout=180)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver. Needs VMware Tools in the guest."""
        try:
            host = first_address(self._run("getGuestIPAddress", machine, timeout=30))
        except ProgramError as error:
            # The tools are not running yet.
            if "tools" in error.output.lower() or "unable to get the ip address" in error.output.lower():
                return None
            raise
        return Endpoint(host, 22) if host else None  # "unknown" before it has one

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        if self.state(machine) is MachineState.RUNNING:
            self._stop_or_kill(
                machine,
                lambda: self._run("stop", machine, "soft", timeout=max(1, grace)),
                lambda: self._run("stop", machine, "hard", timeout=60),
            )

    def destroy(self, machine: str) -> None:
        """See Driver."""
        vmx = self.vmx(machine)
        if vmx.exists():
            self._run("deleteVM", machine, timeout=120)
        # An interrupted clone has left a folder, but no machine that vmrun knows.
        if machine.startswith(RUN_PREFIX) and vmx.parent.exists():
            try:
                shutil.rmtree(vmx.parent)
            except OSError as error:
                raise StorageError(f"{vmx.parent}: cannot be removed: {error.strerror}") from error
