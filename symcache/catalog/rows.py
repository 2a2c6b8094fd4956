"""What the catalog returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from symcache.model import ImageKey, Kind, ReleaseId, Trust, canonical_product

__all__ = [
    "BlobUse",
    "CacheFileRow",
    "CollectedImage",
    "Conflict",
    "Counts",
    "FoldedRecord",
    "Growth",
    "Harvest",
    "HarvestRow",
    "Listing",
    "LiveBlobs",
    "ManifestRow",
    "MissingImage",
    "Occurrence",
    "PathSummary",
    "RecordId",
    "RecordRow",
    "ReleaseRow",
    "Removal",
    "Retirement",
    "StoredSize",
]


class CollectedImage(NamedTuple):
    """An image inside a stored kernel collection."""

    name: str
    """Of the kernel extension, or `com.apple.kernel`."""
    collection: UUID | None
    path: str
    """Of the collection."""
    build: str | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One stored content of one image in one record. Sizes in bytes, SHA-256 in lower-case hex."""

    uuid: UUID | None
    kind: Kind
    path: str
    arch: str
    origin: str
    cache_uuid: UUID | None
    extractor: str
    revision: int
    sha256: str
    size: int
    build: str | None
    version: str
    sealed: bool
    record: str
    trust: Trust = Trust.HARVEST
    symbols: int | None = None
    """Entries of the symbol table, where the record says."""
    code: str = ""
    """Identifies `__TEXT,__text`: equal for a file and its stripped twin."""
    rival: bool = False
    """Another content under the same key is served; this one waits for a person's decision."""

    @property
    def key(self) -> ImageKey:
        """The identity of the image."""
        return ImageKey(self.uuid, self.kind, self.cache_uuid, self.extractor, self.revision)


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """What the library has of one release."""

    product: str
    version: str
    extra: str
    build: str
    sealed: bool
    harvests: int
    images: int
    """Different UUIDs of what is stored."""
    listed: int
    """Images that it has, stored or not (docs/glossary.md): as harvests and `verify` count them."""
    name: str = ""
    """What commands know it by: its build, or `PRODUCT:BUILD` where the library has several systems of that build."""

    @property
    def id(self) -> ReleaseId:
        """Product and build."""
        return ReleaseId(canonical_product(self.product), self.build)


@dataclass(frozen=True, slots=True)
class RecordRow:
    """What ranking needs of a live record."""

    id: int
    sha256: str
    trust: Trust
    build: str | None
    version: str
    release_order: str
    sealed: bool
    finished: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Different contents under one key: the served one first, its rivals after it."""

    uuid: UUID
    kind: Kind
    cache_uuid: UUID | None
    contents: tuple[Occurrence, ...]
    """One occurrence for every content."""
    decided: bool
    """A person has said which one is served."""


class HarvestRow(NamedTuple):
    """One live harvest record."""

    id: int
    """Number in this catalog, for `objects_of` and the like; another catalog numbers differently."""
    sha256: str
    """The id of the record."""
    trust: Trust
    product: str
    version: str
    build: str
    sealed: bool
    source: str
    problems: tuple[str, ...]


class ManifestRow(NamedTuple):
    """One image that a harvest's source said it has."""

    path: str
    arch: str
    uuid: UUID | None
    kind: str
    origin: str
    cache_uuid: UUID | None


class CacheFileRow(NamedTuple):
    """One kept raw file of a shared cache. Size in bytes."""

    record: int
    cache_uuid: UUID | None
    name: str
    arch: str
    path: str
    sha256: str
    size: int
    partial: bool
    """Only headers and tables."""


class FoldedRecord(NamedTuple):
    """A record that is folded in, as it lies at one place of the store."""

    sha256: str
    """Its id."""
    validator: str
    """What the store said of the object when it was last looked into, or nothing; see `BlobStat.validator`."""


class RecordId(NamedTuple):
    """A record: where it lies in the store, and its id."""

    key: str
    sha256: str


class Retirement(NamedTuple):
    """A record that another one takes back."""

    record: int
    """Number of the one that is taken back."""
    key: str
    """Where the one that takes it back lies in the store."""


class Removal(NamedTuple):
    """A harvest of a release that a tombstone takes back. Times are those of the machines that wrote the records."""

    record: str
    """The id of the harvest."""
    key: str
    """Where it lies in the store."""
    release: ReleaseId
    source: str
    finished: str
    tombstone: str
    """The id of the tombstone."""
    removed: str
    """When that was written."""

    @property
    def build(self) -> str:
        """Of the release."""
        return self.release.build


class LiveBlobs(NamedTuple):
    """{SHA-256: size in bytes} of all that live records name."""

    images: dict[str, int]
    cache_files: dict[str, int]


class BlobUse(NamedTuple):
    """A path under which a live record names a blob."""

    path: str
    build: str | None


class Counts(NamedTuple):
    """How many live records there are, different (UUID, kind), and stored contents, once for each record and path."""

    records: int
    images: int
    occurrences: int


class MissingImage(NamedTuple):
    """An image that a harvest lists and nothing was stored for. No build: the empty string."""

    build: str
    path: str


class PathSummary(NamedTuple):
    """A path of live images: how many different UUIDs it has had, in how many builds, and the newest of these."""

    path: str
    uuids: int
    builds: int
    newest: str | None


class Listing(NamedTuple):
    """A part of a list: how long all of it is, and the rows of this part."""

    total: int
    rows: list[Occurrence]


class Harvest(NamedTuple):
    """A live record that stored something. Times are those of the machine that wrote it: UTC, ISO 8601."""

    trust: Trust
    product: str
    version: str
    extra: str
    build: str | None
    sealed: bool
    source: str
    extractor: str
    operator: str
    started: str
    finished: str
    problems: int
    images: int
    """Different UUIDs that it stored."""


class StoredSize(NamedTuple):
    """Different contents of images and of raw shared cache files, and their bytes before compression."""

    images: int
    image_bytes: int
    cache_files: int
    cache_bytes: int


class Growth(NamedTuple):
    """What content came on a day (UTC) that was not there before, in bytes before compression."""

    day: str
    image_bytes: int
    cache_bytes: int
