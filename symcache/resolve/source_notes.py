"""What dSYMs of libraries and servers note of their sources, as far as the user has allowed to follow it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.client import SymbolClient
from symcache.errors import RemoteError
from symcache.files import atomic_write
from symcache.images import ImageFile, ImageRequest
from symcache.kinds import Kind
from symcache.resolve.model import CacheGuess, ModuleResolver, Progress
from symcache.resolve.source_roots import below_roots

__all__ = ["Notes", "WithSourceNotes", "server_notes"]

Notes = Mapping[UUID, Sequence[tuple[str, str]]]
"""(recorded folder, place) by UUID."""


class WithSourceNotes:
    """A resolver that adds to dSYMs what is noted of their sources. `roots` are the folders that places may be in."""

    def __init__(self, resolver: ModuleResolver, ask: Callable[[Sequence[UUID]], Notes], roots: Sequence[str]) -> None:
        self._resolver, self._ask, self._roots = resolver, ask, roots

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        found = self._resolver.resolve(wanted, progress)
        own = [one for one in found if one.kind is Kind.DEBUGINFO]
        notes = self._ask([one.uuid for one in own]) if own else {}
        for one in own:
            if sources := below_roots(notes.get(one.uuid, ()), self._roots):
                found[one] = replace(found[one], sources=sources)
        return found

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`."""
        return self._resolver.guess_caches(loads)


def server_notes(client: SymbolClient, memory: Path) -> Callable[[Sequence[UUID]], Notes]:
    """Return what asks servers for notes. The last answer about each dSYM is kept in the folder `memory`."""

    def ask(uuids: Sequence[UUID]) -> Notes:
        try:
            answer = client.holdings(uuids, note_missing=False)
        except RemoteError:  # away, or of another make: that binaries could not be had is said elsewhere
            return {uuid: _recall(memory / f"{uuid.hex}.json") for uuid in uuids}
        for uuid in uuids:
            if uuid in answer.images:
                _remember(memory / f"{uuid.hex}.json", answer.sources.get(uuid, ()))
        return answer.sources

    return ask


def _remember(path: Path, notes: Sequence[tuple[str, str]]) -> None:
    try:
        if notes:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, mode=0o600) as part:
                part.write_text(json.dumps(notes))
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # only a convenience


def _recall(path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(recorded), str(place)) for recorded, place in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
