"""What the catalog answers with."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from symcache.model import ImageKey, Kind, Trust

__all__ = ["Conflict", "Occurrence", "RecordRow", "ReleaseRow"]


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
    """What the library has of one build."""

    product: str
    version: str
    extra: str
    build: str
    sealed: bool
    harvests: int
    images: int


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
