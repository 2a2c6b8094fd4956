"""How often clients may send requests: one limit for look-ups, one for uploads.

Whoever brings a valid token is counted under its name, wherever it is used; all others under their address. Each
process of a server counts by itself: it grants its share of the rate, but the burst of the whole, since the kernel may
give it all connections of a client.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

from aiohttp import web

from symcache.errors import UsageError
from symcache_server.http.auth import Scope, Token

__all__ = [
    "Limits",
    "Network",
    "RateLimit",
    "charge",
    "client_address",
    "is_own",
    "is_proxy",
    "network_of",
    "parse_network",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HOPS = 32
_BURST_SECONDS = 30.0
"""Unused requests of so many seconds may be made at once: a dump loader wants a thousand binaries, and then none."""
_REMEMBERED = 1 << 16
"""Clients. Of more, those that have been quiet for longest are forgotten."""


class RateLimit:
    """At most `per_second` requests of one client in the long run, and `burst` of them at once, but always one.

    A generic cell rate algorithm (ITU-T I.371): one number a client, when all its requests would be done at the rate.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = 1 / per_second, clock
        self._slack = (max(burst, 1.0) - 1) * self._interval
        self._done_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, client: str, cost: int = 1) -> float:
        """Count a request of `client` and return 0, or return the seconds after which it may send one.

        What costs as much as several requests is let pass as one is, and what comes next has to wait for longer.
        """
        now = self._clock()
        done_at = max(now, self._done_at.pop(client, now))
        late = done_at - now - self._slack
        allowed = late <= 1e-9
        self._done_at[client] = done_at + cost * self._interval if allowed else done_at
        if len(self._done_at) > _REMEMBERED:
            self._done_at.popitem(last=False)
        return 0.0 if allowed else late


_COUNTED: web.RequestKey[tuple[RateLimit, str]] = (
    web.RequestKey("symcache.counted", tuple) if hasattr(web, "RequestKey") else cast(Any, "symcache.counted")
)
"""Key under which a request notes the limit and the client that it was counted under."""


class Limits:
    """The limits of look-ups and uploads in one of the `processes` of a server; a rate of 0 is none."""

    def __init__(self, lookups: float, uploads: float, proxies: Iterable[Network], processes: int = 1) -> None:
        self._lookups = RateLimit(lookups / processes, lookups * _BURST_SECONDS) if lookups else None
        self._uploads = RateLimit(uploads / processes, uploads * _BURST_SECONDS) if uploads else None
        self._proxies = frozenset(proxies)
        self.on = bool(lookups or uploads)

    def check(self, request: web.BaseRequest, token: Token | None, *, upload: bool) -> None:
        """Count a request. Raises HTTPTooManyRequests."""
        limit = self._uploads if upload else self._lookups
        if limit is None or (token and token.may(Scope.ADMIN)):
            return
        # No address has a space in it.
        client = f"token {token.name}" if token else network_of(client_address(request, self._proxies))
        request[_COUNTED] = limit, client
        _count(limit, client)


def charge(request: web.BaseRequest, cost: int) -> None:
    """Count a request that was let pass again, for what it turns out to cost. Raises HTTPTooManyRequests."""
    if (counted := request.get(_COUNTED)) and cost > 0:
        limit, client = counted
        _count(limit, client, cost)


def _count(limit: RateLimit, client: str, cost: int = 1) -> None:
    if late := limit.wait(client, cost):
        seconds = max(1, math.ceil(late))
        raise web.HTTPTooManyRequests(
            text=f"too many requests of {client}: ask again in {seconds} seconds\n",
            headers={"Retry-After": str(seconds)},
        )


def client_address(request: web.BaseRequest, proxies: frozenset[Network]) -> str:
    """Return the address of the client: the peer, or what a proxy that is named in `proxies` says in X-Forwarded-For.

    Each proxy appends whom it got the request from, so the last address that is none of theirs is the client's;
    whatever stands before it was written by the client.
    """
    address = request.remote or ""
    if not proxies or not is_proxy(address, proxies):
        return address
    hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    for hop in reversed(hops[-_MAX_HOPS:]):
        text = hop.strip()
        if _parse(text) is None:
            break
        address = text
        if not is_proxy(text, proxies):
            break
    return address


def parse_network(text: str) -> Network:
    """Return an address, or a network in CIDR notation. Raises UsageError."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise UsageError(f"{text[:80]!r}: not an address", hint="write 127.0.0.1, or 10.0.0.0/8") from None


def is_own(address: str) -> bool:
    """Return whether an address is this machine's loopback."""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


@lru_cache(1 << 12)
def is_proxy(address: str, proxies: frozenset[Network]) -> bool:
    """Return whether an address is one of `proxies`."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in proxies)


@lru_cache(1 << 12)
def network_of(address: str) -> str:
    """Return the network that one client has for itself: its address, or with IPv6 a whole /64."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed) if parsed else address


@lru_cache(1 << 12)
def _parse(text: str) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed
