"""A client of the QEMU Machine Protocol (docs/interop/qmp-spec): commands, without events."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, Self

from symcache.errors import EnvironmentFailure
from symcache.scratch import ScratchFolder
from symcache.text import excerpt

__all__ = ["Qmp", "QmpError"]

_MAX_LINE = 1 << 20
_MAX_SOCKET_PATH = 103
"""Bytes of a Unix socket's path that every system takes: macOS fewest, sun_path of its <sys/un.h> without the NUL."""


class QmpError(EnvironmentFailure):
    """QEMU does not answer, or refuses a command."""


class Qmp:
    """One connection to the monitor of a machine. Every response must arrive within `timeout` seconds."""

    def __init__(self, path: Path, timeout: float = 10) -> None:
        self._path, self._name = path, f"QEMU's monitor {path}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._connect()
            self._file = self._socket.makefile("rb")
            if "QMP" not in self._receive():
                raise QmpError(f"{self._name} does not speak QMP")
            self.execute("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise QmpError(f"{self._name} does not answer: {error.strerror or error}") from error
        except QmpError:
            self._socket.close()
            raise

    def _connect(self) -> None:
        if len(os.fsencode(self._path)) <= _MAX_SOCKET_PATH:
            self._socket.connect(str(self._path))
            return
        # The path may be too long for a socket. QEMU made it by its name alone, in its working folder.
        with ScratchFolder("qmp", Path("/tmp")) as folder:  # noqa: S108 - private, and with a name of its own
            short = Path(folder) / "home"
            short.symlink_to(self._path.parent)
            self._socket.connect(str(short / self._path.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def execute(self, command: str, **arguments: str) -> Any:
        """Run a command and return its result, ignoring events. Raises QmpError."""
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{self._name} does not answer: {error.strerror or error}") from error
        while True:
            response = self._receive()
            if "error" in response:
                raise QmpError(f"{self._name} refused {command}: {excerpt(str(response['error'].get('desc', '')))}")
            if "return" in response:
                return response["return"]

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline(_MAX_LINE)
        except OSError as error:
            raise QmpError(f"{self._name} does not answer: {error.strerror or error}") from error
        if not line.endswith(b"\n"):
            raise QmpError(f"{self._name} broke off")
        try:
            response = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError(f"{self._name} does not speak QMP: {excerpt(line, 60)!r}") from error
        if not isinstance(response, dict):
            raise QmpError(f"{self._name} does not speak QMP: {excerpt(line, 60)!r}")
        return response
