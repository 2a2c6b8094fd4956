"""What a source of binaries can do, and several of them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

from symcache.images import ImageFile, ImageRequest, SourceRequest
from symcache.kinds import Kind

__all__ = ["CacheGuess", "ChainResolver", "ModuleResolver", "Progress", "SourceFiles", "find_variants"]

Progress = Callable[[int, int], None]
"""Called with (done, total); files or bytes, as the source counts."""


class CacheGuess(NamedTuple):
    """A shared cache that contains some of the modules."""

    cache: UUID
    build: str | None
    images: int


class ModuleResolver(Protocol):
    """Finds modules and dSYMs by UUID."""

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """Return the files of all images that are available here. Raises SymcacheError when a source fails."""
        ...

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return the shared caches that contain any of these images, the one with most of them first.

        `loads` are the images' header addresses in the crashed process.
        """
        ...


class SourceFiles(Protocol):
    """Gets source files from elsewhere."""

    def fetch(self, requests: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """Return a copy on this machine of each file that is available. Raises nothing when servers cannot be used."""
        ...


class ChainResolver:
    """Asks each resolver for what those before it did not have."""

    def __init__(self, resolvers: Sequence[ModuleResolver]) -> None:
        self._resolvers = resolvers

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        files: dict[ImageRequest, ImageFile] = {}
        for resolver in self._resolvers:
            left = [r for r in requests if r not in files]
            if not left:
                break
            files |= resolver.resolve(left, progress)
        return files

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return the guesses of the first resolver that has any."""
        for resolver in self._resolvers:
            if guesses := resolver.guess_caches(loads):
                return guesses
        return []


def find_variants(
    resolver: ModuleResolver,
    uuids: Sequence[UUID],
    cache: UUID | None,
    build: str | None,
    progress: Progress | None = None,
) -> dict[tuple[UUID, Kind], ImageFile]:
    """Return the binaries and dSYMs of images: those of a shared cache or build first, then any of the same UUIDs."""
    files: dict[tuple[UUID, Kind], ImageFile] = {}
    requests = [[ImageRequest(uuid, kind) for uuid in uuids for kind in Kind]]
    if cache or build:
        build = None if cache else build
        requests.insert(0, [ImageRequest(uuid, Kind.EXECUTABLE, cache, build) for uuid in uuids])
    for some in requests:
        left = [request for request in some if (request.uuid, request.kind) not in files]
        found = resolver.resolve(left, progress) if left else {}
        files |= {(request.uuid, request.kind): file for request, file in found.items()}
    return files
