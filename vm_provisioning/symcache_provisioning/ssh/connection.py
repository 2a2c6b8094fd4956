"""Connecting to an SSH server: the host key is checked before any credential is sent."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import paramiko
import tenacity

from symcache.text import excerpt
from symcache_provisioning.ssh.authentication import Authentication
from symcache_provisioning.ssh.host_keys import HostKeyTrust, prepare_client
from symcache_provisioning.ssh.local_network import check_local_network
from symcache_provisioning.ssh.login import Login, SshTarget, Timeouts, UnreachableError

__all__ = ["connect"]

# Without a handler of its own, paramiko's complaints about broken peers would be printed by Python itself.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""GCM first: it is several times faster in paramiko than CTR with a separate MAC."""


class _TransientError(UnreachableError):
    """Another attempt may succeed: a guest that still boots, a network that drops packets."""


def connect(
    target: SshTarget, trust: HostKeyTrust, login: Login, timeouts: Timeouts, announce: Callable[[str], None]
) -> paramiko.SSHClient:
    """Return a connected client, after as many attempts as `timeouts` allows. `announce` is called for new host keys.

    Raises HostKeyError when the host has another key than the one we know, RemoteError when it cannot be reached or
    refuses us; LocalNetworkError at once.
    """
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(timeouts.attempts),
        wait=tenacity.wait_exponential(timeouts.backoff, 20) + tenacity.wait_random(0, timeouts.backoff / 2),
        retry=tenacity.retry_if_exception_type(_TransientError),
        reraise=True,
    )(_connect_once, target, trust, login, timeouts, announce)


def _connect_once(
    target: SshTarget, trust: HostKeyTrust, login: Login, timeouts: Timeouts, announce: Callable[[str], None]
) -> paramiko.SSHClient:
    where = f"{target.host} port {target.port}"
    client = paramiko.SSHClient()
    prepare_client(client, trust, announce)
    authentication = Authentication(target, login)
    done = False
    try:
        client.connect(
            target.host,
            target.port,
            target.user,
            auth_strategy=authentication,
            timeout=timeouts.connect,
            banner_timeout=timeouts.connect,
            auth_timeout=timeouts.reply,
            channel_timeout=timeouts.reply,
            transport_factory=_transport,
        )
        client.get_transport().set_keepalive(timeouts.keepalive)
        done = True
    except paramiko.BadHostKeyException as error:
        raise trust.changed(target.host, target.port, error) from error
    except paramiko.SSHException as error:
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            raise UnreachableError(
                f"{where} speaks no SSH algorithm that is still thought safe: {excerpt(str(error))}",
                hint="update the host's SSH server",
            ) from error
        raise _TransientError(
            f"{where} did not complete the SSH handshake: {excerpt(str(error))}",
            hint="check that an SSH server listens there (Remote Login) and is not overloaded",
        ) from error
    except socket.gaierror as error:
        raise UnreachableError(
            f"{target.host}: no such host: {error.strerror}", hint="check the spelling of the host name"
        ) from error
    except (OSError, EOFError) as error:
        check_local_network(error, target.host, target.port)
        cause = next(iter(getattr(error, "errors", {}).values()), error)  # of NoValidConnectionsError
        raise _TransientError(
            f"{where} cannot be reached: {excerpt(getattr(cause, 'strerror', None) or str(cause) or 'timed out')}",
            hint="start the machine, and switch on Remote Login (System Settings, General, Sharing)",
        ) from error
    except (ValueError, struct.error, IndexError, TypeError) as error:
        # What paramiko raises on replies that no SSH server would send.
        raise UnreachableError(
            f"{where} does not speak SSH as it should: {excerpt(repr(error))}", hint="see what listens there"
        ) from error
    finally:
        if not done:
            client.close()
    return client


def _transport(sock: socket.socket, **options: Any) -> paramiko.Transport:
    # Requests are small and many: none may wait until the answer to another is acknowledged.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    security.ciphers = [c for c in _CIPHERS if c in security.ciphers]
    return transport
