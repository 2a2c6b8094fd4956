"""From a dump or a crash report to what happened, with LLDB's help."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from symcache.demangle import demangle
from symcache.dump.findings import Analysis, Frame, ModuleReport, ThreadReport
from symcache.dump.late_modules import LateModules
from symcache.dump.lldb_child.process import Limits, LldbProcess, Mode
from symcache.dump.lldb_child.protocol import ChildFrame, ChildModule
from symcache.dump.lldb_child.requests import FindSources
from symcache.dump.loader import LoadedDump, LoadedModule
from symcache.dump.minidump_loader import load_dump_or_minidump
from symcache.dump.module_files import Fetching, Search
from symcache.dump.sources.lines import SourceFinder
from symcache.dump.sources.revisions import NotedSources
from symcache.errors import DumpError
from symcache.images import SourceRequest
from symcache.kinds import uuid_text
from symcache.reports import is_report, read_report
from symcache.resolve import ModuleResolver, SourceFiles
from symcache.scratch import ScratchFolder, memory_folder

if TYPE_CHECKING:
    from symcache.symbolicate import NamesFolder

__all__ = ["analyze", "open_in_lldb"]


def analyze(
    path: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    limits: Limits | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    here: ModuleResolver | None = None,
    fetching: Fetching | None = None,
    sources: SourceFiles | None = None,
    names: Path | None = None,
) -> Analysis:
    """Open a dump in LLDB, or name the frames of a crash report, and return what it says.

    With `here`, which finds what need not be fetched, only the modules that threads are in are fetched with `resolver`.
    With `sources`, the frames have the text of their source lines, too; of those compiled below the first folder of a
    pair in `source_map`, from the second. In the folder `names` is kept what was read of symbols, or else thrown away.

    Raises DumpError, DebuggerError, OSError.
    """
    with ExitStack() as stack:
        places = Path(stack.enter_context(ScratchFolder("modules", memory_folder())))
        search = Search(resolver, cache, build, source_map, here, fetching, places)

        def tables() -> NamesFolder:
            from symcache.symbolicate import NamesFolder  # noqa: PLC0415 - takes its time to import

            return NamesFolder(names or Path(stack.enter_context(ScratchFolder("names"))))

        if is_report(path):
            from symcache.dump.report_analysis import analyze_report  # noqa: PLC0415 - as above

            analysis = analyze_report(path, read_report(path), search, tables())
        else:
            analysis = _analyze_dump(path, search, limits)
            if any(frame.wants_name for thread in analysis.threads for frame in thread.frames):
                from symcache.dump.module_names import with_names  # noqa: PLC0415 - as above

                analysis = replace(analysis, threads=with_names(analysis.loaded, analysis.threads, tables()))
    if sources is None:
        return analysis
    # The backtraces of an exception are among the threads until they have their source lines.
    count = len(analysis.threads)
    threads = (*analysis.threads, *(ThreadReport(-1, "", frames) for frames in analysis.backtraces))
    with ScratchFolder("sources") as folder:
        noted = NotedSources(analysis.loaded.modules, Path(folder, "noted"), sources)
        threads = SourceFinder(analysis.loaded.plan.source_map, noted).with_lines(threads)
    backtraces = tuple(backtrace.frames for backtrace in threads[count:])
    return replace(analysis, threads=threads[:count], backtraces=backtraces)


def _analyze_dump(path: Path, search: Search, limits: Limits | None) -> Analysis:
    with ScratchFolder("dump") as folder, LldbProcess(Mode.ANALYZE, limits) as lldb:
        scratch = Path(folder)
        late = LateModules(load_dump_or_minidump(path, scratch, search), scratch)
        report = lldb.report(late.loaded.plan, str(path), late.fetch)
        loaded = late.loaded
    modules = tuple(_module(n, m, r) for n, (m, r) in enumerate(zip(loaded.modules, report.modules, strict=True)))
    if len(report.threads) <= loaded.header.thread:
        raise DumpError(
            f"{path}: LLDB shows {len(report.threads)} threads where it has {len(loaded.dump.core.threads)}",
            hint="the dump is damaged, or this version of LLDB does not read its kind (docs/lldb.md)",
        )
    finder = _ModuleFinder(loaded, modules)
    names = dict(enumerate(loaded.names))
    # Where no registers were written, LLDB shows a frame at an address that it made up.
    silent = {t.number for t in loaded.dump.core.threads if not t.registers}
    threads = tuple(
        ThreadReport(
            number,
            thread.name or names.get(number, ""),
            tuple(finder.frame(f) for f in thread.frames if number not in silent),
        )
        for number, thread in enumerate(report.threads)
    )
    return Analysis(loaded, loaded.exception, threads, modules, report.version)


def open_in_lldb(
    path: Path,
    resolver: ModuleResolver,
    lldb: LldbProcess,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    here: ModuleResolver | None = None,
    fetching: Fetching | None = None,
    on_loaded: Callable[[LoadedDump], None] | None = None,
    sources: SourceFiles | None = None,
    problems: Sequence[str] = (),
) -> str:
    """Open a dump in LLDB with the crashed thread selected, and return what `bt` prints; or leave the user its prompt.

    Behind it stand the source lines around the first frame whose source is here, or can be had from `sources`.

    `lldb` was started for the one (`Mode.PRINT`) or the other (`Mode.PROMPT`). `on_loaded` is called before it gets to
    work. With `here`, which finds what need not be fetched, only the modules that threads are in are fetched with
    `resolver`, and the others when something at the prompt asks for them; `problems` is where the resolver says which
    servers it cannot use. Raises DumpError, DebuggerError, OSError.
    """
    with ScratchFolder("dump") as folder, ScratchFolder("modules", memory_folder()) as places:
        scratch = Path(folder)
        search = Search(resolver, cache, build, source_map, here, fetching, Path(places))
        loaded = load_dump_or_minidump(path, scratch, search)
        if on_loaded:
            on_loaded(loaded)
        noted = NotedSources(loaded.modules, scratch / "noted", sources)
        find_sources = _source_finder(loaded, noted, scratch) if noted else None
        late = LateModules(loaded, scratch, problems)
        if lldb.mode is Mode.PROMPT:
            lldb.prompt(loaded.plan, str(path), find_sources, late.fetch_at_prompt)
            return ""
        return lldb.backtrace(loaded.plan, str(path), find_sources, late.fetch)


def _source_finder(loaded: LoadedDump, sources: SourceFiles, scratch: Path) -> FindSources:
    """Return a function that responds to the worker's request for source files with the folders to map."""
    known = {uuid_text(m.module.uuid): m.module.uuid for m in loaded.modules if m.module.uuid}
    finder = SourceFinder(loaded.plan.source_map, sources)

    def find_sources(request: list[tuple[str, str]]) -> list[tuple[str, str]]:
        wanted = [SourceRequest(known[uuid], path) for uuid, path in request if uuid in known]
        return finder.map_fetched(wanted, scratch / "sources")

    return find_sources


