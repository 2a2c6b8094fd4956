"""SSH sessions: a host that is known before anything is said to it, and bounds on everything it answers.

Host keys are checked before any credential is sent. Agent forwarding, X11 and port forwarding do not exist here.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko
import tenacity

from symcache.errors import RemoteError, UsageError
from symcache_provisioning.interrupts import held
from symcache_provisioning.ssh.commands import GO, command_line
from symcache_provisioning.ssh.host_keys import HostKeyTrust, prepare_client
from symcache_provisioning.ssh.login import Login, SshTarget, Timeouts, UnreachableError, locked
from symcache_provisioning.ssh.packets import ConnectionLostError
from symcache_provisioning.ssh.sftp import Sftp
from symcache_provisioning.text import shown

__all__ = ["RemoteOutput", "SshSession"]

# Without a handler of its own, paramiko's complaints about broken peers would be printed by Python itself.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""GCM first: it is several times faster in paramiko than CTR with a separate MAC."""

_ENDING_SECONDS = 10.0
"""Longest wait for a watched program that was told to end."""


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """What a command printed, as bytes, and its exit status (-1: ended by a signal or without one)."""

    stdout: bytes
    stderr: bytes
    status: int


class _Transient(UnreachableError):
    """May go away by itself: a guest that still boots, a network that hiccups."""


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
        self._sftp: Sftp | None = None

    def __enter__(self) -> Self:
        if self._client is None:
            self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; a closed session may be connected again."""
        client, self._client, self._sftp = self._client, None, None
        if client is not None:
            client.close()

    def connect(self) -> None:
        """Connect, trying again while the host does not answer.

        Raises HostKeyError when the host is not the one we know, RemoteError when it cannot be reached or refuses us.
        """
        self.close()
        times = self.timeouts
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(times.attempts),
            wait=tenacity.wait_exponential(times.backoff, 20) + tenacity.wait_random(0, times.backoff / 2),
            retry=tenacity.retry_if_exception_type(_Transient),
            reraise=True,
        ):
            with attempt:
                self._client = self._connect_once()

    def _connect_once(self) -> paramiko.SSHClient:
        target, times, login = self.target, self.timeouts, self._login
        where = f"{target.host} port {target.port}"
        client = paramiko.SSHClient()
        prepare_client(client, self._trust, target.host, self._announce)
        password, key = login.password(), login.key()
        done = False
        try:
            client.connect(
                target.host,
                target.port,
                target.user,
                password=password,
                pkey=key,
                allow_agent=login.agent and key is None,
                look_for_keys=login.agent and key is None,
                timeout=times.connect,
                banner_timeout=times.connect,
                auth_timeout=times.reply,
                channel_timeout=times.reply,
                transport_factory=_transport,
            )
            client.get_transport().set_keepalive(times.keepalive)
            done = True
        except paramiko.BadHostKeyException as error:
            raise self._trust.changed(target.host, target.port, error) from error
        except paramiko.AuthenticationException as error:
            raise self._refused(error) from error
        except paramiko.SSHException as error:
            if client.get_transport() is not None and client.get_transport().initial_kex_done:
                raise self._refused(error) from error  # the host is the right one, but nothing we have fits
            if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
                raise UnreachableError(
                    f"{where} speaks no SSH algorithm that is still thought safe: {shown(str(error))}",
                    hint="update the host's SSH server",
                ) from error
            raise _Transient(
                f"{where} did not complete the SSH handshake: {shown(str(error))}",
                hint="check that an SSH server listens there (Remote Login) and is not overloaded",
            ) from error
        except socket.gaierror as error:
            raise UnreachableError(
                f"{target.host}: no such host: {error.strerror}", hint="check the spelling of the host name"
            ) from error
        except (OSError, EOFError) as error:
            cause = next(iter(getattr(error, "errors", {}).values()), error)  # of NoValidConnectionsError
            raise _Transient(
                f"{where} cannot be reached: {shown(getattr(cause, 'strerror', None) or str(cause) or 'timed out')}",
                hint="start the machine, and switch on Remote Login (System Settings, General, Sharing)",
            ) from error
        except (ValueError, struct.error, IndexError, TypeError) as error:
            # What paramiko raises on replies that no SSH server would send.
            raise UnreachableError(
                f"{where} does not speak SSH as it should: {shown(repr(error))}", hint="see what listens there"
            ) from error
        finally:
            if not done:
                client.close()
        return client

    def _refused(self, error: Exception) -> UnreachableError:
        login, target = self._login, self.target
        if isinstance(error, paramiko.PasswordRequiredException):
            return locked("a key in ~/.ssh")
        tried = [f"the key {login.identity}"] if login.identity else ["your agent's keys and those in ~/.ssh"]
        if login.password_env:
            tried.append(f"the password in {login.password_env}")
        return UnreachableError(
            f"{target.host} refused {target.user}: it accepted neither {' nor '.join(tried)}"
            if len(tried) > 1
            else f"{target.host} refused {target.user}: it did not accept {tried[0]}",
            hint=f"try `ssh -p {target.port} {target.user}@{target.host}`, or name a key with --identity",
        )

    @property
    def connected(self) -> bool:
        """Tell whether there is a connection, as far as is known without trying."""
        transport = self._client.get_transport() if self._client else None
        return transport is not None and transport.is_active()

    @property
    def _transport(self) -> Any:
        transport = self._client.get_transport() if self._client else None
        if transport is None or not transport.is_active():
            raise ConnectionLostError(f"{self.target.host}: the connection is lost", hint="run the same command again")
        return transport

    @property
    def sftp(self) -> Sftp:
        """The session's SFTP channel, opened when first wanted. Raises RemoteError."""
        if self._sftp is None:
            channel = self._open_channel()
            try:
                self._request(channel, channel.invoke_subsystem, "sftp")
            except (paramiko.SSHException, EOFError, OSError) as error:
                channel.close()
                raise RemoteError(
                    f"{self.target.host} offers no SFTP: {shown(str(error))}",
                    hint="the host's sshd_config needs `Subsystem sftp /usr/libexec/sftp-server`",
                ) from error
            self._sftp = Sftp(channel, self.target.host, self.timeouts.reply)
        return self._sftp

    def _open_channel(self) -> Any:
        try:
            channel = self._transport.open_session(timeout=self.timeouts.reply)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(
                f"{self.target.host} opens no channel: {shown(str(error)) or 'connection lost'}",
                hint="run the same command again",
            ) from error
        channel.settimeout(self.timeouts.reply)
        return channel

    def _request(self, channel: Any, ask: Callable[[str], None], what: str) -> None:
        """Ask for something on a new channel; it is closed, and this raises, where paramiko would wait for ever."""
        end = threading.Timer(self.timeouts.reply, _close, [channel])
        end.daemon = True
        end.start()
        try:
            ask(what)
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
        for either, and for a lost connection; never for an exit status. A `watched` program is ended there when we go
        away, and has ended when this raises, unless the connection is lost; others run to their end.
        """
        if not argv or not argv[0].startswith("/"):
            raise UsageError(f"{argv[:1]}: programs on a host are named by their absolute path")
        deadline = time.monotonic() + (self.timeouts.reply if timeout is None else timeout)
        channel = self._open_channel()
        try:
            self._request(channel, channel.exec_command, command_line(argv, watched=watched))
            if watched:
                channel.sendall(GO)  # the input stays open
            else:
                channel.shutdown_write()
            return self._collect(channel, argv[0], deadline, max_output)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(
                f"{self.target.host}: {argv[0]} broke off: {shown(str(error)) or 'connection lost'}",
                hint="run the same command again",
            ) from error
        except BaseException:
            if watched:
                _end(channel)
            raise
        finally:
            channel.close()

    def upload(self, local: Path, remote: str) -> None:
        """Write a file on the host, which is only the owner's to read there. Raises RemoteError.

        A file that is cut short by a lost connection stays: upload to a name of your own, and rename what is whole.
        """
        try:
            with paramiko.SFTPClient.from_transport(self._transport) as sftp:
                sftp.get_channel().settimeout(self.timeouts.reply)
                with sftp.open(remote, "wx") as empty:  # never through what is there already
                    empty.chmod(0o600)
                sftp.put(str(local), remote)  # compares the sizes at the end
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise RemoteError(
                f"{self.target.host}: {shown(remote)} cannot be written: {shown(str(error)) or 'connection lost'}",
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
                # Woken by data and by the end of either stream; looked at once a second, since the exit status
                # alone wakes nobody.
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
        return RemoteOutput(bytes(stdout), bytes(stderr), channel.recv_exit_status())


def _close(channel: Any) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.close()


def _end(channel: Any) -> None:
    """End a watched program, and wait until it has gone: it might make anew what is about to be removed."""
    with held(), contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.shutdown_write()
        channel.status_event.wait(_ENDING_SECONDS)


def _transport(sock: socket.socket, **options: Any) -> paramiko.Transport:
    # Requests are small and many: none may wait until the answer to another is acknowledged.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    security.ciphers = [c for c in _CIPHERS if c in security.ciphers]
    return transport
