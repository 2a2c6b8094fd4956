"""Everything that may have binaries, opened together: folders, then the library, then servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from symcache.client import LocalCache, SymbolClient
from symcache.errors import NotFoundError
from symcache.resolve.folders import FolderResolver
from symcache.resolve.model import ChainResolver, ModuleResolver, SourceFiles
from symcache.resolve.servers import FetchedBefore, ServerResolver, ServerSources
from symcache.resolve.source_notes import WithSourceNotes, server_notes

if TYPE_CHECKING:
    from symcache.library import Library

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
    here: ModuleResolver | None = None
    """What of it need not be fetched; None if nothing is fetched."""
    own: ModuleResolver | None = None
    """What of it is no server; None if nothing is."""
    client: SymbolClient | None = None
    """Of the servers; None if there is none."""


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
        here = list(resolvers)
        is_remote = bool(servers)
        if library and (own := _open_library(stack, library, must_exist)):
            from symcache.resolve.library import LibraryResolver  # noqa: PLC0415

            cache = LocalCache(cache_dir)
            elsewhere = "://" in library and not library.startswith("file://")
            is_remote |= elsewhere
            for chain, unpacked in ((resolvers, False), (here, elsewhere)):
                resolver = LibraryResolver(own, cache, only_unpacked=unpacked)
                chain.append(WithSourceNotes(resolver, own.sources, source_roots) if source_roots else resolver)
        # Without a server, too: what was once fetched from one is in the cache.
        if not servers and not (cache_dir / "index").is_dir():
            yield BinarySources(ChainResolver(resolvers), here=ChainResolver(here) if is_remote else None)
            return
        without_servers = ChainResolver(list(resolvers))
        client = stack.enter_context(SymbolClient(servers, cache_dir))
        cached = stack.enter_context(SymbolClient([], cache_dir))
        server, before = ServerResolver(client, cached, cache_dir / "layouts"), FetchedBefore(cached)
        notes = server_notes(client, cache_dir / "notes")
        resolvers.append(WithSourceNotes(server, notes, source_roots) if source_roots else server)
        here.append(WithSourceNotes(before, notes, source_roots) if source_roots else before)
        files = ServerSources(client, cached, server.problems)
        yield BinarySources(
            ChainResolver(resolvers),
            files,
            server.problems,
            here=ChainResolver(here) if is_remote else None,
            own=without_servers,
            client=client,
        )


def _open_library(stack: ExitStack, location: str, must_exist: bool) -> Library | None:
    # Opening costs a tenth of a second of imports: not for a folder that is not there.
    if not (must_exist or "://" in location or Path(location).exists()):
        return None
    from symcache.library import Library  # noqa: PLC0415

    try:
        return stack.enter_context(Library.open(location))
    except NotFoundError:
        if must_exist:
            raise
        return None
