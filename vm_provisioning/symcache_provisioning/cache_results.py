"""What is collected about one shared cache while it is harvested."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.errors import HostKeyError, StorageError, SymcacheError
from symcache.model import ManifestEntry
from symcache_provisioning.extractors.guest_tool import ListedImage
from symcache_provisioning.extractors.local_extraction import Extraction
from symcache_provisioning.remarks import Problems
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.ssh.login import UnreachableError
from symcache_provisioning.ssh.packets import SessionError

__all__ = ["FATAL", "CacheResults", "CacheSummary", "Identity", "add_problem"]

Identity = tuple[str, UUID | None]
"""Path and LC_UUID: what two extractors must agree on."""

FATAL = (StorageError, SessionError, UnreachableError, HostKeyError)
"""Errors after which a harvest cannot go on."""


def add_problem(problems: Problems, where: str, error: SymcacheError) -> None:
    """Add an error about one file or cache to the problems; raise it if the harvest cannot go on after it."""
    if isinstance(error, FATAL):
        raise error
    problems.add_error(error, where)


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """One shared cache of a harvest; `images` is how many its image table lists."""

    path: str
    arch: str
    uuid: UUID | None
    images: int


@dataclass
class CacheResults:
    """What a harvest has collected about one cache so far."""

    remote: RemoteCache
    uuid: UUID | None
    manifest: dict[Identity, ManifestEntry] = field(default_factory=dict)
    """From the cache's own image table, with the architecture of what was extracted."""
    listed: set[Identity] = field(default_factory=set)
    extracted: dict[str, set[Identity]] = field(default_factory=dict)
    """By extractor."""
    extraction: Extraction | None = None
    cut: list[str] = field(default_factory=list)
    """Why companions could not be read, or the main file not to its end."""
    tool: str = ""
    """Name of the tool that extracted it in the guest."""
    from_tool: list[tuple[ListedImage, Path | SymcacheError]] = field(default_factory=list)
    """The images that the tool extracted, as copied and not yet checked."""
