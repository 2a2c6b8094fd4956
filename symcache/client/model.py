"""What is asked of servers, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.kinds import Kind, uuid_text

__all__ = ["FetchedSymbol", "Held", "Holdings", "LayoutMatch", "SourceRequest", "SymbolRequest"]


@dataclass(frozen=True, slots=True)
class SymbolRequest:
    """One binary that is wanted; `cache` and `build` narrow to one shared cache's layout or one release.

    With both, the cache decides: it is the more exact of the two.
    """

    uuid: UUID
    kind: Kind = Kind.EXECUTABLE
    cache: UUID | None = None
    build: str | None = None

    def __str__(self) -> str:
        """Return e.g. `executable 23516BE4-… (cache …)`."""
        pin = f" (cache {uuid_text(self.cache)})" if self.cache else f" (build {self.build})" if self.build else ""
        return f"{self.kind} {uuid_text(self.uuid)}{pin}"


class SourceRequest(NamedTuple):
    """One source file that is wanted: a binary, and the absolute path that its compiler recorded."""

    uuid: UUID
    path: str

    def __str__(self) -> str:
        """Return e.g. `/Users/dev/main.c of 23516BE4-…`."""
        return f"{self.path} of {uuid_text(self.uuid)}"


@dataclass(frozen=True, slots=True)
class FetchedSymbol:
    """One binary in the local cache: its length, hash and UUID were checked. The file is never changed."""

    path: Path
    size: int
    """In bytes."""
    sha256: str
    """Of the file, lower-case hex."""
    build: str | None
    """The macOS build that the server took it from; None where it did not say."""
    cache_uuid: UUID | None
    """The shared cache whose layout it has; None for a plain file, or where the server did not say."""
    server: str
    """URL of the server that it came from."""


@dataclass(frozen=True, slots=True)
class Held:
    """One content that a server holds under a UUID."""

    kind: Kind
    size: int
    sha256: str
    arch: str
    path: str
    build: str | None
    cache_uuid: UUID | None


class LayoutMatch(StrEnum):
    """How many shared caches have exactly the layout of the load addresses that were given."""

    UNIQUE = "unique"
    AMBIGUOUS = "ambiguous"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Holdings:
    """Answer to one batch look-up."""

    images: dict[UUID, list[Held]] = field(default_factory=dict)
    """What is held, preferred first; UUIDs that the server does not know are absent."""
    match: LayoutMatch = LayoutMatch.NONE
    caches: tuple[UUID, ...] = ()
    """The shared caches that fit; one of them if the match is unique."""
    slide: int | None = None
    """Bytes that the unique cache was loaded above the addresses it was built for."""
    server: str = ""
    sources: dict[UUID, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """What dSYMs note of their sources, as (recorded folder, place): whoever could write to the server wrote it."""
