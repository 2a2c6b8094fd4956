"""The byte stream to an SSH server: over TCP, by a program, or out of a host on the way."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import paramiko

from symcache.errors import RemoteError
from symcache.text import excerpt
from symcache_provisioning.ssh.config import SshHost

__all__ = ["Link", "open_link"]

_ENDING_SECONDS = 5.0
_WINDOW = 16 << 20
"""Bytes in flight through a host on the way; the connection inside has a window of its own."""


class Link:
    """A connection. `close` ends whatever it goes through, too."""

    def __init__(self, stream: Any, stack: ExitStack, output: IO[bytes]) -> None:
        self.stream = stream
        """A socket, or a channel of paramiko, which acts as one."""
        self._stack, self._output = stack, output

    def close(self) -> None:
        """End the connection, and what it goes through."""
        self._stack.close()

    @property
    def complaint(self) -> str:
        """What the program that connects printed on stderr last."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 4096))
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return excerpt(lines[-1]) if lines else ""


def open_link(host: SshHost, timeout: float, connect: Callable[[SshHost], paramiko.SSHClient]) -> Link:
    """Open the connection to a host; `connect` connects to the one on the way.

    Raises OSError; RemoteError where that one does not let us through.
    """
    output: IO[bytes] = io.BytesIO()
    with ExitStack() as stack:
        if host.jump is not None:
            client = stack.enter_context(contextlib.closing(connect(host.jump)))
            stream = _channel(client, host, host.jump, timeout)
        elif host.command:
            output = stack.enter_context(tempfile.TemporaryFile())
            stream = stack.enter_context(_program(host.command, output))
        else:
            stream = stack.enter_context(socket.create_connection((host.address, host.port), timeout))
            # Requests are small and many: none may wait until the answer to another is acknowledged.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Link(stream, stack.pop_all(), output)


def _channel(client: paramiko.SSHClient, host: SshHost, jump: SshHost, timeout: float) -> Any:
    try:
        return client.get_transport().open_channel(
            "direct-tcpip", (host.address, host.port), ("127.0.0.1", 0), window_size=_WINDOW, timeout=timeout
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        reason = getattr(error, "text", "") or str(error) or "connection lost"
        raise RemoteError(
            f"{jump.where} does not connect to {host.address} port {host.port}: {excerpt(reason)}",
            hint=f"try `ssh -J {jump.user}@{jump.address}:{jump.port} -p {host.port} {host.user}@{host.address}`;"
            " its sshd needs AllowTcpForwarding",
        ) from error


@contextmanager
def _program(command: str, output: IO[bytes]) -> Iterator[socket.socket]:
    """Yield the socket that is input and output of a program, which is ended with it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # In a session of its own: Ctrl-C must not end it before we have cleaned up by it.
            process = subprocess.Popen(
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=output,
                start_new_session=True,
            )
        try:
            yield ours
        finally:
            ours.close()
            process.terminate()
            try:
                process.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
