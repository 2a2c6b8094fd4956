"""Who may read and who may write: every handler declares what it requires, and no other one ever runs.

Reads are open where only this machine can connect, or where the operator says so; everything else needs a token.
Clients send it as `Authorization: Bearer TOKEN`, or as the password of a URL (`https://any:TOKEN@host`), which stock
debuggers pass on as Basic authentication. Only hashes are kept: a token has 256 random bits, so a plain hash suffices.

Some clients send no credentials, such as the Firefox Profiler. They get a token without a scope: it may have functions
named and nothing else, and stands in the path, `/names/TOKEN/symbolicate/v5`. No log gets that part of a path.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from symcache.errors import NotFoundError, StorageError, UsageError
from symcache.files import atomic_write, file_lock
from symcache.model import Sha256

__all__ = [
    "PATH_PREFIX",
    "Scope",
    "Token",
    "TokenStore",
    "path_for_logs",
    "required_scope",
    "requires",
    "token_of",
    "wait_for_access",
]

PATH_PREFIX = "/names/{token}"
"""What stands before a path, for a token in it."""

_LOOK_SECONDS = 1.0
_PATH_TOKEN = re.compile(r"(/names/)[^/?]{20,}")
"""In raw paths; longer than any word that may stand there instead of a token."""
_REQUIRED = "required_scope"
_Handler = TypeVar("_Handler", bound=Callable[[web.Request], Awaitable[web.StreamResponse]])


class Scope(StrEnum):
    """What a token allows; each includes those before it."""

    READ = "read"
    """Look up and fetch binaries, have functions named, see the pages and what nobody had."""
    WRITE = "write"
    """Add binaries, and read. Nothing can be removed or preferred over HTTP, by nobody."""
    ADMIN = "admin"
    """Watch over the server, too: see who has tokens, and send any number of requests."""


def requires(scope: Scope | None) -> Callable[[_Handler], _Handler]:
    """Declare the scope that a handler requires. None: anybody may have it run, without a limit."""

    def declare(handler: _Handler) -> _Handler:
        setattr(handler, _REQUIRED, scope)
        return handler

    return declare


def required_scope(handler: object) -> Scope | None:
    """Return what a handler has declared by `requires`. Raises LookupError where it has declared nothing."""
    try:
        scope: Scope | None = getattr(handler, _REQUIRED)
    except AttributeError:
        raise LookupError(f"{handler}: declares by no `requires` who may have it run") from None
    return scope


class Token(BaseModel):
    """One token as it is kept."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: Sha256
    scopes: frozenset[Scope]
    """An empty set: it is valid in a path only, and has functions named. Versions before 0.2 let it do nothing."""
    created: str
    expires: str | None = None
    """When it stops being valid, UTC, ISO 8601; None for never. Versions before 0.2 ignore it."""

    @property
    def has_expired(self) -> bool:
        """Whether it is not valid any more."""
        return self.expires is not None and datetime.now(UTC) >= datetime.fromisoformat(self.expires)

    @property
    def is_for_paths(self) -> bool:
        """Whether it counts as a part of a path, and nowhere else."""
        return not self.scopes

    def may(self, scope: Scope) -> bool:
        """Return whether it allows what needs `scope`."""
        order = list(Scope)
        return any(order.index(own) >= order.index(scope) for own in self.scopes)


_TOKENS = TypeAdapter(list[Token])
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class TokenStore:
    """The tokens in one file, which only its owner can read. A running server sees changes within a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_hash: dict[str, Token] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0

    def all(self) -> list[Token]:
        """Return every token, by name. Raises StorageError."""
        try:
            return sorted(_TOKENS.validate_json(self._path.read_bytes()), key=lambda t: t.name)
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise StorageError(f"{self._path}: not readable as tokens", hint="restore or delete this file") from error

    def create(self, name: str, scopes: Iterable[Scope], expires: datetime | None = None) -> str:
        """Add a token and return its text, which is never returned again. Raises UsageError for a name in use.

        Without scopes, it counts in a path alone.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r}: not a name for a token", hint="letters, digits and . _ @ -")
        text = secrets.token_urlsafe(32)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._locked():
            tokens = self.all()
            if any(t.name == name for t in tokens):
                raise UsageError(
                    f"{name}: there is a token of this name", hint="revoke it first, or choose another name"
                )
            end = expires.astimezone(UTC).isoformat(timespec="seconds") if expires else None
            token = Token(name=name, sha256=_hash(text), scopes=frozenset(scopes), created=now, expires=end)
            self._write([*tokens, token])
        return text

    def revoke(self, name: str) -> None:
        """Forget a token. Raises NotFoundError."""
        with self._locked():
            tokens = self.all()
            left = [t for t in tokens if t.name != name]
            if len(left) == len(tokens):
                raise NotFoundError(f"{name[:80]!r}: no such token", hint="`symcache token list` shows them")
            self._write(left)

    def find(self, text: str) -> Token | None:
        """Return the token that a client sent, or None; it may have expired. Raises StorageError."""
        if self._is_due():
            self._look()
        return self._by_hash.get(_hash(text))

    async def follow(self) -> None:
        """Read the file again in a thread if that is due, so that `find` does not have to. Raises StorageError."""
        if self._looked and self._is_due():
            self._looked = time.monotonic()  # one looks; the others take what was there
            await asyncio.to_thread(self._look)

    def _is_due(self) -> bool:
        return time.monotonic() - self._looked > _LOOK_SECONDS

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if stamp != self._stamp or stamp is None:
            self._by_hash = {t.sha256: t for t in self.all()}
            self._stamp = stamp

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the tokens: one of two changes at the same time would be lost."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self._path.with_suffix(".lock")):
                yield
        except OSError as error:
            raise StorageError(
                f"{self._path}: {error.strerror or error}", hint="check who owns the folder, and the free space"
            ) from error

    def _write(self, tokens: list[Token]) -> None:
        """Raises OSError."""
        data = json.dumps([t.model_dump(mode="json", exclude_none=True) for t in tokens], indent=2)
        with atomic_write(self._path, mode=0o600) as part:
            part.write_text(data + "\n")


async def wait_for_access(request: web.Request) -> None:
    """Leave it to the middleware to say `100 Continue` (aiohttp: `expect_handler`): who may not send does not begin to.

    Raises HTTPExpectationFailed for what else is expected (RFC 9110, 10.1.1).
    """
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="nothing but 100-continue can be expected\n")


def token_of(request: web.BaseRequest) -> str | None:
    """Return the token that a request carries, or None."""
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2] or None
        except ValueError:  # no base64, or no UTF-8 in it
            return None
    return None


def path_for_logs(path: str) -> str:
    """Return the path of a request, as it came, without a token in it."""
    return _PATH_TOKEN.sub(r"\1...", path)


def _hash(text: str) -> str:
    # Header fields may hold any bytes; those that are not UTF-8 arrive as surrogates.
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
