"""macOS's Local Network privacy: it keeps programs from hosts of their own network until their user allows it.

From macOS 15 on such a connection fails at once with errno 65, "No route to host" (Apple's TN3179). Root, daemons, and
what runs in Terminal or over SSH are let through; agents of CI systems and other terminals are not.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
from collections.abc import Iterator

from symcache_provisioning.ssh.login import UnreachableError

__all__ = ["LocalNetworkError", "check_local_network"]

_NO_ROUTE = 65
"""EHOSTUNREACH in macOS's <sys/errno.h>."""
_DARWIN = 24
"""Of macOS 15."""
_HINT = (
    "allow the program that started this one under System Settings, Privacy & Security, Local Network, and start it"
    " anew; or run symcache in Terminal or over SSH. If it is allowed: see whether the machine is on,"
    " and has that address"
)


class LocalNetworkError(UnreachableError):
    """A host of the own network cannot be reached from a Mac, as where macOS keeps this program from it."""


def check_local_network(error: BaseException, host: str, port: int) -> None:
    """Raise LocalNetworkError if that is what an error of connecting is about."""
    if platform.system() != "Darwin" or os.geteuid() == 0 or int(platform.release().partition(".")[0] or 0) < _DARWIN:
        return
    if getattr(error, "errno", None) == _NO_ROUTE and any(map(_is_local, _addresses(host))):
        raise LocalNetworkError(
            f"{host} port {port} cannot be reached: no route to host (errno {_NO_ROUTE}), which is what macOS says"
            " where it keeps a program from the local network",
            hint=_HINT,
        ) from error


def _addresses(host: str) -> Iterator[str]:
    try:
        yield from {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return


def _is_local(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.is_private and not parsed.is_loopback
