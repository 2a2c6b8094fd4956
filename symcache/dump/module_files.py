"""Which files the modules of a dump are: of the crashed machine's shared cache and build first, checked before LLDB."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.stack_modules import modules_of_stacks
from symcache.errors import FormatError
from symcache.images import ImageFile, ImageRequest
from symcache.kinds import Kind
from symcache.macho import header_address, identify, source_maps
from symcache.resolve import CacheGuess, ModuleResolver, Progress, find_variants

__all__ = [
    "Fetching",
    "ModuleFiles",
    "Search",
    "is_debug_info",
    "named",
    "needed_modules",
    "noted_sources",
    "pin",
]

Fetching = Callable[[str], AbstractContextManager[Progress | None]]
"""Called with a text that says what is fetched, and why; the context that it returns gives a progress callback."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where the files of a dump's modules are looked for, and which ones are preferred."""

    resolver: ModuleResolver
    cache: UUID | None = None
    build: str | None = None
    source_map: Sequence[tuple[str, str]] = ()
    """Folders in which sources were compiled, and where they are."""
    here: ModuleResolver | None = None
    """Finds what need not be fetched. With it, only modules that threads are in are looked for with `resolver`."""
    fetching: Fetching | None = None
    places: Path | None = None
    """Folder for links and placeholders, a small file for each module; else they lie beside the core."""


_MAX_GUESSES = 8
_ENOUGH = 2
"""Images that must lie in a shared cache before it is taken for the crashed machine's."""


def pin(header: DumpHeader, search: Search, needed: Collection[int]) -> tuple[UUID | None, str | None, str]:
    """Return the shared cache and build to prefer. What the dump notes is better than what can be inferred.

    To tell builds apart, files of no other modules than those `needed` are looked at.
    """
    if search.cache or search.build:
        return search.cache, search.build, "option"
    if header.cache_uuid or header.os_build:
        return header.cache_uuid, header.os_build, "dump"
    loads = {m.uuid: m.address for m in header.modules if m.uuid}
    guesses = [g for g in search.resolver.guess_caches(loads) if g.images >= _ENOUGH]
    best = [g for g in guesses if g.images == guesses[0].images][:_MAX_GUESSES]
    # Builds that share all these images lay them out differently: the addresses tell.
    present = {m.uuid: m.address for n, m in enumerate(header.modules) if m.uuid and n in needed}
    fitting = best if len(best) == 1 else [g for g in best if _fits(search.resolver, present, g)]
    for guess in fitting or best:
        return guess.cache, guess.build, "inferred"
    return None, None, ""


def _fits(resolver: ModuleResolver, loads: Mapping[UUID, int], guess: CacheGuess) -> bool:
    """Return whether one slide explains the addresses of some images, as this cache lays them out."""
    slides = set()
    for wanted, file in resolver.resolve([ImageRequest(u, cache=guess.cache) for u in loads]).items():
        if file.cache_uuid == guess.cache and (linked := header_address(file.path, wanted.uuid)) is not None:
            slides.add(loads[wanted.uuid] - linked)
    return len(slides) == 1


def needed_modules(
    dump: OpenedDump, header: DumpHeader, sizes: Sequence[int], memory: Core, here: ModuleResolver | None
) -> set[int]:
    """Return the numbers of the modules that threads are in, and of those that only their binary can name.

    `sizes` are of each module's code. All are needed where nothing has to be fetched: `here` is None.
    """
    modules = header.modules
    if here is None:
        return set(range(len(modules)))

    def are_here(numbers: set[int]) -> bool:
        # It is the dump of before, or of the same program: what else is needed shows when LLDB walks the stacks.
        requests = [ImageRequest(uuid) for n in numbers if (uuid := modules[n].uuid)]
        return here.resolve(requests).keys() >= set(requests)

    ranges = [(module.address, size) for module, size in zip(modules, sizes, strict=True)]
    pointed = modules_of_stacks(dump, header.thread, memory, ranges, are_here)
    return pointed | {n for n, module in enumerate(modules) if not module.path}


