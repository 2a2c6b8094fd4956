"""Everything that may have binaries, opened together: folders, then the library, then servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from symcache.client import LocalCache, SymbolClient
from symcache.errors import NotFoundError
from symcache.resolve.folders import FolderResolver
from symcache.resolve.model import ChainResolver, ModuleResolver, SourceFiles
from symcache.resolve.servers import ServerResolver, ServerSources
from symcache.resolve.source_notes import WithSourceNotes, server_notes

__all__ = ["BinarySources", "open_sources"]


@dataclass(frozen=True, slots=True)
class BinarySources:
    """What may have binaries, in the order in which it is used."""

    resolver: ModuleResolver
    """All of it."""
    files: SourceFiles | None = None
    """Gets source files from servers."""
    problems: list[str] = field(default_factory=list)
    """Why servers could not be used; filled as they are."""


@contextmanager
def open_sources(
    cache_dir: Path,
    *,
    folders: Sequence[Path] = (),
    library: str | None = None,
    must_exist: bool = False,
    servers: Sequence[str] = (),
    source_roots: Sequence[str] = (),
) -> Iterator[BinarySources]:
    """Open folders, the library at a location, and servers by their URLs.

    What is fetched and unpacked goes to the local cache in `cache_dir`. A library that is not there is left out, unless
    it `must_exist`: then NotFoundError is raised. `source_roots` are the folders in which notes of libraries and
    servers may name sources.
    """
    with ExitStack() as stack:
        resolvers: list[ModuleResolver] = [FolderResolver(folders)] if folders else []
        if library and (own := _open_library(stack, library, cache_dir, must_exist, source_roots)):
            resolvers.append(own)
        # Without a server, too: what was once fetched from one is in the cache.
        if not servers and not (cache_dir / "index").is_dir():
            yield BinarySources(ChainResolver(resolvers))
            return
        client = stack.enter_context(SymbolClient(servers, cache_dir))
        cached = stack.enter_context(SymbolClient([], cache_dir))
        server = ServerResolver(client, cached, cache_dir / "layouts")
        notes = server_notes(client, cache_dir / "notes")
        resolvers.append(WithSourceNotes(server, notes, source_roots) if source_roots else server)
        files = ServerSources(client, cached, server.problems)
        yield BinarySources(ChainResolver(resolvers), files, server.problems)


def _open_library(
    stack: ExitStack, location: str, cache_dir: Path, must_exist: bool, source_roots: Sequence[str]
) -> ModuleResolver | None:
    # Opening costs a tenth of a second of imports: not for a folder that is not there.
    if not (must_exist or "://" in location or Path(location).exists()):
        return None
    from symcache.library import Library  # noqa: PLC0415
    from symcache.resolve.library import LibraryResolver  # noqa: PLC0415

    try:
        library = stack.enter_context(Library.open(location))
    except NotFoundError:
        if must_exist:
            raise
        return None
    resolver = LibraryResolver(library, LocalCache(cache_dir))
    return WithSourceNotes(resolver, library.sources, source_roots) if source_roots else resolver
