"""Where the binaries of a dump come from: folders, then the library, then servers."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from symcache.client import Held, LocalCache, SymbolClient
from symcache.errors import NotFoundError, RemoteError, SymcacheError
from symcache.files import atomic_write
from symcache.images import ImageFile, ImageRequest, SourceRequest
from symcache.kinds import Kind
from symcache.resolve.model import CacheGuess, ChainResolver, FolderResolver, ModuleResolver, Progress, SourceFiles
from symcache.resolve.source_notes import WithSourceNotes, server_notes

if TYPE_CHECKING:
    from symcache.library import Library

__all__ = ["LibraryResolver", "ServerResolver", "ServerSources", "Sources", "open_sources"]


_REMEMBERED = 8


class LibraryResolver:
    """Finds modules in a library; contents are unpacked once, into the local cache and under its limit."""

    def __init__(self, library: Library, cache: LocalCache) -> None:
        self._library, self._cache = library, cache
        self._unpacked = False

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        have = self._library.holdings(list({w.uuid for w in wanted}))
        known = [w for w in wanted if any(o.kind is w.kind for o in have.get(w.uuid, ()))]
        done = 0
        found: dict[ImageRequest, ImageFile] = {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 2), thread_name_prefix="unpack") as pool:
            for one, file in zip(known, pool.map(self._one, known), strict=True):
                done += 1
                if file:
                    found[one] = file
                if progress:
                    progress(done, len(wanted))
        if self._unpacked:
            self._cache.evict()
            self._unpacked = False
        return found

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`."""
        images: Counter[UUID] = Counter()
        builds: dict[UUID, str | None] = {}
        for occurrences in self._library.holdings(list(loads)).values():
            for cache in {o.cache_uuid for o in occurrences if o.cache_uuid and o.kind is Kind.EXECUTABLE}:
                images[cache] += 1
            for o in occurrences:
                if o.cache_uuid and o.build:
                    builds.setdefault(o.cache_uuid, o.build)
        ranked = sorted(images.items(), key=lambda item: (-item[1], item[0].hex))
        return [CacheGuess(cache, builds.get(cache), count) for cache, count in ranked]

    def _one(self, wanted: ImageRequest) -> ImageFile | None:
        hit = self._library.resolve(wanted.uuid, wanted.kind, cache=wanted.cache, build=wanted.build)
        if hit is None:
            return None
        target = self._cache.blob(hit.sha256)
        if target.is_file() and target.stat().st_size == hit.size:
            os.utime(target)  # what was used longest ago is evicted first
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._library.materialize(hit.sha256, hit.size, target)
            target.chmod(0o444)
            self._unpacked = True
        return ImageFile(target, f"library {self._library.store.location}", hit.build, hit.cache_uuid)


