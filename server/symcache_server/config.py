"""The settings of a server."""

from __future__ import annotations

import ipaddress
import re
import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from symcache.dump import SourceTree
from symcache.errors import UsageError
from symcache_server.http.auth import Scope, TokenStore
from symcache_server.http.limits import Network

__all__ = ["ServerConfig"]

_LOOKUP_RATE, _UPLOAD_RATE = 200.0, 50.0
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^][:/@]+)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_LOCATION = re.compile(r"(?:/[A-Za-z0-9._-]{1,64}){1,8}")


@dataclass(frozen=True)
class ServerConfig:
    """Settings of one server; sizes in bytes, times in seconds."""

    library: str
    """Location of the library, as for `Library.open`."""
    cache_dir: Path
    """Folder of decoded files; bounded by `cache_bytes`, may be deleted at any time."""
    state_dir: Path
    """Folder of what the server has to remember: tokens, uploads, the log of misses, what the scrubber has read."""
    host: str = "127.0.0.1"
    host_names: tuple[str, ...] = ()
    """Further names under which clients reach a server on loopback, such as that of a proxy in front."""
    port: int = 8080
    """0: any free port."""
    processes: int = 1
    cache_bytes: int = 16 << 30
    public_reads: bool = False
    """Anybody who can connect may read. On loopback that is always so."""
    require_token: bool = False
    """Reading needs a token on loopback, too: for a server behind a proxy, where everybody comes from there."""
    releases: Path | None = None
    """The site's table of what releases should have."""
    refresh_seconds: float = 2.0
    stop_seconds: float = 30.0
    """How long downloads that are under way may take to finish when the server stops."""
    head_seconds: float = 30.0
    """How long the head of a request may take to come whole, and before it TLS's handshake."""
    body_seconds: float = 60.0
    """How long a client may send nothing of a request's body, or take nothing of a response."""
    max_connections: int = 10_000
    """Of one process; fewer where it may not open two files for each."""
    connections_of_one: int = 500
    """Of one process to one address, or one /64 of IPv6; this machine and `trusted_proxies` may have any number."""
    max_upload: int = 4 << 30
    max_uploads: int = 64 << 30
    """Of one file that is pushed, and of all that were sent but not yet added."""
    upstreams: tuple[str, ...] = ()
    """URLs of servers that are requested to send what the library does not have."""
    sources: tuple[SourceTree, ...] = ()
    """Where sources of own binaries lie; nothing else is served under `/source/`."""
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    """What upstream servers know this server by, so that a request never goes round in circles."""
    origins: tuple[str, ...] = ()
    """Of web pages that may have functions named here, such as `https://profiler.firefox.com`."""
    access_log: Path | None = None
    """File for one JSON object a request; `-`: standard error."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """PEM files of the certificate, with its chain, and of its private key: both or neither. HTTPS is spoken then."""
    trusted_proxies: tuple[Network, ...] = ()
    """Whose X-Forwarded-For is believed."""
    lookup_rate: float | None = None
    upload_rate: float | None = None
    """Requests a second of one client in the long run; 0 is no limit. None: a default, but none on loopback."""
    x_accel: str = ""
    """Path of the internal locations `decoded/` and `library/` of nginx, which must be among `trusted_proxies`."""
    redirect_to_store: bool = False
    """Clients that accept zstd get large bodies from the object store itself, by presigned URLs."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return _is_this_machine(self.host)

    def is_own_name(self, host: str) -> bool:
        """Return whether the Host field of a request names this server; an empty one does, since no browser sends that.

        Only checked on loopback: a web page may have its own name resolved to 127.0.0.1, and could then read responses
        as being of its own origin.
        """
        if not self.is_loopback or not host:
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").removesuffix(".").lower()
        return _is_this_machine(name) or name in {known.lower() for known in self.host_names}

    @cached_property
    def open_reads(self) -> bool:
        """Whether reading needs no token."""
        return self.public_reads or (self.is_loopback and not self.require_token)

    @property
    def tokens(self) -> Path:
        """File of the tokens."""
        return self.state_dir / "tokens.json"

    @property
    def rates(self) -> tuple[float, float]:
        """Return the limits of look-ups and uploads that hold, in requests a second; 0 is none."""
        local = self.is_loopback and not self.trusted_proxies
        lookups, uploads = (0.0, 0.0) if local else (_LOOKUP_RATE, _UPLOAD_RATE)
        return (
            lookups if self.lookup_rate is None else self.lookup_rate,
            uploads if self.upload_rate is None else self.upload_rate,
        )

    def without_paths(self, text: str) -> str:
        """Return a message to a client without the names of the server's folders."""
        for pattern, name in self._folders:
            text = pattern.sub(name, text)
        return text

    @cached_property
    def _folders(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """What messages must not name, and what they say instead."""
        is_url = "://" in self.library
        folders = [
            (self.library.rstrip("/") if is_url else str(Path(self.library).absolute()), "LIBRARY"),
            (str(self.cache_dir), "CACHE"),
            (str(self.state_dir), "STATE"),
            (tempfile.gettempdir(), "TMPDIR"),
        ]
        # Not what only begins or ends with the same letters, such as /srv/symbols2.
        patterns = [(rf"(?<![\w.-]){re.escape(folder)}(?![\w-])", name) for folder, name in folders if len(folder) > 1]
        if not is_url and not Path(self.library).is_absolute():
            # It may be a word of the sentence, such as `library`: only what lies in it is named by a path.
            patterns.append((rf"(?<![\w/.-]){re.escape(str(Path(self.library)))}(?=/)", "LIBRARY"))
        return tuple((re.compile(pattern), name) for pattern, name in patterns)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context, None for HTTP. Raises UsageError if the files are not a certificate and its key."""
        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise UsageError("TLS needs a certificate and its key", hint="give both --tls-cert and --tls-key")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        _load(context, self.tls_cert, self.tls_key)
        return context

    def renew(self, context: ssl.SSLContext) -> None:
        """Load certificate and key into `context` again, for new connections. Raises UsageError, as `tls`."""
        self.tls()  # before anything is changed
        if self.tls_cert is not None and self.tls_key is not None:
            _load(context, self.tls_cert, self.tls_key)

    def check(self) -> None:
        """Raise UsageError for settings that contradict each other or would expose the library unintentionally."""
        if self.public_reads and self.require_token:
            raise UsageError("--public-reads and --require-token contradict each other", hint="choose one of them")
        tokens = [t for t in TokenStore(self.tokens).all() if not t.has_expired]
        if not self.open_reads and not any(t.may(Scope.READ) for t in tokens):
            raise UsageError(
                f"{self.host}: reading needs a token there, and there is none that may read",
                hint="make a token with `symcache token create NAME`, or add --public-reads if everybody may read",
            )
        if self.x_accel and not _LOCATION.fullmatch(self.x_accel):
            raise UsageError(f"{self.x_accel[:80]!r}: not a path for --x-accel", hint="--x-accel /_symcache")
        if self.x_accel and not self.trusted_proxies:
            raise UsageError("--x-accel is for nginx in front", hint="name its address: --trust-proxy 127.0.0.1")
        if self.redirect_to_store and not self.library.startswith("s3://"):
            raise UsageError(
                f"{self.library}: lies in no object store, so nobody can be sent there",
                hint="leave out --redirect-to-store, or serve a library at s3://bucket/prefix",
            )
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"{origin[:80]!r}: not the origin of a web page", hint="https://profiler.firefox.com")
        self.tls()
        if self.processes < 1:
            raise UsageError(f"{self.processes} processes: at least one is needed")


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for file in (cert, key):
        if not file.is_file():
            raise UsageError(f"{file}: no such file", hint="name PEM files that the server's user can read")
    try:
        # Without a password at hand OpenSSL would ask the terminal for one.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{cert} and {key}: not a PEM certificate and its key without a passphrase: {error}",
            hint="check both with `openssl x509 -noout -in` and `openssl pkey -noout -in`",
        ) from error


def _is_this_machine(name: str) -> bool:
    """Return whether a name, or an address, stands for this machine on each."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