class ModuleFiles:
    """The files of a dump's modules, as far as they were looked for, by UUID and kind."""

    def __init__(
        self, resolver: ModuleResolver, cache: UUID | None, build: str | None, origin: str, fetching: Fetching | None
    ) -> None:
        """`cache` and `build` are preferred; `origin` tells how they are known, as `pin` does."""
        self._resolver, self.cache, self.build, self.origin = resolver, cache, build, origin
        self._fetching = fetching or (lambda _: nullcontext())
        self.files: dict[tuple[UUID, Kind], ImageFile] = {}
        self._wanted: set[UUID] = set()

    def fetch(self, uuids: Sequence[UUID], why: str) -> None:
        """Look for binaries and dSYMs wherever they may be; `why` is what the user is told. Raises SymcacheError."""
        self._wanted.update(uuids)
        with self._fetching(why) as progress:
            self._resolve(self._resolver, uuids, progress)

    def was_deferred(self, uuid: UUID | None) -> bool:
        """Return whether an image is not here, and has not been looked for elsewhere."""
        return uuid is not None and uuid not in self._wanted and not any((uuid, kind) in self.files for kind in Kind)

    def take(self, here: ModuleResolver, uuids: Sequence[UUID]) -> None:
        """Look for what there is without fetching."""
        self._resolve(here, uuids, None)

    def _resolve(self, resolver: ModuleResolver, uuids: Sequence[UUID], progress: Progress | None) -> None:
        """Ask for the variants of the crashed machine, then for any variant of what is left.

        An unchanged image of another build still gives right names; an application's own binaries have no build.
        """
        left = [uuid for uuid in uuids if not all((uuid, kind) in self.files for kind in Kind)]
        self.files |= find_variants(resolver, left, self.cache, self.build, progress)


def noted_sources(dsyms: Sequence[tuple[UUID, ImageFile]]) -> list[tuple[str, str]]:
    """Return (recorded, present) source folders that dSYMs name, each with its UUID; only folders that exist."""
    pairs: dict[str, str] = {}
    for uuid, debug_info in dsyms:
        for recorded, present in (*source_maps(debug_info.path, uuid), *debug_info.sources):
            if Path(present).is_absolute() and Path(present).is_dir():
                pairs.setdefault(recorded, present)
    return list(pairs.items())


def named(
    header: DumpHeader, files: Mapping[tuple[UUID, Kind], ImageFile], *, executable_first: bool
) -> tuple[DumpModule, ...]:
    """Return the modules; one of which the dump has no path under that which its binary was linked with, or its name.

    The executable was linked with none: it may be named by a file in somebody's folder, or, where it is the first of
    the modules (`executable_first`), in the header.
    """
    modules = header.modules
    if all(module.path for module in modules):
        return modules
    paths = [module.path or _path_of(module, files) for module in modules]
    if executable_first:
        paths[0] = paths[0] or header.executable
    return tuple(m if m.path else replace(m, path=path) for m, path in zip(modules, paths, strict=True))


def _path_of(module: DumpModule, files: Mapping[tuple[UUID, Kind], ImageFile]) -> str:
    own = [files[module.uuid, kind] for kind in Kind if module.uuid and (module.uuid, kind) in files]
    for file in own:
        try:
            linked = [s.install_name for s in identify(file.path) if s.uuid == module.uuid and s.install_name]
        except (FormatError, OSError):
            linked = []
        if linked:
            return linked[0]
    return next((file.path.name for file in own if file.origin == str(file.path)), "")


def is_debug_info(path: Path, uuid: UUID | None) -> bool:
    """Return whether a file is the dSYM of an image."""
    try:
        return any(s.uuid == uuid and s.kind is Kind.DEBUGINFO for s in identify(path))
    except (FormatError, OSError):
        return False