class ServerResolver:
    """Finds modules on symbol servers; the client checks and keeps what it fetched.

    Servers that cannot be reached are no reason not to open a dump: what was fetched before is used, and `problems`
    tells what happened.
    """

    def __init__(self, client: SymbolClient, kept: SymbolClient, memory: Path) -> None:
        self._client = client
        self._memory = memory
        """Folder that keeps which shared cache a dump's modules were found to be of."""
        self._kept = kept
        """Asks nobody: only what is in the cache."""
        self._holdings: dict[UUID, list[Held]] | None = None
        self.problems: list[str] = []

    def resolve(
        self, wanted: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        found: dict[ImageRequest, ImageFile] = {**self._kept.fetch_many(wanted)}
        left = [r for r in wanted if r not in found and self._may_exist(r)]
        if left and not self.problems:
            try:
                found |= self._client.fetch_many(left, progress)
            except RemoteError as error:
                self.problems.append(str(error))
            else:
                # One server down or lying while another answered: once a sentence, not once a file.
                for texts in self._client.failures.values():
                    self.problems += [text for text in texts if text not in self.problems][:1]
        return found

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`. The server compares the addresses too; then its answer is the only one."""
        memory = self._memory / f"{_fingerprint(loads)}.json"
        try:
            answer = self._client.holdings(loads)
        except RemoteError:
            # It is away, or of another make. For a dump that was opened before, the answer is known.
            return _recall(memory)
        if len(self._client.urls) == 1:
            self._holdings = answer.images
        images: Counter[UUID] = Counter()
        builds: dict[UUID, str] = {}
        for contents in answer.images.values():
            images.update({c.cache_uuid for c in contents if c.cache_uuid and c.kind is Kind.EXECUTABLE})
            builds |= {c.cache_uuid: c.build for c in contents if c.cache_uuid and c.build}
        fitting = [c for c in answer.caches if images[c]] or sorted(images, key=lambda c: (-images[c], c.hex))
        guesses = [CacheGuess(c, builds.get(c), images[c]) for c in fitting]
        if guesses:
            _remember(memory, guesses)
        return guesses

    def _may_exist(self, request: ImageRequest) -> bool:
        """Spare a server the questions that it has already answered with no."""
        if self._holdings is None:
            return True
        return any(
            c.kind is request.kind
            and (not request.cache or c.cache_uuid == request.cache)
            and (not request.build or c.build == request.build)
            for c in self._holdings.get(request.uuid, ())
        )


class ServerSources:
    """Fetches source files from symbol servers; `problems` tells why some could not be asked for."""

    def __init__(self, client: SymbolClient, kept: SymbolClient, problems: list[str]) -> None:
        self._client, self._kept, self._problems = client, kept, problems

    def fetch(self, wanted: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """See `SourceFiles.fetch`; what was fetched before is used first, and without asking."""
        found: dict[SourceRequest, Path] = {}
        try:
            found = self._kept.fetch_sources(wanted)
            if left := [request for request in wanted if request not in found]:
                found |= self._client.fetch_sources(left)
                self._problems += [text for text in self._client.source_failures if text not in self._problems]
        except SymcacheError as error:
            if not self._problems:  # else it has been said that servers are away
                self._problems.append(str(error))
        return found


def _fingerprint(loads: Mapping[UUID, int]) -> str:
    lines = sorted(f"{uuid.hex} {address:x}" for uuid, address in loads.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _remember(path: Path, guesses: Sequence[CacheGuess]) -> None:
    content = json.dumps([[g.cache.hex, g.build, g.images] for g in guesses[:_REMEMBERED]])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, mode=0o600) as part:
            part.write_text(content)
    except OSError:
        pass  # only a convenience


def _recall(path: Path) -> list[CacheGuess]:
    try:
        return [CacheGuess(UUID(cache), build, int(images)) for cache, build, images in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that may have binaries, in the order in which it is asked."""

    resolver: ModuleResolver
    problems: list[str]
    """What kept servers from being asked; filled as they are."""
    files: SourceFiles | None
    """Gets source files; None where no server is named, nor ever was."""


@contextmanager
def open_sources(
    cache_dir: Path,
    *,
    folders: Sequence[Path] = (),
    library: str | None = None,
    must_exist: bool = False,
    servers: Sequence[str] = (),
    source_roots: Sequence[str] = (),
) -> Iterator[Sources]:
    """Open everything that may have binaries: folders, the library at a location, servers by their URLs.

    What is fetched and unpacked goes to the local cache in `cache_dir`. A library that is not there is left out, unless
    it `must_exist`: then NotFoundError is raised. `source_roots` are the folders in which notes of libraries and
    servers may name sources.
    """
    with ExitStack() as stack:
        resolvers: list[ModuleResolver] = []
        problems: list[str] = []
        files: SourceFiles | None = None
        if folders:
            resolvers.append(FolderResolver(folders))
        # Opening costs a tenth of a second of imports: not for a folder that is not there.
        if library and (must_exist or "://" in library or Path(library).exists()):
            from symcache.library import Library  # noqa: PLC0415 - SQLite, numpy and more

            try:
                opened = stack.enter_context(Library.open(library))
            except NotFoundError:
                if must_exist:
                    raise
            else:
                own = LibraryResolver(opened, LocalCache(cache_dir))
                resolvers.append(WithSourceNotes(own, opened.sources, source_roots) if source_roots else own)
        # Without a server, too: what was once fetched from one is in the cache.
        if servers or (cache_dir / "index").is_dir():
            client = stack.enter_context(SymbolClient(servers, cache_dir))
            kept = stack.enter_context(SymbolClient([], cache_dir))
            server = ServerResolver(client, kept, cache_dir / "layouts")
            notes = server_notes(client, cache_dir / "notes")
            resolvers.append(WithSourceNotes(server, notes, source_roots) if source_roots else server)
            problems = server.problems
            files = ServerSources(client, kept, problems)
        yield Sources(ChainResolver(resolvers), problems, files)
