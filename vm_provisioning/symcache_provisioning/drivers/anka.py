"""Anka 3: macOS guests on Intel and Apple silicon. https://docs.veertu.com/anka/

With --machine-readable every verb prints `{"status": "OK", "body": …}`, or `{"status": "FAIL", "code": N,
"message": …}`, whatever its exit code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from symcache.text import excerpt
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

__all__ = ["Anka"]

_ANKA = Program("anka", "/usr/local/bin/anka", hint="install Anka, and add it to PATH")
_STATES = {"running": MachineState.RUNNING, "stopped": MachineState.STOPPED, "suspended": MachineState.SUSPENDED}
_CLONE_SECONDS = 3600
_INSTALL_SECONDS = 2 * 3600

Body = dict[str, Any] | list[Any] | None


class AnkaOptions(DriverOptions):
    """`tag`: the version of the image to clone; the newest without it. `disk`: of a machine that is created."""

    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")] | None = None
    disk: Annotated[str, Field(pattern=r"^[0-9]{1,5}[GT]$")] | None = None


class Anka(Driver[AnkaOptions]):
    """See the docstring of the module."""

    name = "anka"
    capabilities = Capabilities(out_of_band=True, create_from_ipsw=True, apple_limit=True)
    options_type = AnkaOptions
    programs = (_ANKA,)

    def _run(
        self, verb: str, *arguments: str, machine: str = "", timeout: float = 60, missing_ok: bool = False
    ) -> Body:
        """Run a verb and return the body of its response; None for a missing machine if `missing_ok`."""
        output = _ANKA.run(
            verb, *arguments, machine=machine, before=["--machine-readable"], timeout=timeout, accept=lambda o: True
        )
        try:
            response = json.loads(output.stdout)
        except (ValueError, RecursionError):
            if output.status != 0:
                raise _ANKA.failure(verb, machine, output) from None
            response = _ANKA.parse(verb, machine, output)
        if not isinstance(response, dict) or response.get("status") not in {"OK", "FAIL"}:
            raise ProgramError(
                f"anka {verb} {machine} printed {excerpt(output.stdout, 60)!r}, which is no answer of Anka 3",
                hint="is Anka 3 installed?",
            )
        if response["status"] == "FAIL":
            message = excerpt(str(response.get("message", "")))
            if missing_ok and "not found" in message.lower():
                return None
            code = response.get("code")
            status = output.status or (code if isinstance(code, int) else 1)
            raise _ANKA.failure(verb, machine, Output("", message, status))
        body = response.get("body")
        return body if isinstance(body, dict | list) else None

    def list(self) -> Sequence[ListedMachine]:
        """See Driver."""
        body = self._run("list")
        return [
            ListedMachine(str(m["name"]), _STATES.get(str(m.get("status")), MachineState.CHANGING))
            for m in (body if isinstance(body, list) else [])
            if isinstance(m, dict) and "name" in m
        ]

    def running_guests(self) -> Sequence[str]:
        """See Driver. Anka runs macOS only."""
        return [m.name for m in self.list() if m.state.is_up]

    def clone(self, image: str, machine: str) -> None:
        """See Driver."""
        tag = ["-t", self.options.tag] if self.options.tag else []
        self._run("clone", *tag, image, machine, machine=machine, timeout=_CLONE_SECONDS)

    def start(self, machine: str, log: Path) -> None:
        """See Driver."""
        del log
        self._run("start", machine, machine=machine, timeout=180)

    def address(self, machine: str) -> Endpoint | None:
        """See Driver."""
        body = self._run("show", machine, machine=machine)
        host = first_address(str(body.get("ip", ""))) if isinstance(body, dict) else None
        return Endpoint(host, 22) if host else None

    def exec_out_of_band(self, machine: str, argv: Sequence[str], timeout: float = 30) -> str:
        """See Driver."""
        return _ANKA.run("run", machine, *argv, machine=machine, timeout=timeout).stdout

    def stop(self, machine: str, grace: float) -> None:
        """See Driver."""
        self._stop_or_kill(
            machine,
            lambda: self._run("stop", machine, machine=machine, timeout=max(5, grace), missing_ok=True),
            lambda: self._run("stop", "-f", machine, machine=machine, timeout=60),
        )

    def destroy(self, machine: str) -> None:
        """See Driver."""
        self._run("delete", "--yes", machine, machine=machine, timeout=120, missing_ok=True)

    def create(self, machine: str, ipsw: str) -> str:
        """See Driver. Anka goes through the Setup Assistant itself."""
        disk = ["-d", self.options.disk] if self.options.disk else []
        self._run("create", *disk, machine, ipsw, machine=machine, timeout=_INSTALL_SECONDS)
        return "Anka made the user anka, whose password is public: change it, or allow only keys"
