"""From a dump to a plan for the debugger: modules found by UUID, placeholders for those that nobody has."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump.backing import back_code, framed_modules, frameless_counters, hide_code
from symcache.dump.container import OpenedDump, open_dump
from symcache.dump.core import Core, CoreThread, Segment
from symcache.dump.exceptions import CrashException, describe_exception
from symcache.dump.header import DumpHeader, DumpModule
from symcache.dump.notes import header_of_core
from symcache.dump.placeholder import unknown_layout, write_placeholder
from symcache.dump.registers import CPU_TYPE_ARM64, CPU_TYPE_X86_64
from symcache.dump.reports import Report
from symcache.dump.sources import source_maps
from symcache.dump.symbols import CacheGuess, ModuleResolver, Progress, ResolvedFile, Wanted, header_address
from symcache.dump.symbols_only import frameless_functions, image_layout
from symcache.errors import FormatError
from symcache.kinds import Kind, uuid_text
from symcache.macho import identify

__all__ = ["LoadedDump", "LoadedModule", "load", "load_dump", "load_report"]

_ARCHS = {CPU_TYPE_X86_64: "x86_64", CPU_TYPE_ARM64: "arm64"}
_CODE = 5
_UNKNOWN_TEXT = 16 << 20
"""Assumed size of a module's code when neither a region nor a next module bounds it."""
_MAX_GUESSES = 8
_ENOUGH = 2
"""Images that must lie in a shared cache before it is taken for the crashed machine's."""


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """One module of the dump and what was found for it."""

    module: DumpModule
    executable: ResolvedFile | None
    debug_info: ResolvedFile | None
    ignored: ResolvedFile | None
    """What was offered as its debug info, but is another image's: LLDB would say nothing and show no lines."""
    placeholder: Path | None
    text_size: int
    """Bytes from its header to where the next module or the end of the memory region bounds its code."""
    symbols_only: bool = False
    """Its dSYM is all that was found, and the placeholder is laid out for it."""

    @property
    def found(self) -> bool:
        """Whether its frames can be named."""
        return self.executable is not None or self.symbols_only


@dataclass(frozen=True, slots=True)
class LoadedDump:
    """A dump, its modules, and the plan that worker.py follows."""

    dump: OpenedDump
    header: DumpHeader
    modules: tuple[LoadedModule, ...]
    cache_uuid: UUID | None
    build: str | None
    cache_origin: str
    """How cache and build are known: `option`, `dump`, `inferred`, or empty where they are not."""
    plan: dict[str, Any]
    exception: CrashException
    """What stopped the crashed thread."""
    walked: bool = False
    """A report's, whose frames were known."""
    names: tuple[str, ...] = ()
    """Of the threads, as far as the file tells them; LLDB may know others."""


def load_dump(
    path: Path,
    scratch: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
) -> LoadedDump:
    """Open a dump and find its modules. Raises DumpError, and what the resolver raises.

    `scratch` must be an empty folder; it holds the core, links and placeholders for as long as the debugger runs.
    """
    dump = open_dump(path, scratch)
    header = dump.header or header_of_core(path, dump.core)
    return load(dump, header, scratch, resolver, cache=cache, build=build, source_map=source_map, progress=progress)


def load_report(
    path: Path,
    report: Report,
    scratch: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    progress: Progress | None = None,
) -> LoadedDump:
    """Find the modules of a crash report, as a dump whose core has threads but no memory. As `load_dump` else."""
    sizes = {image.address: image.size for image in report.images}
    regions = tuple(sorted(Segment(m.address, sizes.get(m.address, 0), 0, 0, _CODE, 0) for m in report.header.modules))
    threads = tuple(
        CoreThread(n, report.registers if n == report.header.thread else {}, None) for n in range(len(report.threads))
    )
    cputype = next(number for number, name in _ARCHS.items() if name == report.arch)
    dump = OpenedDump(path, report.header, Core(report.arch, cputype, regions, threads, ()), path)
    loaded = load(
        *(dump, report.header, scratch, resolver),
        cache=cache,
        build=build,
        source_map=(),
        progress=progress,
        exception=report.exception,
        walk=False,
    )
    frames = [list(thread.frames) for thread in report.threads]
    loaded.plan.update(core=None, frames=frames, thrown=list(report.last_exception))
    return replace(loaded, names=tuple(thread.name for thread in report.threads))


