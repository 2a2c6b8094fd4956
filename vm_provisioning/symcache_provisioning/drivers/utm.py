"""UTM by `utmctl`. It drives UTM's app by Apple events, so it needs UTM's graphical session and a grant for it.

Errors of scripting are printed on stderr while it exits 0: whatever is on stderr is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

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

__all__ = ["UTM"]

_UTMCTL = Program(
    "utmctl", "/Applications/UTM.app/Contents/MacOS/utmctl", hint="install UTM, start it, and add utmctl to PATH"
)
_ROW = re.compile(r"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}) +([a-z]+) +(.+)")
_STATES = {"started": MachineState.RUNNING, "stopped": MachineState.STOPPED, "paused": MachineState.SUSPENDED}
_CLONE_SECONDS = 3600


def _missing(output: Output) -> bool:
    return "not found" in output.stderr.lower()


class UTM(Driver[DriverOptions]):
    """See the docstring of the module."""

    name = "utm"
    capabilities = Capabilities(apple_limit=True)
    programs = (_UTMCTL,)

    def _run(self, verb: str, machine: str, *arguments: str, timeout: float = 60, missing_ok: bool = False) -> str:
        return _UTMCTL.run(
            verb,
            *arguments,
            machine,
            machine=machine,
            timeout=timeout,
            strict_stderr=True,
            accept=_missing if missing_ok else None,
        ).stdout

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        head, *rows = _UTMCTL.run("list", strict_stderr=True).stdout.splitlines() or [""]
        if head.split() != ["UUID", "Status", "Name"]:
            raise ProgramError("utmctl list printed no list of machines", hint="run it by hand: utmctl list")
        return [
            ListedMachine(match[3].strip(), _STATES.get(match[2], MachineState.CHANGING))
            for row in rows
            if (match := _ROW.fullmatch(row.strip()))
        ]

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        _UTMCTL.run("clone", image, "--name", machine, machine=machine, timeout=_CLONE_SECONDS, strict_stderr=True)

    def start(self, machine: str, log: Path) -> None:
        """See Driver."""
        del log
        self._run("start", machine, timeout=180)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver. UTM reads the host's ARP cache, which knows a guest once it has sent something."""
        try:
            host = first_address(self._run("ip-address", machine, timeout=30))
        except ProgramError as error:
            if "not supported by the backend" in error.output.lower():
                raise ProgramError(
                    f"{error}",
                    hint="UTM tells addresses of Apple-backend machines since 2026: update UTM, or use driver static",
                    status=error.status,
                    output=error.output,
                ) from error
            return None
        return Endpoint(host, 22) if host else None

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        try:
            self._run("stop", machine, "--request", timeout=max(1, grace), missing_ok=True)
        except ProgramError:
            pass
        state = self.wait_for(machine, {MachineState.STOPPED, MachineState.MISSING}, grace)
        if state not in {MachineState.STOPPED, MachineState.MISSING}:
            self._run("stop", machine, "--kill", timeout=60)

    def destroy(self, machine: str) -> None:
        """See Driver."""
        self._run("delete", machine, timeout=120, missing_ok=True)
