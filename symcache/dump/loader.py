"""From a dump to a plan for LLDB: files of the modules by their UUIDs, placeholders for those that nobody has."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from symcache.crash import CrashException
from symcache.dump.formats.container import OpenedDump, open_dump
from symcache.dump.formats.core import Core
from symcache.dump.formats.exceptions import describe_exception
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.formats.notes import header_of_core
from symcache.dump.lldb_child.protocol import ModulePlan, Plan
from symcache.dump.module_files import ModuleFiles, Search, is_debug_info, named, needed_modules, noted_sources, pin
from symcache.dump.placeholders.writer import Placeholders, rewrite_core
from symcache.images import ImageFile
from symcache.kinds import Kind
from symcache.macho import CPU_TYPE
from symcache.text import counted

__all__ = [
    "ARCHS",
    "LoadedDump",
    "LoadedModule",
    "file_name",
    "files_of",
    "find_files",
    "load",
    "load_dump",
    "load_module",
    "noted_sources_of",
    "plan_of",
    "text_sizes",
]

ARCHS: dict[int, str] = {CPU_TYPE.X86_64: "x86_64", CPU_TYPE.ARM64: "arm64"}
_UNKNOWN_TEXT = 16 << 20
"""Assumed size of a module's code when neither a region nor a next module bounds it."""


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """One module of the dump, and the files for it."""

    module: DumpModule
    executable: ImageFile | None
    debug_info: ImageFile | None
    ignored: ImageFile | None
    """What was offered as its debug info, but is another image's: LLDB would say nothing and show no lines."""
    placeholder: Path | None
    text_size: int
    """Bytes from its header to where the next module or the end of the memory region bounds its code."""
    symbols_only: bool = False
    """Its dSYM is all there is, and the placeholder is laid out for it."""
    deferred: bool = False
    """It was not looked for except here: no thread is in it."""

    @property
    def available(self) -> bool:
        """Whether its frames can be named."""
        return self.executable is not None or self.symbols_only


@dataclass(frozen=True, slots=True)
class LoadedDump:
    """A dump, its modules, and the plan for LLDB."""

    dump: OpenedDump
    header: DumpHeader
    modules: tuple[LoadedModule, ...]
    cache_uuid: UUID | None
    build: str | None
    cache_origin: str
    """How cache and build are known: `option`, `dump`, `inferred`, or empty where they are not."""
    plan: Plan
    exception: CrashException
    """What stopped the crashed thread."""
    walked: bool = False
    """A report's, whose frames are known: the plan is of no use."""
    blamed: bool = True
    """Whether the thread of the header is to blame; a report may blame none, and a dump that was asked for."""
    names: tuple[str, ...] = ()
    """Of the threads, as far as the file tells them; LLDB may know others."""
    files: ModuleFiles | None = None
    """Where the files came from, for those that are deferred."""


def load_dump(path: Path, scratch: Path, search: Search) -> LoadedDump:
    """Open a dump and find its modules. Raises DumpError, and what the resolver raises.

    `scratch` must be an empty folder; it holds the core, and links and placeholders unless the search names another
    place for these, for as long as the debugger runs.
    """
    dump = open_dump(path, scratch)
    header = dump.header or header_of_core(path, dump.core)
    return load(dump, header, scratch, search)


def load(
    dump: OpenedDump,
    header: DumpHeader,
    scratch: Path,
    search: Search,
    *,
    exception: CrashException | None = None,
    memory: Core | None = None,
    names: Sequence[str] = (),
    blamed: bool = True,
) -> LoadedDump:
    """Find the modules of a dump that has been opened; see `load_dump`.

    `exception` is None if the core tells. `memory`: what the dump has of the memory of the process, if its core does
    not tell. `names`: of the threads. `blamed`: whether the thread of the header is to blame.
    """
    sizes = text_sizes(dump, header)
    needed = needed_modules(dump, header, sizes, memory or dump.core, search.here)
    found = find_files(header, search, needed)
    files = found.files
    known = named(header, files, executable_first=True)
    executable = header.executable or (known[0].path if known else "")
    header = replace(header, modules=known, executable=executable)
    placeholders = rewrite_core(dump, header, sizes, files, memory=memory)
    places = _places(header.modules, search.places or scratch)
    modules = [
        load_module(number, module, sizes[number], files, placeholders, places[number], deferred=number not in needed)
        for number, module in enumerate(header.modules)
    ]
    plan = Plan(
        core=dump.core_path.absolute(),
        triple=f"{ARCHS[dump.core.cputype]}-apple-macosx",
        thread=header.thread,
        source_map=(*search.source_map, *noted_sources_of(modules)),
        modules=tuple(plan_of(m, place) for m, place in zip(modules, places, strict=True)),
    )
    return LoadedDump(
        *(dump, header, tuple(modules), found.cache, found.build, found.origin, plan),
        exception or describe_exception(dump.core, dump.core.threads[header.thread]),
        blamed=blamed,
        names=tuple(names),
        files=found,
    )


