"""What dSYMs of libraries and servers note of their sources, as far as the user has allowed to follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.client import SymbolClient
from symcache.errors import RemoteError
from symcache.images import ImageFile, ImageRequest
from symcache.kinds import Kind
from symcache.resolve.local_json import load_rows, save_rows
from symcache.resolve.model import CacheGuess, ModuleResolver, Progress
from symcache.resolve.source_roots import below_roots

__all__ = ["Notes", "WithSourceNotes", "server_notes"]

Notes = Mapping[UUID, Sequence[tuple[str, str]]]
"""(recorded folder, place) by UUID."""


class WithSourceNotes:
    """A resolver that adds to dSYMs what is noted of their sources. `roots` are the folders that places may be in."""

    def __init__(
        self, resolver: ModuleResolver, notes_of: Callable[[Sequence[UUID]], Notes], roots: Sequence[str]
    ) -> None:
        self._resolver, self._notes_of, self._roots = resolver, notes_of, roots

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        files = self._resolver.resolve(requests, progress)
        dsyms = [request for request in files if request.kind is Kind.DEBUGINFO]
        notes = self._notes_of([request.uuid for request in dsyms]) if dsyms else {}
        for request in dsyms:
            if sources := below_roots(notes.get(request.uuid, ()), self._roots):
                files[request] = replace(files[request], sources=sources)
        return files

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`."""
        return self._resolver.guess_caches(loads)


def server_notes(client: SymbolClient, folder: Path) -> Callable[[Sequence[UUID]], Notes]:
    """Return a function that gets notes from servers. The last notes of each dSYM are remembered in `folder`."""

    def notes_of(uuids: Sequence[UUID]) -> Notes:
        try:
            response = client.look_up(uuids, note_missing=False)
        except RemoteError:  # away, or of another make: that binaries could not be had is said elsewhere
            return {uuid: _load_notes(folder / f"{uuid.hex}.json") for uuid in uuids}
        for uuid in uuids:
            if uuid in response.images:
                save_rows(folder / f"{uuid.hex}.json", [list(pair) for pair in response.sources.get(uuid, ())])
        return response.sources

    return notes_of


def _load_notes(path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(recorded), str(place)) for recorded, place in load_rows(path)]
    except (ValueError, TypeError):
        return []
