"""The interface of drivers of virtual machines."""

from __future__ import annotations

import ipaddress
import re
import time
from abc import ABC
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, NoReturn, TypeVar

import tenacity
from pydantic import BaseModel, ConfigDict

from symcache.errors import EnvironmentFailure, RemoteError, UsageError
from symcache_provisioning.drivers.programs import Child, Program, ProgramError

__all__ = [
    "RUN_PREFIX",
    "Capabilities",
    "Driver",
    "DriverOptions",
    "Endpoint",
    "ListedMachine",
    "MachineState",
    "first_address",
]

RUN_PREFIX = "symcache-"
"""Names of machines that symcache makes begin with this."""
_POLL = 1.0


class MachineState(StrEnum):
    """State of a machine."""

    MISSING = "missing"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    RUNNING = "running"
    CHANGING = "changing"
    """Between two of the others."""

    @property
    def is_up(self) -> bool:
        """Whether it runs, is starting or stopping."""
        return self in {MachineState.RUNNING, MachineState.CHANGING}


class Endpoint(NamedTuple):
    """Address of a machine's SSH server."""

    host: str
    port: int


class ListedMachine(NamedTuple):
    """A machine that a driver lists."""

    name: str
    state: MachineState


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do."""

    life_cycle: bool = True
    """It can clone, start, stop and destroy."""
    child_process: bool = False
    """`start` starts a process that runs as long as the machine."""
    out_of_band: bool = False
    """It can run programs in the guest without the network."""
    create_from_ipsw: bool = False
    first_start: bool = False
    """Some versions of it can have a fresh guest set itself up."""
    apple_limit: bool = False
    """Its macOS guests count towards the two that may run on a Mac at a time."""


class DriverOptions(BaseModel):
    """Options of one driver, in the inventory's `[machines.NAME.options]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=DriverOptions)


class Driver(ABC, Generic[Options]):
    """Driver of one kind of virtual machine. Machines have the names that its programs use.

    Methods raise EnvironmentFailure if a program fails, hangs or prints something unexpected, UsageError if the driver
    cannot do that. `folder` is for the driver's own files.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options_type: ClassVar[type[DriverOptions]] = DriverOptions
    programs: ClassVar[tuple[Program, ...]] = ()

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder

    def state(self, machine: str) -> MachineState:
        """Return the state of a machine; MISSING if it does not exist."""
        return next((m.state for m in self.list() if m.name == machine), MachineState.MISSING)

    def list(self) -> Sequence[ListedMachine]:
        """Return all machines, including orphaned ones that symcache made."""
        self._cannot("list machines")

    def running_guests(self) -> Sequence[str]:
        """Return the running machines that are macOS guests, as far as is known."""
        return ()

    def clone(self, image: str, machine: str) -> None:
        """Clone `image` as `machine`. A failed or interrupted clone may have to be destroyed."""
        self._cannot("clone")

    def start(self, machine: str, log: Path) -> Child | None:
        """Start it, without waiting for it. Return the process that runs as long as it, if there is one."""
        self._cannot("start machines")

    def address(self, machine: str) -> Endpoint | None:
        """Return the address of its SSH server, or None if it is not known yet."""
        self._cannot("tell addresses")

    def endpoint(self, machine: str, timeout: float, child: Child | None = None) -> Endpoint:
        """Wait for an address, at most `timeout` seconds, and as long as `child` runs.

        Raises RemoteError when there is none in time, EnvironmentFailure with the last output of a child that ended.
        """

        def poll() -> Endpoint | None:
            endpoint = self.address(machine)
            if endpoint is None:
                self.check_child(machine, child)
            return endpoint

        try:
            endpoint = tenacity.Retrying(
                stop=tenacity.stop_after_delay(timeout),
                wait=tenacity.wait_fixed(_POLL),
                retry=tenacity.retry_if_result(lambda endpoint: endpoint is None),
            )(poll)
        except tenacity.RetryError as error:
            raise RemoteError(
                f"{machine} got no network address within {timeout:g} s",
                hint=f"see with {self.name} whether it starts at all; boot_timeout in the inventory is the limit",
            ) from error
        assert endpoint is not None  # noqa: S101 - for the type checker: None is retried
        return endpoint

    def check_child(self, machine: str, child: Child | None) -> None:
        """Raise EnvironmentFailure if the process of a machine has ended."""
        if child is not None and not child.alive():
            raise EnvironmentFailure(
                f"{self.name}: {machine} ended while it started: {child.last_output() or 'it said nothing'}",
                hint=self._explain(child.last_output()) or f"its log is {child.log}",
            )

    def _explain(self, output: str) -> str:
        """Return a hint for the last output of a child, or an empty string."""
        del output
        return ""

    def exec_out_of_band(self, machine: str, argv: Sequence[str], timeout: float = 30) -> str:
        """Run a program in the guest without the network, and return what it prints."""
        self._cannot("run programs in the guest")

    def stop(self, machine: str, grace: float) -> None:
        """Stop it, by force after `grace` seconds. Do nothing if it is stopped or missing."""
        self._cannot("stop machines")

    def _stop_or_kill(self, machine: str, stop: Callable[[], object], kill: Callable[[], object]) -> None:
        """Stop a machine, and kill it if that fails and it is still up."""
        try:
            stop()
        except ProgramError:
            if self.state(machine).is_up:
                kill()

    def wait_for(self, machine: str, states: Set[MachineState], seconds: float) -> MachineState:
        """Wait for one of these states, at most `seconds`, and return the state then."""
        deadline = time.monotonic() + seconds
        while (state := self.state(machine)) not in states and time.monotonic() < deadline:
            time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))
        return state

    def destroy(self, machine: str) -> None:
        """Remove it and its disks. Do nothing if it is missing."""
        self._cannot("destroy machines")

    def create(self, machine: str, ipsw: str) -> str:
        """Install macOS from an IPSW, a path or `latest`, and return what is left to do by hand."""
        self._cannot("create machines from an IPSW")

    def first_start(self, user: str, password: str, machine: str, log: Path) -> Child | None:
        """Start a machine for the first time since its creation; its system makes the user and allows Remote Login.

        As `start`, and raises UsageError where this version of the driver's program cannot do that.
        """
        self._cannot("set up a fresh guest")

    def is_local(self, image: str) -> bool:
        """Return whether an image is a machine on this host, which can be started and changed itself."""
        return self.state(image) != MachineState.MISSING

    def _cannot(self, what: str) -> NoReturn:
        able = "tart and anka can" if "IPSW" in what else "docs/machines.md tells what each driver can"
        raise UsageError(f"driver {self.name} cannot {what}", hint=able)


def first_address(text: str, *, own: bool = False) -> str | None:
    """Return the first address in what a program printed: IPv4 before IPv6.

    Loopback counts only where it is this host's `own`, not one of the guest's interfaces.
    """
    addresses = []
    for token in re.split(r"[\s,;]+", text):
        try:
            address = ipaddress.ip_address(token.partition("/")[0])
        except ValueError:
            continue
        if not (
            address.is_unspecified or (address.is_loopback and not own) or address.is_link_local or address.is_multicast
        ):
            addresses.append(address)
    addresses.sort(key=lambda a: a.version)
    return str(addresses[0]) if addresses else None
