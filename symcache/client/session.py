"""The HTTP session of everything that asks servers: how long it waits for them, and where they may send it.

A redirect is followed to the host that was asked, whatever the port; to the one that a symcache server announces with
it, unless that leads from a public address to a private one; and to those that `SYMCACHE_REDIRECT_HOSTS` names. Never
from https to http. aiohttp sends a token to no other origin than the one that was asked. Proxies and certificates are
those of `symcache.client.network`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from symcache import __version__
from symcache.client.network import proxy_for, tls_context, untrusted
from symcache.errors import RemoteError

__all__ = ["RedirectError", "http_session", "refused"]

_MOST_REDIRECTS = 5
_HEAD_SECONDS = 120.0
"""For the head of a response, however it trickles in. A server may decode a large file before its first byte."""


class RedirectError(RemoteError):
    """A server sends us where we do not follow. `announces` says that its version announces where it sends clients."""

    def __init__(self, message: str, *, hint: str = "", announces: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.announces = announces


def refused(url: str, response: aiohttp.ClientResponse) -> RemoteError:
    """Return the error for 401 and 403. Its one sentence says what to do, since of many requests only that is shown."""
    return RemoteError(
        f"{url}: does not let us read: {response.status} {response.reason};"
        " a token that may read goes into the URL, as in https://any:TOKEN@host",
        hint="ask for a token where the server runs: `symcache token create NAME`",
    )


def http_session(
    *,
    connections: int = 16,
    connect_seconds: float = 10.0,
    read_seconds: float = 90.0,
    total_seconds: float | None = None,
    limit_head: bool = True,
    headers: Mapping[str, str] | None = None,
) -> aiohttp.ClientSession:
    """Return a session; its requests raise RedirectError and UnreachableError, besides what aiohttp raises.

    Bodies come as they are sent, be they compressed. `read_seconds` may pass without a byte; without `limit_head` a
    server may take its time to respond, as it does to a long upload.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    return aiohttp.ClientSession(
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total_seconds, sock_connect=connect_seconds, sock_read=read_seconds),
        headers={"User-Agent": f"symcache/{__version__}", "Accept-Encoding": "identity"} | dict(headers or {}),
        connector=aiohttp.TCPConnector(limit=connections, ssl=tls_context() or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        middlewares=[_limit_head, _by_proxy] if limit_head else [_by_proxy],
    )


async def _by_proxy(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request by the proxy that the environment names, and tell its failures, and those of TLS, from others."""
    # Not aiohttp's trust_env, which would send passwords of ~/.netrc, too.
    proxy = proxy_for(str(request.url), token="Authorization" in request.headers)
    if proxy is not None:
        credentials = CIMultiDict({"Proxy-Authorization": proxy.authorization} if proxy.authorization else {})
        request.update_proxy(URL(proxy.url), None, credentials)
        if request.url.scheme == "http":
            request.headers.update(credentials)
    try:
        response = await handler(request)
    except aiohttp.ClientConnectorCertificateError as error:
        if not isinstance(error.certificate_error, ssl.SSLCertVerificationError):
            raise
        raise untrusted(str(request.url.origin()), error.certificate_error) from error
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
        if proxy is None:
            raise
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            raise proxy.failure(f"cannot be reached: {error.strerror}") from error
        reason = f"{error.status} {error.message}, not a connection to {request.url.origin()}"
        if error.status < 500:
            raise proxy.failure(reason) from error
        raise aiohttp.ClientConnectionError(f"the proxy {proxy.url}: {reason}") from error  # may work another time
    if proxy is not None and response.status == 407:
        response.close()
        raise proxy.failure(f"407 {response.reason}")
    return response


async def _limit_head(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        async with asyncio.timeout(_HEAD_SECONDS) as limit:
            return await handler(request)
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"no response within {_HEAD_SECONDS:g} seconds") from error
        raise


async def _check_redirect(
    _: aiohttp.ClientSession, context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    """Refuse what is not to be followed, before anything is sent there. Raises RedirectError."""
    response, source = redirect.response, redirect.response.url
    hosts: list[str | None] = vars(context).setdefault("hosts", [])
    hosts.append(source.host)
    if len(hosts) > _MOST_REDIRECTS:
        raise RedirectError(f"{source.origin()}: more than {_MOST_REDIRECTS} redirects in a row")
    target = _target(response)
    if target is None:
        return  # aiohttp does not follow it either
    if target.scheme not in {"http", "https"}:
        raise RedirectError(
            f"{source.origin()}: redirects to an address of {target.scheme}:, and not of a web server",
            hint="tell whoever runs the server",
        )
    where = f"{source.origin()}: redirects to {target.scheme}://{target.raw_host}"
    if target.scheme != "https" and source.scheme == "https":
        raise RedirectError(f"{where}, and https is only left for https", hint="tell whoever runs the server")
    host = target.host or ""
    if host == source.host or host in os.environ.get("SYMCACHE_REDIRECT_HOSTS", "").lower().split():
        return
    announced = response.headers.get("X-Symcache-Redirect-Host") if source.host == hosts[0] else None
    if announced != host:
        raise RedirectError(
            f"{where}, another host, which it does not announce",
            hint=f"if that is where its files lie: SYMCACHE_REDIRECT_HOSTS={target.raw_host}",
            announces=announced is not None or "X-Symcache-Version" not in response.headers,
        )
    try:
        inwards = await _may_be_public(source) and not await _may_be_public(target)
    except OSError as error:
        raise RedirectError(f"{where}, whose address cannot be had: {error}") from error
    if inwards:
        raise RedirectError(
            f"{where}, from a public address to a private one",
            hint=f"if that is where its files lie: SYMCACHE_REDIRECT_HOSTS={target.raw_host}",
        )


def _target(response: aiohttp.ClientResponse) -> URL | None:
    """Return where a response redirects to, as aiohttp understands it, or None if it refuses that by itself."""
    location = response.headers.get("Location") or response.headers.get("URI")
    try:
        return response.url.join(URL(location)) if location else None
    except ValueError:
        return None


async def _may_be_public(url: URL) -> bool:
    """Do as `_is_public`, and take a host that only the proxy can find for one outside of its network."""
    try:
        return await _is_public(url.host or "")
    except OSError:
        if proxy_for(str(url)) is None:
            raise
        return True


async def _is_public(host: str) -> bool:
    """Return whether every address of a host is reachable from the whole internet. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
