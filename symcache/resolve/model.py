"""Where the binaries of a dump's modules come from: the question, its answer, and folders that can answer it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

from symcache.errors import FormatError
from symcache.kinds import Kind
from symcache.macho import identify, text_address

__all__ = [
    "CacheGuess",
    "ChainResolver",
    "FolderResolver",
    "ModuleResolver",
    "Progress",
    "ResolvedFile",
    "SourceFiles",
    "Wanted",
    "WantedSource",
    "header_address",
]

Progress = Callable[[int, int], None]
"""Called with (done, of all); files or bytes, as the source counts."""
_HEAD = 32 << 10


class Wanted(NamedTuple):
    """One question. `cache` and `build` narrow it to one shared cache's layout or one release."""

    uuid: UUID
    kind: Kind = Kind.EXECUTABLE
    cache: UUID | None = None
    build: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A file on this machine that answers."""

    path: Path
    origin: str
    """Who had it, for people: a folder, a library, a server."""
    build: str | None = None
    cache_uuid: UUID | None = None
    sources: tuple[tuple[str, str], ...] = ()
    """Of a dSYM: where its sources are, as (recorded folder, folder here or `git:REPOSITORY@REVISION`), by a note that
    does not lie beside it, as far as the user allows such notes to be followed."""


class CacheGuess(NamedTuple):
    """A shared cache that holds some of the modules."""

    cache: UUID
    build: str | None
    images: int


class ModuleResolver(Protocol):
    """Finds modules and dSYMs by UUID."""

    def resolve(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> dict[Wanted, ResolvedFile]:
        """Return what was found; what nobody has is absent. Raises SymcacheError when a source fails."""
        ...

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return the shared caches that hold any of these images, the one that holds most of them first.

        `loads` are the images' header addresses in the crashed process.
        """
        ...


class WantedSource(NamedTuple):
    """A source file: the binary that was made from it, and the path that its compiler recorded."""

    uuid: UUID
    path: str


class SourceFiles(Protocol):
    """Gets source files from elsewhere."""

    def fetch(self, wanted: Sequence[WantedSource]) -> dict[WantedSource, Path]:
        """Return a copy on this machine of each one that was found. Raises nothing where nobody can be asked."""
        ...


class ChainResolver:
    """Asks one resolver after the other for what the ones before did not have."""

    def __init__(self, resolvers: Sequence[ModuleResolver]) -> None:
        self._resolvers = resolvers

    def resolve(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> dict[Wanted, ResolvedFile]:
        """See `ModuleResolver.resolve`."""
        found: dict[Wanted, ResolvedFile] = {}
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

    def resolve(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> dict[Wanted, ResolvedFile]:
        """See `ModuleResolver.resolve`. Own binaries belong to no cache or build, so those are not looked at."""
        del progress
        if self._index is None:
            self._index = self._scan()
        found = {}
        for one in wanted:
            if hit := self._index.get((one.uuid, one.kind)):
                found[one] = ResolvedFile(hit[1], str(hit[1]))
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
