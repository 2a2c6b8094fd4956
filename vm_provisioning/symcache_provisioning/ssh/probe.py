"""Whether an SSH server listens, and its host key, without logging in."""

from __future__ import annotations

import contextlib
import socket

import paramiko

from symcache.errors import RemoteError
from symcache.text import excerpt
from symcache_provisioning.ssh.local_network import check_local_network

__all__ = ["server_host_key", "speaks_ssh"]

_BANNER = b"SSH-"


def speaks_ssh(host: str, port: int, timeout: float) -> bool:
    """Return whether an SSH server sends its banner. A forwarded port may be open long before that.

    Raises LocalNetworkError.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            return connection.recv(len(_BANNER)) == _BANNER
    except OSError as error:
        check_local_network(error, host, port)
        return False


def server_host_key(host: str, port: int, timeout: float = 15) -> str:
    """Return the fingerprint of the key that an SSH server presents, without logging in. Raises RemoteError."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as connection,
            contextlib.closing(paramiko.Transport(connection)) as transport,
        ):
            transport.banner_timeout = timeout
            transport.start_client(timeout=timeout)
            return str(transport.get_remote_server_key().fingerprint)
    except (OSError, EOFError, paramiko.SSHException) as error:
        check_local_network(error, host, port)
        raise RemoteError(
            f"{host} port {port} shows no host key: {excerpt(str(error)) or 'it broke off'}",
            hint="check that an SSH server listens there (Remote Login)",
        ) from error
