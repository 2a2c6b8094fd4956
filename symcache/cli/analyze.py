"""The command `analyze`: what happened in one crash dump, or in thousands of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from symcache.cli.common import complain, error_of, errors_to_exit, existing_dump, state
from symcache.cli.dumps import (
    AllModulesOption,
    FetchBar,
    SourceMapOption,
    SymbolsOption,
    TimeoutOption,
    build_said,
    lldb_limits,
    name_missing,
    name_symbols_only,
    source_pair,
    symbol_folders,
    warn,
)
from symcache.cli.options import BuildOption, CacheOption, JsonOption, LibraryOption, ServerOption
from symcache.cli.progress import count_progress
from symcache.cli.settings import binary_sources, names_folder
from symcache.dump import Limits
from symcache.errors import SymcacheError
from symcache.images import SourceRequest
from symcache.macho import parse_uuid

if TYPE_CHECKING:
    from symcache.dump import Analysis
    from symcache.resolve import SourceFiles

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(name="analyze")(analyze_)


def analyze_(
    dumps: Annotated[
        list[str],
        typer.Argument(metavar="DUMP", help="Zips with header and core, bare cores, minidumps, crash reports."),
    ],
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    all_modules: AllModulesOption = False,
    timeout: TimeoutOption = Limits.seconds,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=0, help="Dumps at a time; 0: as many as cores.")
    ] = 0,
    source_map: SourceMapOption = None,
    source: Annotated[bool, typer.Option("--source", help="Fetch sources; print the line of each frame.")] = False,
    json: JsonOption = False,
    html: Annotated[bool, typer.Option("--html", help="Print a page to keep or send.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write a file for each, JSON or a page (--html)."),
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="Print signatures, the most frequent first.")] = False,
) -> None:
    """Print what happened: exception, every thread's frames, registers, modules. The crashed thread comes first."""
    from symcache.cli.analysis_output import output_of

    with errors_to_exit(), names_folder() as names:
        paths = [Path(text).expanduser() for text in dumps]
        results = output_of(many=len(paths) > 1, folder=output, group=group, as_json=json, html=html)
        jobs = min(jobs or os.cpu_count() or 1, len(paths))
        work = _Work(
            symbols=symbol_folders(symbols),
            library=library,
            server=server,
            cache=parse_uuid(cache) if cache else None,
            build=build,
            limits=lldb_limits(timeout, jobs),
            source=source,
            names=names,
            source_map=[source_pair(text) for text in source_map or ()],
            all_modules=all_modules,
        )
        worst = 0
        warned: set[str] = set()
        for path, result in _results(work, paths, jobs):
            # One server that is away is one warning, not one a dump.
            warn([p for p in result.problems if p not in warned])
            warned.update(result.problems)
            if result.analysis:
                if not results.quiet:
                    _name_wanting(path, result.analysis, warned=bool(result.problems))
                with _error_as_result(path, result, printing=True):
                    results.take(path, result.analysis)
            if result.error:
                if len(paths) == 1 or state.debug:
                    raise result.error
                worst = max(worst, result.error.exit_code)
                results.fail(path, result.error)
                complain(str(result.error), result.error.hint)
        results.close()
        if worst:
            raise typer.Exit(worst)


def _name_wanting(path: Path, analysis: Analysis, *, warned: bool) -> None:
    """Say of which modules there is nothing, or no code. `warned`: a server could not be asked."""
    missing = [(m.loaded.module.name, m.loaded.module.uuid) for m in analysis.missing]
    name_missing(missing, path, warned=warned, reported=analysis.loaded.walked, build=build_said(analysis.loaded))
    if not analysis.loaded.walked:  # a report needs no code
        symbols_only = [m for m in analysis.modules if m.status == "symbols"]
        name_symbols_only([(m.loaded.module.name, m.loaded.module.uuid) for m in symbols_only], path)


@dataclass(frozen=True, slots=True)
class _Work:
    """The options that hold for every dump."""

    symbols: Sequence[Path]
    library: str | None
    server: list[str] | None
    cache: UUID | None
    build: str | None
    limits: Limits
    source: bool
    names: Path
    source_map: Sequence[tuple[str, str]] = ()
    """Folders in which sources were compiled, and where they are; the frames then have their lines."""
    all_modules: bool = False

    def run(self, path: Path, bar: FetchBar | None = None) -> _Result:
        """Analyze one dump, with library and connections of its own: any number of them run at a time."""
        from symcache.dump import analyze

        result = _Result()
        with _error_as_result(path, result):
            existing_dump(str(path))
            with binary_sources(self.symbols, self.library, self.server) as sources:
                try:
                    result.analysis = analyze(
                        path,
                        sources.resolver,
                        cache=self.cache,
                        build=self.build,
                        limits=self.limits,
                        here=None if self.all_modules else sources.here,
                        fetching=bar.fetching if bar else None,
                        source_map=self.source_map,
                        sources=self._sources(sources.files),
                        names=self.names,
                    )
                finally:
                    result.problems += sources.problems
        return result

    def _sources(self, fetched: SourceFiles | None) -> SourceFiles | None:
        if self.source:
            return fetched or _NoSources()
        return _NoSources() if self.source_map else None


@dataclass(slots=True)
class _Result:
    """An analysis or an error, and why servers were left out."""

    analysis: Analysis | None = None
    error: SymcacheError | None = None
    problems: list[str] = field(default_factory=list)


@contextmanager
def _error_as_result(path: Path, result: _Result, *, printing: bool = False) -> Iterator[None]:
    """Make whatever goes wrong with one dump its own result: there may be thousands of others.

    While `printing`, errors of the system are those of standard output.
    """
    try:
        yield
    except Exception as error:
        if printing and isinstance(error, OSError):
            raise
        result.error = error_of(path, error, "analyze", "analyzed")


def _results(work: _Work, paths: Sequence[Path], jobs: int) -> Iterator[tuple[Path, _Result]]:
    """Yield what came of each dump, in their order."""
    if len(paths) == 1:
        with FetchBar() as bar:
            result = work.run(paths[0], bar)
        yield paths[0], result
        return
    with ThreadPoolExecutor(jobs, thread_name_prefix="analyze") as pool, count_progress() as bar:
        task = bar.add_task("analyzing", total=len(paths))
        pending: deque[tuple[Path, Future[_Result]]] = deque()
        try:
            for path in paths:
                pending.append((path, pool.submit(work.run, path)))
                if len(pending) > 2 * jobs:  # what is done waits in memory for its turn
                    yield _next(pending)
                    bar.advance(task)
            while pending:
                yield _next(pending)
                bar.advance(task)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _next(pending: deque[tuple[Path, Future[_Result]]]) -> tuple[Path, _Result]:
    path, future = pending.popleft()
    return path, future.result()


class _NoSources:
    """For where no server is named: only folders that dSYMs note have sources."""

    def fetch(self, requests: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        """Return nothing."""
        del requests
        return {}
