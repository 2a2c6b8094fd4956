"""What a source hands to the library: files in a staging folder, and the manifest they are measured against."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.model import Kind, ManifestEntry, ObjectEntry, Origin, Release, SourceNote, Trust

__all__ = ["Staged", "StagedCacheFile", "StagedObject"]


@dataclass(frozen=True, slots=True)
class StagedObject:
    """One image in a staged file: `size` bytes from `offset` on, so that a slice needs no copy of its own."""

    file: Path
    offset: int
    size: int
    path: str
    """Where the source has it."""
    arch: str
    uuid: UUID | None
    kind: Kind = Kind.EXECUTABLE
    origin: Origin = Origin.FILE
    cache_uuid: UUID | None = None
    extractor: str = ""
    revision: int = 0
    sources: tuple[SourceNote, ...] = ()


@dataclass(frozen=True, slots=True)
class StagedCacheFile:
    """One raw file of a shared cache, to be kept."""

    file: Path
    name: str
    path: str
    arch: str
    cache_uuid: UUID | None
    partial: bool = False
    """Only headers and tables."""


@dataclass
class Staged:
    """One harvest, ready to be stored. `problems` are sentences: with any of them it cannot be sealed."""

    release: Release | None
    source: str
    extractor: str = ""
    host: str = ""
    archs: tuple[str, ...] = ()
    """What it was restricted to; all, if empty."""
    trust: Trust = Trust.HARVEST
    manifest: list[ManifestEntry] = field(default_factory=list)
    objects: list[StagedObject] = field(default_factory=list)
    stored: list[ObjectEntry] = field(default_factory=list)
    """Further ones, whose bytes are stored already."""
    cache_files: list[StagedCacheFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    started: str = ""
    sealable: bool = True
    """False when nobody knows what the source should have: such a record is never sealed."""
    lacks: str = ""
    """Why it is not, as in the record."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, and is no fault."""