def find_files(header: DumpHeader, search: Search, needed: set[int]) -> ModuleFiles:
    """Look for the files of the modules that are `needed`, and for others as far as nothing has to be fetched."""
    modules, here = header.modules, search.here
    found = ModuleFiles(search.resolver, *pin(header, search, needed), search.fetching)
    wanted = list(dict.fromkeys(m.uuid for n, m in enumerate(modules) if m.uuid and n in needed))
    of_all = f"{len(needed)} of {counted(len(modules), 'module')}: those that stacks point into"
    found.fetch(wanted, f"fetching {of_all if here else counted(len(wanted), 'module')}")
    if here:
        found.take(here, list({m.uuid for m in modules if m.uuid}.difference(wanted)))
        # What is fetched later comes whole.
        found.files = {
            (u, k): f for (u, k), f in found.files.items() if u in wanted or (u, Kind.EXECUTABLE) in found.files
        }
    return found


def noted_sources_of(modules: Sequence[LoadedModule]) -> list[tuple[str, str]]:
    """Return where the dSYMs of modules say their sources are."""
    return noted_sources([(m.module.uuid, m.debug_info) for m in modules if m.debug_info and m.module.uuid])


def load_module(
    number: int,
    module: DumpModule,
    size: int,
    files: Mapping[tuple[UUID, Kind], ImageFile],
    placeholders: Placeholders,
    place: Path,
    *,
    deferred: bool = False,
) -> LoadedModule:
    """Return a module with its `files`; one without a binary gets a placeholder at `place`. Raises OSError."""
    executable, debug_info, ignored = files_of(module, files)
    placeholder = None
    if executable is None:
        placeholder = place
        deferred = deferred and module.uuid is not None
        placeholders.write(number, place, debug_info, deferred=deferred)
    symbols_only = number in placeholders.layouts
    return LoadedModule(
        *(module, executable, debug_info, ignored, placeholder, size),
        symbols_only=symbols_only,
        deferred=deferred and not executable,
    )


def files_of(
    module: DumpModule, files: Mapping[tuple[UUID, Kind], ImageFile]
) -> tuple[ImageFile | None, ImageFile | None, ImageFile | None]:
    """Return binary and dSYM of a module, and what was offered as its dSYM, but is another image's."""
    executable = files.get((module.uuid, Kind.EXECUTABLE)) if module.uuid else None
    debug_info = files.get((module.uuid, Kind.DEBUGINFO)) if module.uuid else None
    if debug_info and not is_debug_info(debug_info.path, module.uuid):
        return executable, None, debug_info
    return executable, debug_info, None


def text_sizes(dump: OpenedDump, header: DumpHeader) -> list[int]:
    """Return how far each module's code can reach: it lies in one region, and before the next module's header."""
    addresses = sorted({m.address for m in header.modules})
    sizes = []
    for module in header.modules:
        segment = dump.core.segment_at(module.address)
        ends = [segment.end] if segment else []
        position = bisect.bisect_right(addresses, module.address)
        if position < len(addresses):
            ends.append(addresses[position])
        sizes.append(min(ends) - module.address if ends else _UNKNOWN_TEXT)
    return sizes


def plan_of(loaded: LoadedModule, place: Path) -> ModulePlan:
    """Return what LLDB is to do with a module; `place` becomes a link to its binary. Raises OSError."""
    if loaded.executable:
        # LLDB calls a module by its file's name, and a cached file has a hash for a name.
        place.symlink_to(os.path.abspath(loaded.executable.path))  # noqa: PTH100 (Path.absolute leaves `..` in)
    return ModulePlan(
        loaded.module.uuid,
        loaded.module.address,
        executable=place if loaded.executable else None,
        symbols=loaded.debug_info.path.absolute() if loaded.debug_info else None,
        layout=loaded.executable.cache_uuid if loaded.executable else None,
        placeholder=loaded.placeholder,
        symbols_only=loaded.symbols_only,
        size=loaded.text_size,
        deferred=loaded.deferred,
    )


def _places(modules: Sequence[DumpModule], scratch: Path) -> list[Path]:
    """Return a path for each module that ends in its name; only modules of one name need folders of their own."""
    folder = scratch / "modules"
    folder.mkdir()
    places: list[Path] = []
    taken: set[str] = set()
    for number, module in enumerate(modules):
        name = file_name(module)
        place = folder / name
        if name.casefold() in taken:  # macOS's file system does not tell cases apart
            place = scratch / f"modules-{number}" / name
            place.parent.mkdir()
        taken.add(name.casefold())
        places.append(place)
    return places


def file_name(module: DumpModule) -> str:
    """Return the module's name, made harmless as a file name."""
    name = module.name
    if not name.isprintable() or "/" in name:
        name = "".join(c if c.isprintable() and c != "/" else "_" for c in name)
    while len(name.encode()) > 200:
        name = name[:-8]
    return name if name.strip(".") else f"module-{module.address:#x}"
