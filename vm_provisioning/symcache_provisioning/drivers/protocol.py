"""What a driver of virtual machines can be asked."""

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
    """What a machine does."""

    MISSING = "missing"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    RUNNING = "running"
    CHANGING = "changing"
    """On its way from one to another."""

    @property
    def is_up(self) -> bool:
        """Whether it runs, or is about to, or not to any more."""
        return self in {MachineState.RUNNING, MachineState.CHANGING}


class Endpoint(NamedTuple):
    """Where a machine's SSH server listens."""

    host: str
    port: int


class ListedMachine(NamedTuple):
    """A machine that a driver knows."""

    name: str
    state: MachineState


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do, and what it needs."""

    life_cycle: bool = True
    """It can clone, start, stop and destroy."""
    child_process: bool = False
    """`start` leaves a process behind that lives as long as the machine."""
    out_of_band: bool = False
    """It can run programs in the guest without the network."""
    create_from_ipsw: bool = False
    apple_limit: bool = False
    """It runs macOS guests on a Mac, of which two at a time may run."""


class DriverOptions(BaseModel):
    """Options of one driver, in the inventory's `[machines.NAME.options]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=DriverOptions)


class Driver(ABC, Generic[Options]):
    """One kind of machine. Machines are called by the driver's own names.

    Whatever runs a program raises EnvironmentFailure where that fails, hangs or says nonsense; what a driver cannot do
    raises UsageError. `folder` is for files of the driver's own.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options_type: ClassVar[type[DriverOptions]] = DriverOptions
    programs: ClassVar[tuple[Program, ...]] = ()

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder

    def state(self, machine: str) -> MachineState:
        """Return what it does; the state of a machine that there is none of is MISSING."""
        return next((m.state for m in self.list() if m.name == machine), MachineState.MISSING)

    def list(self) -> Sequence[ListedMachine]:
        """Return the machines there are: what symcache made and lost is found among them."""
        self._cannot("list machines")

    def running_guests(self) -> Sequence[str]:
        """Return the running machines that are known to be macOS guests, of which a Mac may run two."""
        return ()

    def clone(self, image: str, machine: str) -> None:
        """Make `machine` of `image`. A failed or interrupted clone may leave one behind: destroy it."""
        self._cannot("clone")

    def start(self, machine: str, log: Path) -> Child | None:
        """Start it; does not wait until it has. Returns the process that lives with it, if there is one."""
        self._cannot("start machines")

    def address(self, machine: str) -> Endpoint | None:
        """Return where its SSH server will listen, or None as long as nobody knows."""
        self._cannot("tell addresses")

    def endpoint(self, machine: str, timeout: float, child: Child | None = None) -> Endpoint:
        """Wait for an address, at most `timeout` seconds, and no longer than `child` lives.

        Raises RemoteError when none comes, EnvironmentFailure with the last word of a child that ended.
        """

        def ask() -> Endpoint | None:
            found = self.address(machine)
            if found is None:
                self.check_child(machine, child)
            return found

        try:
            found = tenacity.Retrying(
                stop=tenacity.stop_after_delay(timeout),
                wait=tenacity.wait_fixed(_POLL),
                retry=tenacity.retry_if_result(lambda found: found is None),
            )(ask)
        except tenacity.RetryError as error:
            raise RemoteError(
                f"{machine} got no network address within {timeout:g} s",
                hint=f"see with {self.name} whether it starts at all; boot_timeout in the inventory is the limit",
            ) from error
        assert found is not None  # noqa: S101 - for the type checker: None is retried
        return found

    def check_child(self, machine: str, child: Child | None) -> None:
        """Raise EnvironmentFailure where the process that lives with a machine has ended."""
        if child is not None and not child.alive():
            raise EnvironmentFailure(
                f"{self.name}: {machine} ended while it started: {child.said() or 'it said nothing'}",
                hint=self._explain(child.said()) or f"its log is {child.log}",
            )

    def _explain(self, said: str) -> str:
        """Return the next step for the last word of a child, where it is known."""
        del said
        return ""

    def exec_out_of_band(self, machine: str, argv: Sequence[str], timeout: float = 30) -> str:
        """Run a program in the guest without the network, and return what it prints."""
        self._cannot("run programs in the guest")

    def stop(self, machine: str, grace: float) -> None:
        """Stop it, by force after `grace` seconds; one that is stopped or missing is fine."""
        self._cannot("stop machines")

    def _stop_or_kill(self, machine: str, stop: Callable[[], object], kill: Callable[[], object]) -> None:
        """Stop a machine, and kill it if that fails and it is still up."""
        try:
            stop()
        except ProgramError:
            if self.state(machine).is_up:
                kill()

    def wait_for(self, machine: str, states: Set[MachineState], seconds: float) -> MachineState:
        """Wait until it does one of these, at most so long, and return what it does then."""
        deadline = time.monotonic() + seconds
        while (state := self.state(machine)) not in states and time.monotonic() < deadline:
            time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))
        return state

    def destroy(self, machine: str) -> None:
        """Remove it and its disks; one that is missing is fine."""
        self._cannot("destroy machines")

    def create(self, machine: str, ipsw: str) -> str:
        """Install macOS from an IPSW, a path or `latest`, and return what is left to do by hand."""
        self._cannot("create machines from an IPSW")

    def is_local(self, image: str) -> bool:
        """Tell whether an image is a machine of this host, which can be started and changed itself."""
        return self.state(image) != MachineState.MISSING

    def _cannot(self, what: str) -> NoReturn:
        able = "tart and anka can" if "IPSW" in what else "docs/machines.md tells what each driver can"
        raise UsageError(f"driver {self.name} cannot {what}", hint=able)


def first_address(text: str, *, own: bool = False) -> str | None:
    """Return the first address in what a program printed: IPv4 before IPv6.

    Loopback counts only where it is this host's `own`, not one of the guest's interfaces.
    """
    found = []
    for word in re.split(r"[\s,;]+", text):
        try:
            address = ipaddress.ip_address(word.partition("/")[0])
        except ValueError:
            continue
        if not (
            address.is_unspecified or (address.is_loopback and not own) or address.is_link_local or address.is_multicast
        ):
            found.append(address)
    found.sort(key=lambda a: a.version)
    return str(found[0]) if found else None
