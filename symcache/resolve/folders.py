"""Folders of own binaries and dSYMs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from symcache.errors import FormatError
from symcache.images import ImageFile, ImageRequest
from symcache.kinds import Kind
from symcache.macho import identify
from symcache.resolve.model import CacheGuess, Progress

__all__ = ["FolderResolver"]


class FolderResolver:
    """Finds every Mach-O and dSYM below some folders, whatever they are called and however they are arranged."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._index: dict[tuple[UUID, Kind], tuple[int, Path]] | None = None

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`. Own binaries belong to no cache or build, so those are not looked at."""
        del progress
        if self._index is None:
            self._index = self._scan()
        files = {}
        for request in requests:
            if entry := self._index.get((request.uuid, request.kind)):
                files[request] = ImageFile(entry[1], str(entry[1]))
        return files

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return an empty list: folders know no caches."""
        del loads
        return []

    def _scan(self) -> dict[tuple[UUID, Kind], tuple[int, Path]]:
        """Return the largest file of every UUID and kind: of a binary and its stripped copy, the binary."""
        index: dict[tuple[UUID, Kind], tuple[int, Path]] = {}
        for path in self._files():
            try:
                # Follows links, as LLDB's file-mapped layout has them; skips pipes.
                slices = identify(path) if path.is_file() else ()
            except (FormatError, OSError):
                continue  # somebody's folder may contain anything
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
                    yield Path(parent, name)
