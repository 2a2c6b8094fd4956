"""Keys of the user: in an agent, in files, and with certificates."""

from __future__ import annotations

import base64
import binascii
import copy
import os
import socket
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_ssh_public_identity,
)

__all__ = ["public_half", "user_agent", "with_certificate", "without_certificate"]

_AGENT_SECONDS = 30.0


class _AgentAt(paramiko.agent.AgentSSH):  # type: ignore[misc]  # paramiko has no types
    """The agent behind a socket. Raises OSError, SSHException."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_AGENT_SECONDS)
            connection.connect(path)
            self._connect(connection)
            connection.settimeout(None)  # whoever has to confirm a signature takes their time
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._close()


def user_agent(where: str) -> Any:
    """Return the agent behind a socket, or the user's for `SSH_AUTH_SOCK`.

    Return None for `none`, where there is no agent, and for one that does not answer as it should.
    """
    path = os.environ.get("SSH_AUTH_SOCK", "") if where == "SSH_AUTH_SOCK" else where
    try:
        return None if path in {"", "none"} else _AgentAt(path)
    except (paramiko.SSHException, OSError, ValueError):
        return None


def public_half(file: Path) -> bytes | None:
    """Return the key in the .pub file beside a private key, or in `file` if it is one: that needs no passphrase."""
    public = file if file.suffix == ".pub" else file.with_name(f"{file.name}.pub")
    try:
        return base64.b64decode(public.read_text("utf-8", "replace").split()[1])
    except (OSError, IndexError, binascii.Error, ValueError):
        return None


def with_certificate(key: Any, file: Path) -> Any:
    """Return a key with the certificate in a file, or None if that is of another key, or none."""
    try:
        certificate = load_ssh_public_identity(file.read_bytes())
        if not isinstance(certificate, SSHCertificate):
            return None
        encoded = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
        if base64.b64decode(encoded) != key.asbytes():
            return None
        certified = copy.copy(key)
        certified.load_certificate(str(file))
    except (OSError, ValueError, TypeError, paramiko.SSHException):
        return None
    return certified


def without_certificate(key: Any) -> Any:
    """Return a key without the certificate that lay beside it."""
    if key.public_blob is None:
        return key
    plain = copy.copy(key)
    plain.public_blob = None
    return plain
