"""tart: macOS guests on Apple silicon. https://github.com/cirruslabs/tart

Exit codes: 0 done; 2 no such machine, or not (or already) running; 1 anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from symcache.errors import UsageError
from symcache_provisioning.drivers.programs import Child, Output, Program, ProgramError
from symcache_provisioning.drivers.protocol import (
    Capabilities,
    Driver,
    DriverOptions,
    Endpoint,
    ListedMachine,
    MachineState,
    first_address,
)

__all__ = ["Tart"]

_TART = Program(
    "tart",
    "/opt/homebrew/bin/tart",
    "/usr/local/bin/tart",
    hint="install it on an Apple-silicon Mac, and add it to PATH",
)
_STATES = {
    "running": MachineState.RUNNING,
    "stopped": MachineState.STOPPED,
    "suspended": MachineState.SUSPENDED,
}
_PULL_SECONDS = 3 * 3600
_INSTALL_SECONDS = 2 * 3600
_PROVISIONING = "--provisioning-opts"
_LIMIT = re.compile("exceeds the system limit", re.IGNORECASE)


class TartOptions(DriverOptions):
    """`network`: `shared` (NAT), `softnet` (the guest reaches no other guest and not the host), `host`, or
    `bridged:INTERFACE`. `resolver`: how the guest's address is found; bridged guests need `arp` or `agent`.
    """

    network: Annotated[str, Field(pattern=r"^(shared|softnet|host|bridged:[A-Za-z0-9]{1,15})$")] = "shared"
    resolver: Literal["dhcp", "arp", "agent"] = "dhcp"
    cpu: Annotated[int, Field(ge=1, le=256)] | None = None
    memory: Annotated[int, Field(ge=1024, le=1 << 20)] | None = None
    """MB."""
    disk: Annotated[int, Field(ge=20, le=10_000)] | None = None
    """GB, of a machine that is created."""


def _missing(output: Output) -> bool:
    return output.status == 2


class Tart(Driver[TartOptions]):
    """See the docstring of the module."""

    name = "tart"
    capabilities = Capabilities(
        child_process=True, out_of_band=True, create_from_ipsw=True, first_start=True, apple_limit=True
    )
    options_type = TartOptions
    programs = (_TART,)

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        rows = _TART.json("list", "--source", "local", "--format", "json")
        try:
            if not isinstance(rows, list):
                raise TypeError(type(rows).__name__)
            return [ListedMachine(str(m["Name"]), _STATES.get(str(m["State"]), MachineState.CHANGING)) for m in rows]
        except (TypeError, KeyError) as error:
            raise ProgramError(
                f"tart list printed no list of machines: {error!r}", hint="is tart of 2024 or later installed?"
            ) from error

    def running_guests(self) -> Sequence[str]:
        """See Driver. Linux guests do not count."""
        running = [m.name for m in self.list() if m.state is MachineState.RUNNING]
        return [name for name in running if self._system(name) != "linux"]

    def _system(self, machine: str) -> str:
        output = _TART.run("get", machine, "--format", "json", machine=machine, accept=_missing)
        try:
            return str(json.loads(output.stdout)["OS"]).lower()
        except (ValueError, TypeError, KeyError):
            return ""

    def clone(self, image: str, machine: str) -> None:
        """See Driver. An image of a registry is downloaded first: some 25 GB."""
        _TART.run("clone", image, machine, machine=machine, timeout=_PULL_SECONDS)
        sizes = {"--cpu": self.options.cpu, "--memory": self.options.memory}
        given = [text for option, value in sizes.items() if value for text in (option, str(value))]
        if given:
            _TART.run("set", machine, *given, machine=machine)

    def start(self, machine: str, log: Path) -> Child:
        """See Driver."""
        return self._start(machine, log)

    def _start(self, machine: str, log: Path, *options: str) -> Child:
        kind, _, interface = self.options.network.partition(":")
        network = {
            "shared": [],
            "softnet": ["--net-softnet"],
            "host": ["--net-host"],
            "bridged": [f"--net-bridged={interface}"],
        }
        return _TART.spawn("run", "--no-graphics", *network[kind], *options, machine, log=log)

    def first_start(self, user: str, password: str, machine: str, log: Path) -> Child:
        """See Driver. The password is seen in the list of processes as long as the machine runs."""
        if _PROVISIONING not in _TART.run("run", "--help").stdout:
            raise UsageError(
                f"this version of tart has no `tart run {_PROVISIONING}`",
                hint="it needs tart built with Xcode 27, and macOS 27 on this Mac and in the guest",
            )
        if "," in user + password:
            raise UsageError(f"tart takes no comma in what {_PROVISIONING} names", hint="choose another password")
        # The keys of VZMacGuestProvisioningOptions, as tart splits them: at each comma, then at the first =.
        values = {
            "fullName": user,
            "username": user,
            "password": password,
            "logsInAutomatically": "true",
            "enablesRemoteLogin": "true",
        }
        return self._start(machine, log, _PROVISIONING, ",".join(f"{key}={value}" for key, value in values.items()))

    def address(self, machine: str) -> Endpoint | None:
        """See Driver."""
        # 1: no address yet. 2: not running yet, as `tart run` was just started.
        output = _TART.run(
            "ip",
            "--resolver",
            self.options.resolver,
            machine,
            machine=machine,
            timeout=30,
            accept=lambda o: o.status in {1, 2},
        )
        host = first_address(output.stdout, own=True) if output.status == 0 else None
        return Endpoint(host, 22) if host else None

    def _explain(self, output: str) -> str:
        if _LIMIT.search(output):
            return "macOS lets two guests run at a time: stop one (symcache vm list)"
        return ""

    def exec_out_of_band(self, machine: str, argv: Sequence[str], timeout: float = 30) -> str:
        """See Driver. Needs the guest agent, which the images of Cirrus Labs have."""
        return _TART.run("exec", machine, *argv, machine=machine, timeout=timeout).stdout

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        seconds = str(max(1, round(grace)))
        _TART.run("stop", "--timeout", seconds, machine, machine=machine, timeout=grace + 30, accept=_missing)

    def destroy(self, machine: str) -> None:
        """See Driver."""
        _TART.run("delete", machine, machine=machine, timeout=120, accept=_missing)

    def create(self, machine: str, ipsw: str) -> str:
        """See Driver."""
        disk = ["--disk-size", str(self.options.disk)] if self.options.disk else []
        _TART.run("create", "--from-ipsw", ipsw, *disk, machine, machine=machine, timeout=_INSTALL_SECONDS)
        return (
            f"run `tart run {machine}`, go through the Setup Assistant and make the user, and switch on Remote Login"
            " (System Settings, General, Sharing)"
        )
