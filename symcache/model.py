"""The words of the project as types: what a harvest found, what a record keeps.

All of these are immutable. The pydantic models are what is written into harvest records, so their JSON form
is a file format: fields are only ever added, with a default, and `HarvestRecord.schema_version` counts
changes that an older reader would misunderstand.

Three types of record exist. A harvest says what was found and stored; a tombstone takes records back; a preference
is a person's decision between contents. None is ever changed or deleted: what a library holds is what the *set* of its
records says, in whatever order they are read.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from symcache.kinds import MACOS, SIMULATOR, Kind, ReleaseId, canonical_product, uuid_text

__all__ = [
    "APPLE_BUILD",
    "BUILD_PATTERN",
    "MACOS",
    "SIMULATOR",
    "CacheFile",
    "CollectionEntry",
    "HarvestRecord",
    "ImageKey",
    "Kind",
    "ManifestEntry",
    "ObjectEntry",
    "Origin",
    "PreferenceRecord",
    "Record",
    "Release",
    "ReleaseId",
    "Sha256",
    "Size",
    "SourceNote",
    "TombstoneRecord",
    "Trust",
    "canonical_product",
    "encodable",
    "is_build_name",
    "uuid_text",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 as 64 lower-case hex digits, of the content before compression."""


Size = Annotated[int, Field(ge=0, lt=1 << 62)]
"""In bytes; fits into what SQLite and file systems count with."""


