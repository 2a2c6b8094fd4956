"""Connecting to an SSH server: the host key is checked before any credential is sent."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import paramiko
import tenacity

from symcache.errors import HostKeyError
from symcache.text import excerpt
from symcache_provisioning.ssh.authentication import Authentication
from symcache_provisioning.ssh.config import SshHost
from symcache_provisioning.ssh.host_keys import HostKeyPolicy, HostKeyTrust, JumpKeyError
from symcache_provisioning.ssh.links import Link, open_link
from symcache_provisioning.ssh.local_network import check_local_network
from symcache_provisioning.ssh.login import Login, SshTarget, Timeouts, UnreachableError

__all__ = ["connect"]

# Without a handler of its own, paramiko's complaints about broken peers would be printed by Python itself.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""GCM first: it is several times faster in paramiko than CTR with a separate MAC."""


class _TransientError(UnreachableError):
    """Another attempt may succeed: a guest that still boots, a network that drops packets."""


class _Client(paramiko.SSHClient):  # type: ignore[misc]  # paramiko has no types
    """A client that ends what its connection goes through, too."""

    link: Link | None = None

    def close(self) -> None:
        """See SSHClient."""
        super().close()
        if self.link is not None:
            self.link.close()


def connect(
    target: SshTarget, trust: HostKeyTrust, login: Login, timeouts: Timeouts, announce: Callable[[str], None]
) -> paramiko.SSHClient:
    """Return a connected client, after as many attempts as `timeouts` allows. `announce` is called for new host keys.

    Raises HostKeyError when the host has another key than the one we know, RemoteError when it cannot be reached or
    refuses us; LocalNetworkError at once; JumpKeyError and others for a host on the way.
    """
    host = target.ssh_host
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(timeouts.attempts),
        wait=tenacity.wait_exponential(timeouts.backoff, 20) + tenacity.wait_random(0, timeouts.backoff / 2),
        retry=tenacity.retry_if_exception_type(_TransientError),
        reraise=True,
    )(_connect_once, host, trust, login, timeouts, announce)


def _connect_to_jump(
    jump: SshHost, host: SshHost, trust: HostKeyTrust, login: Login, timeouts: Timeouts, announce: Callable[[str], None]
) -> paramiko.SSHClient:
    """Connect to a host on the way with what ssh_config(5) says of it; nothing that was named is meant for it."""
    try:
        return _connect_once(jump, replace(trust, pin=None), Login(agent=login.agent), timeouts, announce)
    except HostKeyError as error:
        hint = f"compare it there with ssh-keygen -lf, then have it stored: ssh {jump.name}"
        raise JumpKeyError(f"on the way to {host.name}: {error}", hint=hint) from error
    except UnreachableError as error:
        hint = f"try `ssh {jump.name}`; its user and key are those of ~/.ssh/config"
        raise type(error)(f"on the way to {host.name}: {error}", hint=hint) from error


def _connect_once(
    host: SshHost, trust: HostKeyTrust, login: Login, timeouts: Timeouts, announce: Callable[[str], None]
) -> paramiko.SSHClient:
    where = host.where
    client = _Client()
    policy = HostKeyPolicy(trust.with_known_hosts(host.known_hosts), host.known_as, announce)
    client.set_missing_host_key_policy(policy)
    authentication = Authentication(host, login)
    done = False
    try:
        client.link = open_link(
            host,
            timeouts.connect,
            lambda jump: _connect_to_jump(jump, host, trust, login, timeouts, announce),
        )
        client.connect(
            host.address,
            host.port,
            host.user,
            sock=client.link.stream,
            auth_strategy=authentication,
            banner_timeout=timeouts.connect,
            auth_timeout=timeouts.reply,
            channel_timeout=timeouts.reply,
            transport_factory=partial(_transport, policy),
        )
        client.get_transport().set_keepalive(timeouts.keepalive)
        done = True
    except paramiko.SSHException as error:
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            raise UnreachableError(
                f"{where} speaks no SSH algorithm that is still thought safe: {excerpt(str(error))}",
                hint="update the host's SSH server",
            ) from error
        if host.command:
            raise _command_error(host, client.link, error) from error
        raise _TransientError(
            f"{where} did not complete the SSH handshake: {excerpt(str(error))}",
            hint="check that an SSH server listens there (Remote Login) and is not overloaded",
        ) from error
    except socket.gaierror as error:
        raise UnreachableError(
            f"{host.address}: no such host: {error.strerror}", hint="check the spelling of the host name"
        ) from error
    except (OSError, EOFError) as error:
        if host.command:
            raise _command_error(host, client.link, error) from error
        check_local_network(error, host.address, host.port)
        silent = "it closed the connection" if isinstance(error, EOFError) else "timed out"
        raise _TransientError(
            f"{where} cannot be reached: {excerpt(getattr(error, 'strerror', None) or str(error) or silent)}",
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


def _command_error(host: SshHost, link: Link | None, error: Exception) -> _TransientError:
    complaint = (link.complaint if link else "") or excerpt(str(error)) or "it ended"
    return _TransientError(
        f"{host.where}: ProxyCommand `{excerpt(host.command)}` gives no connection: {complaint}",
        hint="run that command: it should print what the SSH server there begins with",
    )


def _transport(policy: HostKeyPolicy, stream: Any, **options: Any) -> paramiko.Transport:
    transport = paramiko.Transport(stream, **options)
    security = transport.get_security_options()
    security.ciphers = [c for c in _CIPHERS if c in security.ciphers]
    policy.prefer(transport)
    return transport
