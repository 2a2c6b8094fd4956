"""Documents of a server's API that symcache itself reads: one model each for who writes and who reads it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from symcache.model import Kind, Sha256, uuid_text

__all__ = [
    "Added",
    "AddedImage",
    "Coverage",
    "CoverageFinding",
    "Missing",
    "MissingImage",
    "Release",
    "Releases",
    "Response",
    "Upload",
    "UuidText",
]

UuidText = Annotated[UUID, PlainSerializer(uuid_text, return_type=str)]


class Response(BaseModel):
    """What a server sends. Fields that a reader does not know are passed over."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Release(Response):
    """One macOS build."""

    # Fields are named as those of ReleaseRow, which it is made of.
    product: str
    version: str
    extra: str
    build: str
    sealed: bool
    harvests: int
    images: int
    """Different UUIDs of what is stored."""
    listed: int | None = None
    """Images that it has, stored or not; None from a server that does not tell."""


class Releases(Response):
    """All builds, newest first."""

    releases: list[Release]


class CoverageFinding(Response):
    """One thing that a release lacks; what does not apply is empty."""

    code: str
    text: str
    path: str
    arch: str
    uuid: str
    cache_uuid: str
    elsewhere: bool | None = None
    """Nothing is wrong with what was harvested: other hosts have this, and none of those was. None from a server that
    does not tell."""


class Coverage(Response):
    """Whether a release is complete, as far as the catalog tells."""

    build: str
    complete: bool
    # Not a Literal: readers of today should not refuse what servers may look at one day.
    level: str = Field(json_schema_extra={"const": "catalog"})
    images: int
    """How many were expected."""
    findings: list[CoverageFinding]


class MissingImage(Response):
    """Something that was asked for and nobody had; times are UTC."""

    uuid: UuidText
    kind: str
    cache_uuid: UuidText | None
    build: str | None
    times: int
    first_asked: str
    last_asked: str
    name: str
    """File name, or empty where nobody told one."""


class Missing(Response):
    """What was asked for most often."""

    missing: list[MissingImage]


class Upload(Response):
    """How much of a file was received."""

    offset: int
    """Bytes."""
    complete: bool
    """All of it is here and has the right hash."""


class AddedImage(Response):
    """One image that is in the library now."""

    uuid: UuidText
    kind: Kind
    arch: str
    sha256: Sha256
    path: str


class Added(Response):
    """What was added."""

    record: str
    images: list[AddedImage]
    problems: list[str]