class _ModuleFinder:
    """Maps what LLDB says of a frame to the dump's modules."""

    def __init__(self, loaded: LoadedDump, modules: Sequence[ModuleReport]) -> None:
        self._by_path = {str(p.file): module for p, module in zip(loaded.plan.modules, modules, strict=True)}
        self._by_uuid = {uuid_text(m.loaded.module.uuid): m for m in modules if m.loaded.module.uuid}
        self._by_address = sorted(modules, key=lambda m: m.loaded.module.address)
        self._addresses = [m.loaded.module.address for m in self._by_address]

    def frame(self, frame: ChildFrame) -> Frame:
        """Return a frame, with its module."""
        module = self._by_path.get(frame.module) or self._by_uuid.get(frame.uuid) or self._covering(frame.pc)
        function = demangle(frame.function)
        return Frame(
            *(frame.pc, module, function, frame.offset),
            *(frame.file, frame.line, frame.column, frame.inlined),
            mangled=frame.mangled or (frame.function if function != frame.function else ""),
        )

    def _covering(self, address: int) -> ModuleReport | None:
        position = bisect.bisect_right(self._addresses, address) - 1
        if position >= 0:
            module = self._by_address[position]
            if address - module.loaded.module.address < module.loaded.text_size:
                return module
        return None


def _module(number: int, loaded: LoadedModule, report: ChildModule) -> ModuleReport:
    status = {"loaded": "have"}.get(report.state, report.state)
    if status == "missing" and loaded.module.uuid is None:
        status = "no-uuid"
    elif status == "missing" and loaded.deferred:
        status = "unfetched"
    address = report.file_address
    slide = loaded.module.address - address if address is not None and status == "have" else None
    detail = report.detail
    if loaded.ignored:
        detail = detail or f"{loaded.ignored.path} is not its debug info"
    elif loaded.debug_info and not loaded.executable and status == "missing" and not loaded.symbols_only:
        detail = detail or f"the load commands of its debug info {loaded.debug_info.path} are not of this image"
    elif loaded.debug_info and status in {"have", "missing", "memory"} and not report.symbols:
        detail = detail or f"LLDB ignores its debug info {loaded.debug_info.path}"
    return ModuleReport(number, loaded, status, report.symbols, detail, slide)
