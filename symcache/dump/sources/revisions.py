"""Revisions of git repositories that dSYMs note as the place of their sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from symcache.dump.loader import LoadedModule
from symcache.dump.sources.trees import SourceTree, SourceTrees
from symcache.errors import SymcacheError
from symcache.images import SourceRequest
from symcache.macho import source_revisions
from symcache.resolve import SourceFiles

__all__ = ["NotedSources"]


class NotedSources:
    """Gets source files from the revisions that dSYMs note, and what these lack from `others`.

    `folder` is made for the files; they are there for as long as it is.
    """

    def __init__(self, modules: Iterable[LoadedModule], folder: Path, others: SourceFiles | None) -> None:
        self._folder, self._others = folder, others
        self._trees: dict[UUID, SourceTrees] = {}
        for one in modules:
            if (uuid := one.module.uuid) and one.debug_info:
                trees = []
                noted = [*source_revisions(one.debug_info.path, uuid), *one.debug_info.sources]
                for recorded, place in (n for n in noted if n[1].startswith("git:")):
                    with suppress(SymcacheError):  # a repository that is somewhere else
                        trees.append(SourceTree.parse(f"{recorded}={place}"))
                if trees:
                    self._trees[uuid] = SourceTrees(trees)

    def __bool__(self) -> bool:
        """Whether any source file can be had."""
        return bool(self._trees) or self._others is not None

    def fetch(self, wanted: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """See `SourceFiles.fetch`."""
        files: dict[SourceRequest, Path] = {}
        for one in wanted:
            if trees := self._trees.get(one.uuid):
                with suppress(SymcacheError, OSError):
                    data = trees.read(one.path, one.uuid)
                    self._folder.mkdir(exist_ok=True)
                    path = self._folder / hashlib.sha256(data).hexdigest()
                    path.write_bytes(data)
                    files[one] = path
        left = [one for one in wanted if one not in files]
        return files | self._others.fetch(left) if left and self._others else files
