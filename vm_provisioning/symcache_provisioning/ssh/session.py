"""SSH sessions: running programs and SFTP on a host, with limits on the time and size of its output.

Agent forwarding, X11 and port forwarding are never used.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paramiko

from symcache.errors import RemoteError, UsageError
from symcache.text import excerpt
from symcache_provisioning.interrupts import defer_interrupts
from symcache_provisioning.ssh.commands import START, command_line, without_login_output
from symcache_provisioning.ssh.connection import connect
from symcache_provisioning.ssh.host_keys import HostKeyTrust
from symcache_provisioning.ssh.login import Login, SshTarget, Timeouts
from symcache_provisioning.ssh.packets import ConnectionLostError
from symcache_provisioning.ssh.sftp import Sftp

__all__ = ["RemoteOutput", "SshSession"]

_MOST_CONNECTIONS = 4
"""To one host, if it grants only one channel to each: for SFTP, for two programs, and for an upload."""
_ENDING_SECONDS = 10.0
"""Longest wait for a watched program that was told to end."""


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """What a program printed, as bytes, and its exit status: -1 if it was ended by a signal."""

    stdout: bytes
    stderr: bytes
    status: int


class SshSession:
    """One connection to one host; reconnects by `connect()` after a loss.

    `announce` is told, in one sentence, of every host key that is trusted on first use.
    """

    def __init__(
        self,
        target: SshTarget,
        *,
        trust: HostKeyTrust | None = None,
        login: Login | None = None,
        timeouts: Timeouts | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.target = target
        self.timeouts = timeouts or Timeouts()
        self._trust = trust or HostKeyTrust()
        self._login = login or Login()
        self._announce = announce or (lambda _: None)
        self._client: paramiko.SSHClient | None = None
        self._further: list[paramiko.SSHClient] = []
        self._sftp: Sftp | None = None
        self._background: Sequence[str] = ()
        self._background_channel: Any = None

    def __enter__(self) -> Self:
        if self._client is None:
            self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session; a closed session may be connected again."""
        clients = [*self._further, *([self._client] if self._client else [])]
        self._client, self._further, self._sftp = None, [], None
        for client in clients:
            client.close()

    def connect(self) -> None:
        """Connect, with retries. Raises what `connection.connect` raises."""
        self.close()
        self._client = self._new_connection()
        self._start_background()

    def _new_connection(self) -> paramiko.SSHClient:
        return connect(self.target, self._trust, self._login, self.timeouts, self._announce)

    @property
    def connected(self) -> bool:
        """Return whether there is a connection, as far as is known without using it."""
        transport = self._client.get_transport() if self._client else None
        return transport is not None and transport.is_active()

    @property
    def host_key(self) -> str:
        """Fingerprint of the key that the host has shown. Raises RemoteError without a connection."""
        return str(self._transport.get_remote_server_key().fingerprint)

    @property
    def _transport(self) -> Any:
        transport = self._client.get_transport() if self._client else None
        if transport is None or not transport.is_active():
            raise ConnectionLostError(f"{self.target.host}: the connection is lost", hint="run the same command again")
        return transport

    @property
    def sftp(self) -> Sftp:
        """The session's SFTP channel, opened on first use. Raises RemoteError."""
        if self._sftp is None:
            self._sftp = Sftp(self._sftp_channel(), self.target.host, self.timeouts.reply)
        return self._sftp

    def _sftp_channel(self) -> Any:
        channel = self._open_channel()
        try:
            self._request(channel, channel.invoke_subsystem, "sftp")
        except (paramiko.SSHException, EOFError, OSError) as error:
            channel.close()
            raise RemoteError(
                f"{self.target.host} offers no SFTP: {excerpt(str(error))}",
                hint="the host's sshd_config needs `Subsystem sftp /usr/libexec/sftp-server`",
            ) from error
        return channel

    def _open_channel(self) -> Any:
        """Return a new channel: of another connection where the host grants no more to this one (MaxSessions)."""
        transport = self._transport
        for number in range(_MOST_CONNECTIONS):
            if number > len(self._further):
                self._further.append(self._new_connection())
            if number:
                transport = self._further[number - 1].get_transport()
            try:
                channel = transport.open_session(timeout=self.timeouts.reply)
            except paramiko.ChannelException as error:
                refusal: Exception = error
            except (paramiko.SSHException, EOFError, OSError) as error:
                refusal = error
                break
            else:
                channel.settimeout(self.timeouts.reply)
                return channel
        raise ConnectionLostError(
            f"{self.target.host} opens no channel: {excerpt(str(refusal)) or 'connection lost'}",
            hint="run the same command again; if that does not help, see MaxSessions in the host's sshd_config",
        ) from refusal

    def _request(self, channel: Any, request: Callable[[str], None], what: str) -> None:
        """Send a channel request. The channel is closed, and this raises, where paramiko would wait for ever."""
        end = threading.Timer(self.timeouts.reply, _close, [channel])
        try:
            end.start()
            request(what)
        finally:
            end.cancel()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        max_output: int = 1 << 20,
        watched: bool = False,
    ) -> RemoteOutput:
        """Run one program by its absolute path, with `LC_ALL=C` and no input, and return what it printed.

        `timeout` in seconds bounds the whole run, `max_output` in bytes both outputs together. Raises RemoteError
        for either, and for a lost connection; never for an exit status. A `watched` program is terminated when this
        process ends or this raises, unless the connection is lost; others run to their end.
        """
        if not argv or not argv[0].startswith("/"):
            raise UsageError(f"{argv[:1]}: programs on a host are named by their absolute path")
        deadline = time.monotonic() + (self.timeouts.reply if timeout is None else timeout)
        channel = self._open_channel()
        try:
            self._request(channel, channel.exec_command, command_line(argv, watched=watched))
            if watched:
                channel.sendall(START)  # the input stays open
            else:
                channel.shutdown_write()
            return self._collect(channel, argv[0], deadline, max_output)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(
                f"{self.target.host}: {argv[0]} broke off: {excerpt(str(error)) or 'connection lost'}",
                hint="run the same command again",
            ) from error
        except BaseException:
            if watched:
                _end(channel)
            raise
        finally:
            channel.close()

    @contextmanager
    def running(self, argv: Sequence[str]) -> Iterator[None]:
        """Run a program there during the block, and again after a reconnect. It is no error if it fails or ends."""
        self._background = argv
        self._start_background()
        try:
            yield
        finally:
            self._background = ()
            if self._background_channel is not None:
                _close(self._background_channel)  # which ends its input, and so the program

    def _start_background(self) -> None:
        if not self._background:
            return
        with contextlib.suppress(RemoteError, paramiko.SSHException, EOFError, OSError):
            channel = self._background_channel = self._open_channel()
            self._request(channel, channel.exec_command, command_line(self._background, watched=True))
            channel.sendall(START)

    def upload(self, local: Path, remote: str) -> None:
        """Write a file on the host, which is only the owner's to read there. Raises RemoteError.

        A file that is cut short by a lost connection stays: upload to a name of your own, and rename what is whole.
        """
        try:
            with paramiko.SFTPClient(self._sftp_channel()) as sftp:
                with sftp.open(remote, "wx") as empty:  # never through what is there already
                    empty.chmod(0o600)
                sftp.put(str(local), remote)  # compares the sizes at the end
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise RemoteError(
                f"{self.target.host}: {excerpt(remote)} cannot be written: {excerpt(str(error)) or 'connection lost'}",
                hint="check the free space there, and who may write there",
            ) from error

    def _collect(self, channel: Any, program: str, deadline: float, max_output: int) -> RemoteOutput:
        stdout, stderr = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(channel.fileno(), selectors.EVENT_READ)
            while True:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise RemoteError(
                        f"{self.target.host}: {program} did not finish in its time", hint="see what it does there"
                    )
                # Data and the end of either stream wake this; the exit status alone does not, so poll once a second.
                selector.select(min(remaining, 1))
                while channel.recv_ready() and len(stdout) <= max_output:
                    stdout += channel.recv(65536)
                while channel.recv_stderr_ready() and len(stderr) <= max_output:
                    stderr += channel.recv_stderr(65536)
                if len(stdout) + len(stderr) > max_output:
                    raise RemoteError(
                        f"{self.target.host}: {program} printed more than {max_output} bytes",
                        hint="see what it prints there",
                    )
                ended = channel.eof_received or channel.closed
                if ended and not channel.recv_ready() and not channel.recv_stderr_ready():
                    break
        if not channel.status_event.wait(max(0.0, min(deadline - time.monotonic(), self.timeouts.reply))):
            raise RemoteError(f"{self.target.host}: {program} ended without an exit status")
        status = channel.recv_exit_status()
        if status == -1 and not (channel.eof_received and channel.get_transport().is_active()):
            raise EOFError  # a signal ends the program, and not the connection
        return RemoteOutput(bytes(stdout), without_login_output(bytes(stderr)), status)


def _close(channel: Any) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.close()


def _end(channel: Any) -> None:
    """Terminate a watched program, and wait for its end: it might write again what is about to be removed."""
    with defer_interrupts(), contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.shutdown_write()
        channel.status_event.wait(_ENDING_SECONDS)
