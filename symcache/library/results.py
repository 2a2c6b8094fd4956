"""What the library returns."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from symcache.catalog import Conflict, Occurrence
from symcache.model import Kind, ManifestEntry

__all__ = ["Found", "IngestResult", "StoredCacheFile"]


@dataclass(frozen=True, slots=True)
class Found:
    """The content that is served for a request, and how large it lies in the store (zstd, `stored_size`)."""

    occurrence: Occurrence
    stored_size: int

    @property
    def uuid(self) -> UUID | None:
        """LC_UUID."""
        return self.occurrence.uuid

    @property
    def kind(self) -> Kind:
        """Executable or debug info."""
        return self.occurrence.kind

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, lower-case hex: the name of its blob."""
        return self.occurrence.sha256

    @property
    def size(self) -> int:
        """Size of the content in bytes."""
        return self.occurrence.size

    @property
    def arch(self) -> str:
        """Apple's name of the architecture."""
        return self.occurrence.arch

    @property
    def path(self) -> str:
        """Where the source has it."""
        return self.occurrence.path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.occurrence.path.rpartition("/")[2]

    @property
    def cache_uuid(self) -> UUID | None:
        """The shared cache whose layout this content has."""
        return self.occurrence.cache_uuid

    @property
    def build(self) -> str | None:
        """The macOS build of the record it came with."""
        return self.occurrence.build


@dataclass(frozen=True, slots=True)
class StoredCacheFile:
    """A kept raw file of a shared cache."""

    name: str
    sha256: str
    size: int
    stored_size: int


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest did. `missing` are the manifest entries that nothing was stored for."""

    record_id: str
    sealed: bool
    stored: int
    skipped: int
    missing: list[ManifestEntry]
    problems: list[str]
    carried: int
    """Images taken over from the partial harvests that this one continues."""
    supersedes: tuple[str, ...]
    conflicts: list[Conflict]
    """Contents that contradict what the library had under the same key; what was served before still is."""
