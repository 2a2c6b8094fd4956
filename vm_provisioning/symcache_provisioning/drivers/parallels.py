"""Parallels Desktop by `prlctl`, which its Pro, Business and Enterprise editions have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from symcache_provisioning.drivers.programs import Output, Program, ProgramError
from symcache_provisioning.drivers.protocol import (
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
    first_address,
)

__all__ = ["Parallels"]

_PRLCTL = Program(
    "prlctl", "/usr/local/bin/prlctl", hint="install Parallels Desktop Pro: the Standard edition has no prlctl"
)
_STATES = {"running": MachineState.RUNNING, "stopped": MachineState.STOPPED, "suspended": MachineState.SUSPENDED}
_CLONE_SECONDS = 3600
_LEASE = re.compile(r'^([0-9.]{7,15})="([0-9]{1,12}),[0-9]+,([0-9A-Fa-f]{12}),')
_MISSING = re.compile("could not be found|not registered|does not exist", re.IGNORECASE)


class ParallelsOptions(DriverOptions):
    """`clone`: `linked` shares the image's disk, `full` copies it, `auto` tries the first, then the second: not
    every version can link macOS machines on Apple silicon. `leases`: Parallels' file of DHCP leases.
    """

    clone: Literal["auto", "linked", "full"] = "auto"
    leases: Path = Path("/Library/Preferences/Parallels/parallels_dhcp_leases")


def _missing(output: Output) -> bool:
    return _MISSING.search(output.stderr + output.stdout) is not None


def _field(machine: Mapping[str, Any], *names: str) -> str:
    # `list -j` writes lower case, `list -i -j` capitals.
    return next((str(value) for key, value in machine.items() if key.lower() in names), "")


class Parallels(Driver[ParallelsOptions]):
    """See the docstring of the module."""

    name = "parallels"
    capabilities = Capabilities(out_of_band=True, apple_limit=True)
    options_type = ParallelsOptions
    programs = (_PRLCTL,)

    def _machines(self) -> Sequence[Mapping[str, Any]]:
        machines = _PRLCTL.json("list", "-a", "-i", "-j")
        if not isinstance(machines, list) or not all(isinstance(m, dict) for m in machines):
            raise ProgramError("prlctl list printed no list of machines", hint="run it by hand: prlctl list -a -i -j")
        return machines

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        return [
            ListedMachine(_field(m, "name"), _STATES.get(_field(m, "status", "state").lower(), MachineState.CHANGING))
            for m in self._machines()
        ]

    def running_guests(self) -> Sequence[str]:
        """See Driver."""
        return [
            _field(m, "name")
            for m in self._machines()
            if _field(m, "os").lower().startswith("mac") and _field(m, "status", "state").lower() == "running"
        ]

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        argv = [image, "--name", machine]
        if self.options.clone != "full":
            try:
                _PRLCTL.run("clone", *argv, "--linked", machine=machine, timeout=_CLONE_SECONDS)
                return
            except ProgramError as error:
                if self.options.clone == "linked" or error.status is None or _MISSING.search(error.output):
                    raise
                self.destroy(machine)
        _PRLCTL.run("clone", *argv, machine=machine, timeout=_CLONE_SECONDS)

    def start(self, machine: str, log: Path) -> None:
        """See Driver."""
        del log
        _PRLCTL.run("start", machine, machine=machine, timeout=180)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver. Read from Parallels Tools, or without them from the DHCP leases, by MAC."""
        output = _PRLCTL.run("list", machine, "--full", "--no-header", "-o", "ip_configured", machine=machine)
        host = first_address(output.stdout) or self._leased(machine)
        return Endpoint(host, 22) if host else None

    def _leased(self, machine: str) -> str | None:
        macs = {
            mac
            for m in self._machines()
            if _field(m, "name") == machine
            for mac in _macs(m.get("Hardware") or m.get("hardware"))
        }
        try:
            lines = self.options.leases.read_text(errors="replace").splitlines()
        except OSError:
            return None
        leases = [match.groups() for line in lines if (match := _LEASE.match(line.strip()))]
        mine = [(int(expiry), ip) for ip, expiry, mac in leases if mac.upper() in macs]
        return first_address(max(mine)[1]) if mine else None

    def exec_out_of_band(self, machine: str, argv: Sequence[str], timeout: float = 30) -> str:
        """See Driver. Needs Parallels Tools in the guest; runs as root."""
        return _PRLCTL.run("exec", machine, *argv, machine=machine, timeout=timeout).stdout

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        self._stop_or_kill(
            machine,
            lambda: _PRLCTL.run("stop", machine, machine=machine, timeout=max(1, grace), accept=_missing),
            lambda: _PRLCTL.run("stop", machine, "--kill", machine=machine, timeout=60),
        )

    def destroy(self, machine: str) -> None:
        """See Driver."""
        _PRLCTL.run("delete", machine, machine=machine, timeout=300, accept=_missing)


def _macs(hardware: object) -> Iterator[str]:
    for device in hardware.values() if isinstance(hardware, dict) else ():
        if isinstance(device, dict) and isinstance(device.get("mac"), str):
            yield device["mac"].replace(":", "").upper()