def load(
    dump: OpenedDump,
    header: DumpHeader,
    scratch: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None,
    build: str | None,
    source_map: Sequence[tuple[str, str]],
    progress: Progress | None,
    exception: CrashException | None = None,
    walk: bool = True,
    memory: Core | None = None,
) -> LoadedDump:
    """Find the modules of a dump that has been opened; see `load_dump`. `exception` is None if the core tells.

    `walk`: its frames are yet to be walked. `memory`: what is held of the process, if the dump's core does not tell.
    """
    cache, build, origin = _pin(header, resolver, cache, build)
    uuids = list(dict.fromkeys(m.uuid for m in header.modules if m.uuid))
    found = _resolve(resolver, uuids, cache, build, progress)
    sizes = _text_sizes(dump, header)
    lost = [n for n, m in enumerate(header.modules) if (m.uuid, Kind.EXECUTABLE) not in found]
    layouts = {n: layout for n in lost if (layout := image_layout(dump, header, sizes, n, found))}
    missing = [(header.modules[n].address, sizes[n]) for n in lost]
    # Where functions are known, content that is none would be taken for their instructions, and what is there is right.
    unknown = {(header.modules[n].address, sizes[n]) for n in lost if n not in layouts}
    # A report has its frames already; a bare core is the user's file, an unpacked one ours.
    unpacked = dump.core_path != dump.path
    framed = framed_modules(dump, header.thread, missing) if unpacked or dump.header is None else []
    if unpacked:
        back_code(dump, [m for m in framed if m in unknown])
        hide_code(dump, [m for m in missing if m not in framed and m in unknown])
    # The frames of a report have been walked already.
    bare = frameless_counters(replace(dump, core=memory or dump.core), header.thread) if layouts and walk else []
    places = _places(header.modules, scratch)
    modules = []
    for number, (module, size) in enumerate(zip(header.modules, sizes, strict=True)):
        executable = found.get((module.uuid, Kind.EXECUTABLE)) if module.uuid else None
        debug_info = found.get((module.uuid, Kind.DEBUGINFO)) if module.uuid else None
        ignored = None
        if debug_info and not _is_debug_info(debug_info.path, module.uuid):
            debug_info, ignored = None, debug_info
        placeholder = None
        if executable is None:
            placeholder = places[number]
            write_placeholder(
                placeholder,
                dump.core.cputype,
                module.uuid or UUID(int=0),  # of zeros: LLDB's UUID of none
                module.path,
                layouts.get(number) or unknown_layout(dump.core.cputype, size),
                executable=(module.address, size) in framed,
                hollow=number in layouts,
                frameless=frameless_functions(module, layouts[number], debug_info, bare) if number in layouts else (),
            )
        modules.append(
            LoadedModule(module, executable, debug_info, ignored, placeholder, size, symbols_only=number in layouts)
        )
    plan = {
        "core": str(dump.core_path.absolute()),
        "triple": f"{_ARCHS[dump.core.cputype]}-apple-macosx",
        "thread": header.thread,
        "source_map": [list(pair) for pair in (*source_map, *_noted_sources(modules))],
        "modules": [_planned(m, place) for m, place in zip(modules, places, strict=True)],
    }
    exception = exception or describe_exception(dump.core, dump.core.threads[header.thread])
    return LoadedDump(dump, header, tuple(modules), cache, build, origin, plan, exception, walked=not walk)


def _pin(
    header: DumpHeader, resolver: ModuleResolver, cache: UUID | None, build: str | None
) -> tuple[UUID | None, str | None, str]:
    """Return the shared cache and build to prefer. What the dump notes is better than what can be inferred."""
    if cache or build:
        return cache, build, "option"
    if header.cache_uuid or header.os_build:
        return header.cache_uuid, header.os_build, "dump"
    loads = {m.uuid: m.address for m in header.modules if m.uuid}
    guesses = [g for g in resolver.guess_caches(loads) if g.images >= _ENOUGH]
    best = [g for g in guesses if g.images == guesses[0].images][:_MAX_GUESSES]
    # Builds that share all these images lay them out differently: the addresses tell.
    fitting = best if len(best) == 1 else [g for g in best if _fits(resolver, loads, g)]
    for guess in fitting or best:
        return guess.cache, guess.build, "inferred"
    return None, None, ""


