"""What goes over the wire; also the schemas of the OpenAPI document."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from symcache.client import LayoutMatch
from symcache.client.wire import (
    Added,
    Coverage,
    CoverageFinding,
    Missing,
    MissingImage,
    Release,
    Releases,
    Response,
    Upload,
    UuidText,
)
from symcache.macho import MAX_SOURCE_NOTES
from symcache.model import Kind, Sha256, SourceNote
from symcache_server.http.auth import Scope

__all__ = [
    "MAX_IMAGES",
    "AddQuery",
    "Added",
    "Content",
    "Coverage",
    "CoverageFinding",
    "Error",
    "HeldImage",
    "Holdings",
    "ImageQuery",
    "Images",
    "Layout",
    "Missing",
    "MissingImage",
    "NameQuery",
    "Release",
    "Releases",
    "ReportForm",
    "ReportQuery",
    "Upload",
    "UuidsQuery",
]

MAX_IMAGES = 10_000


def _number(value: object) -> object:
    """Let pass what JSON Schema takes for a number: `5.0` is an integer there, `"5"` and `true` are not."""
    if isinstance(value, str | bool):
        raise ValueError("must be an integer")
    return value


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageQuery(_Request):
    """One image of a request."""

    uuid: UUID
    load_address: Annotated[int | None, BeforeValidator(_number)] = Field(default=None, ge=0, lt=1 << 64)
    """Address of its Mach-O header in the process."""


class UuidsQuery(_Request):
    """Up to 10,000 images at once."""

    images: Annotated[list[ImageQuery], FailFast()] = Field(max_length=MAX_IMAGES)
    note_missing: bool = Field(default=True, strict=True)
    """False for a check: nobody wants what it names, so what is not held does not count as missing."""


class Content(Response):
    """One content that the library holds."""

    # Fields are named as those of Occurrence, which it is made of.
    kind: Kind
    size: int
    """Bytes."""
    sha256: Sha256
    arch: str
    path: str
    build: str | None
    version: str
    cache_uuid: UuidText | None
    extractor: str
    revision: int
    sealed: bool
    """The harvest that it came with is known to be whole."""


class HeldImage(Response):
    """An image and its contents, preferred first; none when nobody has it."""

    uuid: UuidText
    contents: list[Content]
    sources: list[SourceNote] = Field(default=[])
    """What its dSYM notes of its sources: folders of machines that the server does not know."""


class Layout(Response):
    """Which shared caches have exactly the layout of the load addresses."""

    match: LayoutMatch
    caches: list[UuidText]
    slide: int | None
    """Bytes; only where one cache fits."""


class Holdings(Response):
    """Response to `UuidsQuery`, in its order."""

    images: list[HeldImage]
    layout: Layout | None
    """None when no load addresses were given."""


class NameQuery(_Request):
    """Parameters of a search by name."""

    name: str = Field(min_length=1, max_length=1024)
    limit: int = Field(default=100, ge=1, le=1000)


class Images(Response):
    """Images that have a name."""

    images: list[HeldImage]
    more: bool = Field(default=False, description="There are more than these, or more contents of them.")


class ReportForm(StrEnum):
    """What a crash report is returned as."""

    JSON = "json"
    """As `symcache symbolicate --json` prints it."""
    TEXT = "text"
    """In the layout of Apple's text."""
    REPORT = "report"
    """As it was sent, byte for byte, but for the names."""


class ReportQuery(_Request):
    """Parameters of a crash report's naming."""

    form: ReportForm = ReportForm.JSON


class IssuedToken(Response):
    """One token: whom it is for and what it allows. The token itself is not kept."""

    name: str
    scopes: list[Scope]
    created: str
    expires: str | None = None


class Tokens(Response):
    """Who may do what here."""

    tokens: list[IssuedToken]


class AddedFile(_Request):
    """One file that was sent, and the path that it has where it comes from."""

    sha256: Sha256
    path: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")
    """What it is called from now on, such as its path within a bundle."""
    sources: list[SourceNote] = Field(default=[], max_length=MAX_SOURCE_NOTES)
    """What a dSYM notes of its sources."""


class AddQuery(_Request):
    """Files to add to the library by one record."""

    images: Annotated[list[AddedFile], FailFast()] = Field(min_length=1, max_length=MAX_IMAGES)


class Error(Response):
    """Why a request failed."""

    error: str
    hint: str
