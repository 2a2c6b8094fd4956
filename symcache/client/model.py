"""What servers respond."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from symcache.images import ImageFile
from symcache.kinds import Kind

__all__ = ["FetchedImage", "LayoutMatch", "LookupResponse", "StoredImage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedImage(ImageFile):
    """An image in the local cache, from the server at the URL `origin`: its length, hash and UUID were checked."""

    size: int
    """In bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One content that a server has under a UUID."""

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
class LookupResponse:
    """Response to one look-up of many images."""

    images: dict[UUID, list[StoredImage]] = field(default_factory=dict)
    """The contents of each image, preferred first; UUIDs that the server does not know are absent."""
    match: LayoutMatch = LayoutMatch.NONE
    caches: tuple[UUID, ...] = ()
    """The shared caches that fit; one of them if the match is unique."""
    slide: int | None = None
    """Bytes that the unique cache was loaded above the addresses it was built for."""
    server: str = ""
    sources: dict[UUID, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """What dSYMs note of their sources, as (recorded folder, place): whoever could write to the server wrote it."""