def _fits(resolver: ModuleResolver, loads: Mapping[UUID, int], guess: CacheGuess) -> bool:
    """Return whether one slide explains the addresses of some images, as this cache lays them out."""
    slides = set()
    for wanted, file in resolver.resolve([Wanted(u, cache=guess.cache) for u in loads]).items():
        if file.cache_uuid == guess.cache and (linked := header_address(file.path, wanted.uuid)) is not None:
            slides.add(loads[wanted.uuid] - linked)
    return len(slides) == 1


def _resolve(
    resolver: ModuleResolver, uuids: Sequence[UUID], cache: UUID | None, build: str | None, progress: Progress | None
) -> dict[tuple[UUID, Kind], ResolvedFile]:
    """Ask for the variants of the crashed machine, then for any variant of what is left.

    An unchanged image of another build still gives right names; an application's own binaries have no build.
    """
    found: dict[tuple[UUID, Kind], ResolvedFile] = {}
    questions: list[list[Wanted]] = [[Wanted(u, kind) for u in uuids for kind in Kind]]
    if cache:
        questions.insert(0, [Wanted(u, Kind.EXECUTABLE, cache=cache) for u in uuids])
    elif build:
        questions.insert(0, [Wanted(u, Kind.EXECUTABLE, build=build) for u in uuids])
    for question in questions:
        left = [w for w in question if (w.uuid, w.kind) not in found]
        for wanted, file in resolver.resolve(left, progress).items():
            found[wanted.uuid, wanted.kind] = file
    return found


def _noted_sources(modules: Sequence[LoadedModule]) -> list[tuple[str, str]]:
    """Return where dSYMs say their sources are, but only what is really there."""
    pairs: dict[str, str] = {}
    for one in modules:
        if one.debug_info and one.module.uuid:
            for recorded, present in (*source_maps(one.debug_info.path, one.module.uuid), *one.debug_info.sources):
                if Path(present).is_absolute() and Path(present).is_dir():
                    pairs.setdefault(recorded, present)
    return list(pairs.items())


def _is_debug_info(path: Path, uuid: UUID | None) -> bool:
    try:
        return any(s.uuid == uuid and s.kind is Kind.DEBUGINFO for s in identify(path))
    except (FormatError, OSError):
        return False


def _text_sizes(dump: OpenedDump, header: DumpHeader) -> list[int]:
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


def _planned(loaded: LoadedModule, place: Path) -> dict[str, Any]:
    if loaded.executable:
        # LLDB calls a module by its file's name, and a cached file has a hash for a name.
        place.symlink_to(os.path.abspath(loaded.executable.path))  # noqa: PTH100 (Path.absolute leaves `..` in)
    uuid = loaded.module.uuid
    layout = loaded.executable.cache_uuid if loaded.executable else None
    return {
        "uuid": uuid_text(uuid) if uuid else "",
        "address": loaded.module.address,
        "path": str(place) if loaded.executable else None,
        "symbols": str(loaded.debug_info.path.absolute()) if loaded.debug_info else None,
        "layout": uuid_text(layout) if layout else None,
        "placeholder": str(loaded.placeholder) if loaded.placeholder else None,
        "symbols_only": loaded.symbols_only,
    }


def _places(modules: Sequence[DumpModule], scratch: Path) -> list[Path]:
    """Return a path for each module that ends in its name; only modules of one name need folders of their own."""
    folder = scratch / "modules"
    folder.mkdir()
    places: list[Path] = []
    taken: set[str] = set()
    for number, module in enumerate(modules):
        name = _file_name(module)
        place = folder / name
        if name.casefold() in taken:  # macOS's file system does not tell cases apart
            place = scratch / f"modules-{number}" / name
            place.parent.mkdir()
        taken.add(name.casefold())
        places.append(place)
    return places


def _file_name(module: DumpModule) -> str:
    """Return the module's name, made harmless as a file name."""
    name = "".join(c if c.isprintable() and c != "/" else "_" for c in module.name)
    while len(name.encode()) > 200:
        name = name[:-8]
    return name if name.strip(".") else f"module-{module.address:#x}"
