"""The way to servers, as the environment describes it: proxies, and whose certificates are trusted.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are read as the standard library reads them: in lower case, too, and on macOS
from the system's settings where no variable is set. A token only passes a proxy inside TLS (CONNECT, RFC 9110 9.3.6).
"""

from __future__ import annotations

import base64
import errno
import functools
import ipaddress
import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from symcache.client.urls import is_http_url
from symcache.errors import RemoteError

__all__ = ["Proxy", "UnreachableError", "proxy_for", "tls_context", "untrusted"]

_PROXY_HINT = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"


class UnreachableError(RemoteError):
    """No server responds there, or the way there is barred."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and what it wants to see before it lets anything through."""

    url: str
    """Without user and password: it may be shown."""
    authorization: str | None = None
    """Of the field Proxy-Authorization."""

    def failure(self, reason: str) -> UnreachableError:
        """Return the error for a proxy that does not do its part."""
        hint = "put user and password into the proxy's URL" if reason.startswith("407") else _PROXY_HINT
        return UnreachableError(f"the proxy {self.url}: {reason}", hint=hint)


def proxy_for(url: str, *, token: bool = False) -> Proxy | None:
    """Return the proxy for requests to `url`, or None. Raises UnreachableError if it would see a `token`."""
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - takes long to import, and is rarely needed

    target = urlsplit(url)
    host, scheme = target.hostname or "", target.scheme
    named = getproxies().get(scheme)
    if not named or proxy_bypass(host) or proxy_bypass(target.netloc.rpartition("@")[2]) or _is_excepted(host):
        return None
    proxy = _parse(named)
    if token and scheme != "https":
        raise UnreachableError(
            f"{scheme}://{target.netloc.rpartition('@')[2]}: the proxy {proxy.url} would see its token",
            hint=f"use https, or name {host} in NO_PROXY",
        )
    return proxy


def _parse(text: str) -> Proxy:
    text = text.strip()
    url = text if "://" in text else f"http://{text}"
    scheme, _, rest = url.partition("://")
    bare = f"{scheme}://{rest.rpartition('@')[2].partition('/')[0]}"
    if not is_http_url(url):
        raise UnreachableError(f"the proxy {bare} is none for HTTP", hint=f"{_PROXY_HINT}: write http://host:port")
    parts = urlsplit(url)
    if parts.username is None:
        return Proxy(bare)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(bare, f"Basic {base64.b64encode(credentials.encode()).decode()}")


def _is_excepted(host: str) -> bool:
    """Return whether NO_PROXY has a network that an address belongs to, which the standard library passes over."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for text in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(","):
        try:
            if "/" in text and address in ipaddress.ip_network(text.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


def tls_context() -> ssl.SSLContext | None:
    """Return the settings of TLS by which the system's certificates are trusted, or None where Python's own do that.

    Those of SSL_CERT_FILE are trusted in any case. Raises UnreachableError if it names no file of certificates.
    """
    file = os.environ.get("SSL_CERT_FILE")
    try:
        if file and not Path(file).is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if sys.platform not in {"darwin", "win32"} and ssl.get_default_verify_paths().cafile:
            return None  # OpenSSL's file is the system's; truststore would read it anew for every connection
        return _system_context(file)
    except OSError as error:  # SSLError is one
        raise UnreachableError(
            f"SSL_CERT_FILE: {file}: {error.strerror or error}",
            hint="name a file of certificates in PEM, or unset it",
        ) from error


@functools.lru_cache(maxsize=1)
def _system_context(file: str | None) -> ssl.SSLContext:
    import truststore  # noqa: PLC0415 - most systems do without

    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file:  # which macOS does not know of
        context.load_verify_locations(file)
    return context


def untrusted(server: str, error: ssl.SSLCertVerificationError) -> UnreachableError:
    """Return the error for a server whose certificate does not hold."""
    return UnreachableError(
        # What many failures are summed up by keeps this sentence, not the hint.
        f"{server}: its certificate is not accepted: {error.verify_message or error}; the authority that signed it"
        " belongs into the system's trust store, or into the file that SSL_CERT_FILE names",
        hint="is the authority that of your company's proxy? add it, or name it with SSL_CERT_FILE",
    )
