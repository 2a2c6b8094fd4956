"""Symbol servers as a source of binaries and source files."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from symcache.client import StoredImage, SymbolClient
from symcache.errors import RemoteError, SymcacheError
from symcache.images import ImageFile, ImageRequest, SourceRequest
from symcache.kinds import Kind
from symcache.resolve.local_json import load_rows, save_rows
from symcache.resolve.model import CacheGuess, Progress

__all__ = ["FetchedBefore", "ServerResolver", "ServerSources"]

_REMEMBERED = 8
_AWAY_SECONDS = 10.0
"""For which servers that could not be reached are not tried again: each try may take as long as that."""


class ServerResolver:
    """Finds modules on symbol servers; the client checks and caches what it fetched.

    Servers that cannot be reached are no reason not to open a dump: what was fetched before is used, and `problems`
    tells what happened.
    """

    def __init__(self, client: SymbolClient, cached: SymbolClient, layouts: Path) -> None:
        self._client = client
        self._cached = cached
        """Has no servers: only what is in the local cache."""
        self._layouts = layouts
        """Folder that remembers which shared cache a dump's modules are from."""
        self._available: dict[UUID, list[StoredImage]] | None = None
        """What the only server has of the modules, once it has said."""
        self._away_until = 0.0
        self.problems: list[str] = []

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        files: dict[ImageRequest, ImageFile] = {**self._cached.fetch_many(requests)}
        left = [r for r in requests if r not in files and self._may_exist(r)]
        if left and time.monotonic() >= self._away_until:
            try:
                files |= self._client.fetch_many(left, progress)
            except RemoteError as error:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                self.problems += [str(error)] if str(error) not in self.problems else []
            else:
                # One server down or lying while another responded: once a sentence, not once a file.
                for texts in self._client.failures.values():
                    self.problems += [text for text in texts if text not in self.problems][:1]
        return files

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`. Where a server compares the addresses too, only what fits is returned."""
        path = self._layouts / f"{_fingerprint(loads)}.json"
        try:
            response = self._client.look_up(loads)
        except RemoteError:
            # It is away, or of another make. For a dump that was opened before, its caches are known.
            return _load_guesses(path)
        if len(self._client.urls) == 1:
            self._available = response.images
        images: Counter[UUID] = Counter()
        builds: dict[UUID, str] = {}
        for contents in response.images.values():
            images.update({c.cache_uuid for c in contents if c.cache_uuid and c.kind is Kind.EXECUTABLE})
            builds |= {c.cache_uuid: c.build for c in contents if c.cache_uuid and c.build}
        fitting = [c for c in response.caches if images[c]] or sorted(images, key=lambda c: (-images[c], c.hex))
        guesses = [CacheGuess(c, builds.get(c), images[c]) for c in fitting]
        if guesses:
            save_rows(path, [[g.cache.hex, g.build, g.images] for g in guesses[:_REMEMBERED]])
        return guesses

    def _may_exist(self, request: ImageRequest) -> bool:
        """Return False for what the server has already said that it does not have."""
        if self._available is None:
            return True
        return any(
            c.kind is request.kind
            and (not request.cache or c.cache_uuid == request.cache)
            and (not request.build or c.build == request.build)
            for c in self._available.get(request.uuid, ())
        )


class FetchedBefore:
    """Finds what was once fetched from servers, in the local cache."""

    def __init__(self, cached: SymbolClient) -> None:
        """`cached` has no servers."""
        self._cached = cached

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        del progress
        return {**self._cached.fetch_many(requests)}

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """Return nothing: files alone do not tell."""
        del loads
        return []


class ServerSources:
    """Fetches source files from symbol servers; `problems` is told why some servers could not be used."""

    def __init__(self, client: SymbolClient, cached: SymbolClient, problems: list[str]) -> None:
        self._client, self._cached, self._problems = client, cached, problems

    def fetch(self, requests: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """See `SourceFiles.fetch`; what was fetched before is used first, without a request."""
        files: dict[SourceRequest, Path] = {}
        try:
            files = self._cached.fetch_sources(requests)
            if left := [request for request in requests if request not in files]:
                files |= self._client.fetch_sources(left)
                self._problems += [text for text in self._client.source_failures if text not in self._problems]
        except SymcacheError as error:
            if not self._problems:  # else it has been said that servers are away
                self._problems.append(str(error))
        return files


def _fingerprint(loads: Mapping[UUID, int]) -> str:
    lines = sorted(f"{uuid.hex} {address:x}" for uuid, address in loads.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _load_guesses(path: Path) -> list[CacheGuess]:
    try:
        return [CacheGuess(UUID(cache), build, int(images)) for cache, build, images in load_rows(path)]
    except (ValueError, TypeError, AttributeError):
        return []
