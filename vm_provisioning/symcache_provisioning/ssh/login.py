"""Where to log in, with which credentials, and the time limits of a session."""

from __future__ import annotations

import getpass
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko

from symcache.errors import RemoteError, UsageError
from symcache.text import excerpt
from symcache_provisioning.ssh.config import SshConfig, SshHost

__all__ = ["Login", "SshTarget", "Timeouts", "UnreachableError", "load_key", "locked_key_error"]

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?")


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where to log in, and which folder there is the root of the system to read."""

    host: str
    user: str
    port: int = 22
    root: str = "/"
    way: SshHost | None = None
    """What ssh_config(5) says of it."""

    @property
    def ssh_host(self) -> SshHost:
        """The host, and the way there."""
        return self.way or SshHost(self.host, self.host, self.port, self.user)

    @classmethod
    def parse(cls, text: str, config: SshConfig | None = None) -> SshTarget:
        """Parse `ssh://[user@]host[:port][/folder]`; IPv6 addresses stand in brackets. Raises UsageError.

        A folder other than `/` is a system mounted there, e.g. `/Volumes/Other`. `config` says what is left out, and
        the way there.
        """
        hint = "write ssh://user@host or ssh://user@host:port"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{excerpt(text)}: not an SSH URL: {error}", hint=hint) from error
        if parts.scheme != "ssh" or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"{excerpt(text)}: not an SSH URL", hint=hint)
        if parts.password is not None:
            raise UsageError(
                f"{excerpt(parts.hostname)}: a password in a URL would be seen by others",
                hint="use a key, or name the environment variable that holds the password with --password-env",
            )
        # urlsplit lowers the host's case, which no resolver minds.
        host, user = parts.hostname, unquote(parts.username or "")
        root = "/" + unquote(parts.path).strip("/")
        if not _HOST.fullmatch(host):
            raise UsageError(f"{excerpt(host)}: not a host name or address", hint=hint)
        if user and not _USER.fullmatch(user):
            raise UsageError(f"{excerpt(user)}: not a user name", hint=hint)
        if ".." in root.split("/") or not root.isprintable():
            raise UsageError(f"{excerpt(root)}: not an absolute folder on the host", hint="name it without ..")
        if port == 0:
            raise UsageError(f"{host}: port 0 cannot be connected to", hint=hint)
        if config is None:
            return cls(host, user or getpass.getuser(), port or 22, root)
        start = parts.netloc.lower().rindex(host)
        way = config.host(parts.netloc[start : start + len(host)], user=user or None, port=port)
        return cls(host, way.user, way.port, root, way)

    def __str__(self) -> str:
        """Return the URL, without the port if it is 22."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == 22 else f":{self.port}"
        return f"ssh://{self.user}@{host}{port}{'' if self.root == '/' else self.root}"


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials: what is named here, then keys that are found; a password only from an environment variable."""

    identity: Path | None = None
    password_env: str | None = None
    agent: bool = True
    """Ask the user's SSH agent, and look for keys in ~/.ssh, where no `identity` is named."""

    def password(self) -> str | None:
        """Return the password, or None without `password_env`. Raises UsageError if that variable is not set."""
        if self.password_env is None:
            return None
        value = os.environ.get(self.password_env)
        if not value:
            raise UsageError(
                f"the environment variable {self.password_env} holds no password",
                hint=f"export {self.password_env}=… or use a key with --identity",
            )
        return value

    def key(self) -> Any:
        """Return the private key in `identity`, or None without one. Raises UsageError, UnreachableError."""
        return None if self.identity is None else load_key(self.identity)

    @property
    def searches(self) -> bool:
        """Whether keys are looked for, as none is named."""
        return self.agent and self.identity is None


def load_key(file: Path) -> Any:
    """Return the private key in a file. Raises UsageError, UnreachableError if it is protected by a passphrase."""
    try:
        return paramiko.PKey.from_path(file)
    except paramiko.PasswordRequiredException as error:
        raise locked_key_error(str(file)) from error
    except FileNotFoundError as error:
        raise UsageError(f"{file}: no such file", hint="name the private key, not the .pub") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="check who may read it") from error
    except (
        paramiko.SSHException,
        paramiko.UnknownKeyType,
        ValueError,
        TypeError,
        LookupError,
        struct.error,
    ) as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise locked_key_error(str(file)) from error
        raise UsageError(
            f"{file}: not a private SSH key: {excerpt(str(error))}",
            hint="name the private key, not the .pub; `ssh-keygen -yf FILE` checks it",
        ) from error


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds. `attempts` connections are tried, `backoff` apart at first, then longer."""

    connect: float = 15
    reply: float = 60
    """Longest wait for a response."""
    keepalive: int = 15
    attempts: int = 4
    backoff: float = 1


class UnreachableError(RemoteError):
    """The host cannot be reached, or refuses us."""


def locked_key_error(key: str) -> UnreachableError:
    """Return the error for a key that only a passphrase opens."""
    return UnreachableError(
        f"{key}: protected by a passphrase", hint="unlock it in your agent with ssh-add, and leave out --identity"
    )