def encodable(text: str) -> str:
    """Return text from a file system or a cache with what is no UTF-8 written as `\\udc80`, fit for a record."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Origin(StrEnum):
    """Where the source keeps an image."""

    CACHE = "cache"
    """Inside a dyld shared cache."""
    FILE = "file"
    """A plain file on disk."""


class Trust(StrEnum):
    """Who vouches for a record, strongest first."""

    HARVEST = "harvest"
    ADDED = "added"
    PUSHED = "pushed"


class ImageKey(NamedTuple):
    """The identity of an image: contents with the same key contradict each other if they differ.

    In the key of what a manifest lists, nobody has extracted it yet: `extractor` is empty and `revision` 0.
    """

    uuid: UUID | None
    kind: Kind
    cache_uuid: UUID | None = None
    """The shared cache that it lies in."""
    extractor: str = ""
    revision: int = 0

    @property
    def listed(self) -> ImageKey:
        """The key by which a manifest lists it, whoever extracted it."""
        return ImageKey(self.uuid, self.kind, self.cache_uuid)


class _Frozen(BaseModel):
    # Unknown fields are ignored: an older reader must be able to read a newer record of its schema version.
    model_config = ConfigDict(frozen=True, extra="ignore")


BUILD_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
"""What a build may be called."""
APPLE_BUILD = r"[0-9]{1,3}[A-Z][0-9]{1,6}[a-z]?"
"""What Apple calls one, to be a part of other patterns: `22G120`, `26A5353q`."""


def is_build_name(build: str) -> bool:
    """Return whether a build may be called so, and a folder in a store after it: neither is called `.` or `..`."""
    return bool(re.fullmatch(BUILD_PATTERN, build)) and build not in {".", ".."}


class Release(_Frozen):
    """One release of macOS or another system. Product and build name it; RSRs differ in `extra` and build."""

    product: str = Field(default=MACOS, max_length=64)
    version: str = Field(max_length=64)
    extra: str = Field(default="", max_length=64)
    build: str = Field(pattern=BUILD_PATTERN)

    @property
    def id(self) -> ReleaseId:
        """What it is known by."""
        return ReleaseId(canonical_product(self.product), self.build)

    def __str__(self) -> str:
        """Return e.g. `macOS 13.3.1 (a) (22E772610a)`."""
        extra = f" {self.extra}" if self.extra else ""
        return f"{self.product} {self.version}{extra} ({self.build})"


class ManifestEntry(_Frozen):
    """One image that the source says it has: the measure of completeness."""

    path: str
    arch: str
    uuid: UUID | None = None
    """None for an image without LC_UUID: it is stored, but nobody can ask for it."""
    kind: Kind = Kind.EXECUTABLE
    origin: Origin = Origin.FILE
    cache_uuid: UUID | None = None

    @property
    def key(self) -> ImageKey:
        """Its identity."""
        return ImageKey(self.uuid, self.kind, self.cache_uuid)


class SourceNote(_Frozen):
    """Where a dSYM says that sources are which its compiler found in the folder `recorded`."""

    recorded: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")
    place: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")
    """A folder, or `git:REPOSITORY@REVISION`."""


class CollectionEntry(_Frozen):
    """An image inside a collection of kernel and kernel extensions, by its name there: `com.apple.kernel`."""

    name: str = Field(max_length=1024)
    uuid: UUID | None = None


class ObjectEntry(_Frozen):
    """One stored content."""

    path: str
    arch: str
    uuid: UUID | None
    kind: Kind = Kind.EXECUTABLE
    origin: Origin = Origin.FILE
    cache_uuid: UUID | None = None
    extractor: str = ""
    """Who made these bytes from a cache: `symcache`, `dyld_shared_cache_util`; empty for a plain file."""
    revision: int = Field(default=0, ge=0, lt=1 << 31)
    sha256: Sha256
    size: Size
    symbols: int | None = Field(default=None, ge=0, lt=1 << 32)
    """Entries of its symbol table; of two files with the same code, the one with more outranks the stripped one."""
    code: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """First 64 bits of the SHA-256 of `__TEXT,__text`: tells a stripped twin from a rival. Empty without code."""
    sources: tuple[SourceNote, ...] = Field(default=(), max_length=256)
    """What its dSYM bundle says of its sources; it is no part of the content."""
    entries: tuple[CollectionEntry, ...] = Field(default=(), max_length=8192)
    """What it holds, if it is a kernel collection."""

    @property
    def key(self) -> ImageKey:
        """Its identity."""
        return ImageKey(self.uuid, self.kind, self.cache_uuid, self.extractor, self.revision)


class CacheFile(_Frozen):
    """One raw file of a shared cache, kept as proof and as source for later extractors."""

    name: str
    cache_uuid: UUID | None
    """The UUID of the main file: what the whole cache is known by."""
    arch: str
    path: str
    sha256: Sha256
    size: Size
    partial: bool = False
    """Only headers and tables were kept: proof of what the cache holds, but nothing can be extracted from it."""


class HarvestRecord(_Frozen):
    """One run over a source: written once, never changed."""

    type: Literal["harvest"] = "harvest"
    schema_version: int = 1
    supersedes: tuple[Sha256, ...] = ()
    """Ids of earlier records that this one replaces: the partial harvests that it continues."""
    trust: Trust = Trust.HARVEST
    release: Release | None = None
    """None for binaries that belong to no macOS release (`symcache add`)."""
    source: str = ""
    host: str = Field(default="", max_length=4096)
    """Which Mac it was: its model identifier (`Mac14,8`), or the products that a firmware is for, apart by spaces;
    empty if unknown."""
    archs: tuple[str, ...] = ()
    """Architectures that the harvest was restricted to by whoever ran it; all, if empty."""
    lacks: str = Field(default="", max_length=4096)
    """What its source never has of a release, by what it is, in words: the reason why it is not sealed."""
    extractor: str = ""
    tool: str = ""
    """Name and version of the program that wrote this record."""
    operator: str = ""
    started: str = ""
    finished: str = ""
    """Times are UTC, ISO 8601, for people: nothing is ever ordered by a harvester's clock alone."""
    sealed: bool = False
    manifest: tuple[ManifestEntry, ...] = ()
    objects: tuple[ObjectEntry, ...] = ()
    cache_files: tuple[CacheFile, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be read or did not agree, one sentence each; a sealed record has none."""


class TombstoneRecord(_Frozen):
    """Takes records back: what only they name is no longer answered, and in time collected."""

    type: Literal["tombstone"] = "tombstone"
    schema_version: int = 1
    removes: tuple[Sha256, ...]
    """Ids of the records."""
    build: str = ""
    reason: str = ""
    tool: str = ""
    operator: str = ""
    finished: str = ""


class PreferenceRecord(_Frozen):
    """A person's decision: of the contents under one (UUID, kind, shared cache), this one is served."""

    type: Literal["preference"] = "preference"
    schema_version: int = 1
    supersedes: tuple[Sha256, ...] = ()
    """Ids of earlier decisions about the same contents."""
    uuid: UUID
    kind: Kind
    cache_uuid: UUID | None = None
    sha256: Sha256
    tool: str = ""
    operator: str = ""
    finished: str = ""


Record = HarvestRecord | TombstoneRecord | PreferenceRecord
"""Anything that a store keeps under `records/`."""
