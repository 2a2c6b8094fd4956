"""A stand-in for a Mac with Remote Login: a real SSH server on loopback over a folder that looks like macOS.

It is no emulation of macOS: it serves the folder's files by SFTP, read-only, and runs the few programs that a harvest
asks for. It listens on 127.0.0.1 alone, lets in one key that it made itself, and touches nothing outside its folder.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

import paramiko

from symcache.demo.guest_files import GuestFiles, sftp_interface
from symcache.demo.layouts import LAYOUTS, furnish, protected_folders
from symcache.demo.programs import Programs

__all__ = ["StandInHost"]

_UTIL = "/usr/local/bin/dyld_shared_cache_util"
_HANDSHAKE_SECONDS = 15
_ACCEPT_SECONDS = 0.2
_INPUT_SECONDS = 2.0
"""For clients that leave the input open and say nothing."""

logging.getLogger("paramiko").addHandler(logging.NullHandler())


class StandInHost:
    """A context manager: inside of it, the host is up.

    `root` becomes the host's `/`. With `util`, the host has `dyld_shared_cache_util`, which no Mac has as it comes.
    `layout` names one of LAYOUTS, as which the folder is furnished; its users may read then what those of a Mac may.
    """

    def __init__(self, root: Path, *, util: bool = True, layout: str | None = None) -> None:
        model, protected = "", None
        if layout is not None:
            furnish(root, LAYOUTS[layout])
            model, protected = LAYOUTS[layout].model, protected_folders(LAYOUTS[layout])
        self.files = GuestFiles(root, protected)
        self.programs = Programs(self.files, util=_UTIL if util else None, model=model)
        self.username = getpass.getuser()
        self.address = "127.0.0.1"
        self.port = 0
        self._host_key = paramiko.ECDSAKey.generate()
        self._client_key = paramiko.ECDSAKey.generate()
        self._stop = threading.Event()
        self._transports: list[Any] = []
        self._resources = contextlib.ExitStack()

    @property
    def fingerprint(self) -> str:
        """Of the host key, as `ssh-keygen -l` prints it."""
        return str(self._host_key.fingerprint)

    @property
    def identity_file(self) -> Path:
        """The private key that the host lets in; there while the host is up."""
        return self._keys / "id_ecdsa"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            self._keys = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="symcache-host-")))
            self.identity_file.touch(mode=0o600)
            self._client_key.write_private_key_file(str(self.identity_file))
            listener = opened.enter_context(socket.create_server((self.address, 0)))
            listener.settimeout(_ACCEPT_SECONDS)
            self.port = listener.getsockname()[1]
            self._stop.clear()
            thread = threading.Thread(target=self._serve, args=(listener,), name="stand-in host", daemon=True)
            thread.start()
            opened.callback(thread.join)
            opened.callback(self._close)
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _close(self) -> None:
        self._stop.set()
        for transport in self._transports:
            transport.close()

    def _serve(self, listener: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(connection)
            transport.daemon = True
            transport.add_server_key(self._host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, sftp_interface(self.files))
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = _HANDSHAKE_SECONDS
            self._transports = [t for t in self._transports if t.is_active()] + [transport]
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                # With an event it returns at once: a slow client keeps nobody waiting.
                transport.start_server(event=threading.Event(), server=_Server(self))

    def accepts(self, username: str, key: Any) -> bool:
        """Tell whether this key may log in under this name."""
        return username == self.username and key == self._client_key


class _Server(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """One connection."""

    def __init__(self, host: StandInHost) -> None:
        self._host = host

    def get_allowed_auths(self, username: str) -> str:
        """Keys only."""
        del username
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        """Let in the one key."""
        return int(paramiko.AUTH_SUCCESSFUL if self._host.accepts(username, key) else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Sessions only: no forwarding."""
        del chanid
        return int(paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        """Run a program."""
        threading.Thread(target=self._run, args=(channel, command), name="stand-in program", daemon=True).start()
        return True

    def _run(self, channel: Any, command: bytes) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            # No program reads its input; but a line of it, or its end, tells that the client knows that its request was
            # granted, and paramiko sends that answer from another thread than this.
            channel.settimeout(_INPUT_SECONDS)
            with contextlib.suppress(TimeoutError):
                channel.recv(1)
            channel.settimeout(None)
            stdout, stderr, status = self._host.programs.run(command.decode("utf-8", "surrogateescape"))
            channel.sendall(stdout)
            channel.sendall_stderr(stderr)
            channel.send_exit_status(status)
            channel.shutdown_write()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()
