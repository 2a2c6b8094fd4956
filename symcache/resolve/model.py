"""Where the binaries of a dump's modules come from: the question, its answer, and folders that can answer it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

from symcache.errors import FormatError
from symcache.images import ImageFile, ImageRequest, SourceRequest
from symcache.kinds import Kind
from symcache.macho import identify, text_address

__all__ = [
    "CacheGuess",
    "ChainResolver",
    "FolderResolver",
    "ModuleResolver",
    "Progress",
    "SourceFiles",
    "header_address",
]

Progress = Callable[[int, int], None]
"""Called with (done, of all); files or bytes, as the source counts."""
_HEAD = 32 << 10


class CacheGuess(NamedTuple):
    """A shared cache that holds some of the modules."""

    cache: UUID
    build: str | None
    images: int


class ModuleResolver(Protocol):
    """Finds modules and dSYMs by UUID."""

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """Return what was found; what nobody has is absent. Raises SymcacheError when a source fails."""
        ...

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return the shared caches that hold any of these images, the one that holds most of them first.

        `loads` are the images' header addresses in the crashed process.
        """
        ...


class SourceFiles(Protocol):
    """Gets source files from elsewhere."""

    def fetch(self, wanted: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """Return a copy on this machine of each one that was found. Raises nothing where nobody can be asked."""
        ...


class ChainResolver:
    """Asks one resolver after the other for what the ones before did not have."""

    def __init__(self, resolvers: Sequence[ModuleResolver]) -> None:
        self._resolvers = resolvers

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        found: dict[ImageRequest, ImageFile] = {}
        for resolver in self._resolvers:
            left = [w for w in wanted if w not in found]
            if not left:
                break
            found |= resolver.resolve(left, progress)
        return found

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return the guesses of the first resolver that has any."""
        for resolver in self._resolvers:
            if guesses := resolver.guess_caches(loads):
                return guesses
        return []


class FolderResolver:
    """Finds every Mach-O and dSYM below some folders, whatever they are called and however they are arranged."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._index: dict[tuple[UUID, Kind], tuple[int, Path]] | None = None

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`. Own binaries belong to no cache or build, so those are not looked at."""
        del progress
        if self._index is None:
            self._index = self._scan()
        found = {}
        for one in wanted:
            if hit := self._index.get((one.uuid, one.kind)):
                found[one] = ImageFile(hit[1], str(hit[1]))
        return found

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return nothing: folders know no caches."""
        del loads
        return []

    def _scan(self) -> dict[tuple[UUID, Kind], tuple[int, Path]]:
        """Return the largest file of every UUID and kind: of a binary and its stripped copy, the binary."""
        index: dict[tuple[UUID, Kind], tuple[int, Path]] = {}
        for path in self._files():
            try:
                slices = identify(path)
            except (FormatError, OSError):
                continue  # somebody's folder may hold anything
            for one in slices:
                if one.uuid is None or one.kind is None:
                    continue
                known = index.get((one.uuid, one.kind))
                if known is None or known[0] < one.size:
                    index[one.uuid, one.kind] = (one.size, path.absolute())
        return index

    def _files(self) -> Iterator[Path]:
        for folder in self._folders:
            if folder.is_file():
                yield folder
            for parent, folders, names in os.walk(folder):
                folders.sort()
                for name in sorted(names):
                    path = Path(parent, name)
                    if path.is_file():  # follows links, as LLDB's file-mapped layout has them; skips pipes
                        yield path


def header_address(path: Path, uuid: UUID) -> int | None:
    """Return the address that the Mach-O header of an image was linked for, or None if there is no such image."""
    try:
        found = [s for s in identify(path) if s.uuid == uuid]
    except (FormatError, OSError):
        return None
    if not found:
        return None
    with path.open("rb") as file:
        file.seek(found[0].offset)
        return text_address(file.read(_HEAD))
