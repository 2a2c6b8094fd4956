"""The command `analyze`: what happened in one crash dump, or in thousands of them."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text

from symcache.cli.common import (
    BuildOption,
    CacheOption,
    JsonOption,
    LibraryOption,
    ServerOption,
    complain,
    count_progress,
    emit_json,
    errors_to_exit,
    existing_dump,
    out,
    plain,
    state,
    takes_utf8,
    to_output,
)
from symcache.cli.dumps import FetchBar, SymbolsOption, TimeoutOption, name_missing, name_symbols_only, warn
from symcache.cli.settings import binary_sources
from symcache.dump import Analysis, Frame, Limits, ThreadReport, analyze
from symcache.errors import EnvironmentFailure, SymcacheError, UsageError
from symcache.images import SourceRequest
from symcache.kinds import uuid_text
from symcache.macho import parse_uuid
from symcache.resolve import Progress
from symcache.text import printable

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(name="analyze")(analyze_)


def analyze_(
    dumps: Annotated[
        list[str],
        typer.Argument(metavar="DUMP...", help="Zips with header and core, bare cores, minidumps, crash reports."),
    ],
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    timeout: TimeoutOption = Limits.seconds,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Dumps at a time; 0: as many as cores.")] = 0,
    source: Annotated[bool, typer.Option("--source", help="Fetch sources; print the line of each frame.")] = False,
    json: JsonOption = False,
    html: Annotated[bool, typer.Option("--html", help="Print a page to keep or send.")] = False,
) -> None:
    """Print what happened: exception, every thread's frames, registers, modules. The crashed thread comes first."""
    with errors_to_exit():
        if json and html:
            raise UsageError("--json and --html exclude each other", hint="run it once for each")
        paths = [Path(text).expanduser() for text in dumps]
        work = _Work(symbols or [], library, server, parse_uuid(cache) if cache else None, build, timeout, source)
        worst = 0
        reports: list[dict[str, Any]] = []
        warned: set[str] = set()
        for path, result in _results(work, paths, jobs or os.cpu_count() or 1):
            # One server that is away is one warning, not one a dump.
            warn([p for p in result.problems if p not in warned])
            warned.update(result.problems)
            if result.analysis:
                missing = [(m.loaded.module.name, m.loaded.module.uuid) for m in result.analysis.missing]
                name_missing(missing, path, reported=result.analysis.loaded.walked)
                if not result.analysis.loaded.walked:  # a report needs no code
                    symbols_only = [m for m in result.analysis.modules if m.status == "symbols"]
                    name_symbols_only([(m.loaded.module.name, m.loaded.module.uuid) for m in symbols_only], path)
                with _error_as_result(path, result, printing=True):
                    if json or html:
                        reports.append(result.analysis.to_json())
                    else:
                        _print(result.analysis)
            if result.error:
                if len(paths) == 1 or state.debug:
                    raise result.error
                worst = max(worst, result.error.exit_code)
                reports.append({"dump": str(path), "error": str(result.error), "hint": result.error.hint})
                complain(str(result.error), result.error.hint)
        if json:
            emit_json(reports[0] if len(paths) == 1 else reports)
        if html:
            from symcache.dump.html import to_html  # noqa: PLC0415 (templates take their time to import)

            page = to_html(reports)  # which says that it is UTF-8
            with to_output():
                sys.stdout.write(page if takes_utf8() else page.encode("ascii", "xmlcharrefreplace").decode())
        if worst:
            raise typer.Exit(worst)


@dataclass(frozen=True, slots=True)
class _Work:
    """The options that hold for every dump."""

    symbols: Sequence[Path]
    library: str | None
    server: list[str] | None
    cache: UUID | None
    build: str | None
    timeout: float
    source: bool

    def run(self, path: Path, progress: Progress | None = None) -> _Result:
        """Analyze one dump, with library and connections of its own: any number of them run at a time."""
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
                        limits=Limits(seconds=self.timeout),
                        progress=progress,
                        sources=(sources.files or _NoSources()) if self.source else None,
                    )
                finally:
                    result.problems += sources.problems
        return result


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
    except SymcacheError as error:
        result.error = error
    except OSError as error:
        if printing:
            raise
        result.error = EnvironmentFailure(
            f"{error.filename or path}: {error.strerror or error}",
            hint="check that it can be read, and the free space",
        )
    except Exception as error:
        what = " ".join(f"{type(error).__name__} {error}".split())
        result.error = EnvironmentFailure(
            f"{path}: cannot be analyzed for a fault of symcache: {what}",
            hint="report what `symcache --debug analyze` shows for it",
        )
        result.error.__cause__ = error


def _results(work: _Work, paths: Sequence[Path], jobs: int) -> Iterator[tuple[Path, _Result]]:
    """Yield what came of each dump, in their order."""
    if len(paths) == 1:
        with FetchBar() as bar:
            result = work.run(paths[0], bar.report)
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


def _print(analysis: Analysis) -> None:
    loaded, header = analysis.loaded, analysis.loaded.header
    title = plain(header.executable.rpartition("/")[2] or "core")
    version = f" {plain(header.bundle_version)}" if header.bundle_version else ""
    out.print(f"[bold]{title}[/]{version}, {loaded.dump.core.arch}: {plain(str(loaded.dump.path))}")
    if loaded.build or loaded.cache_uuid:
        mapped = analysis.cache_uuid()
        cache = f", shared cache {uuid_text(mapped)}" if mapped else ""
        out.print(f"system:    build {plain(loaded.build or 'unknown')}{cache} (from: {loaded.cache_origin})")
    out.print(f"exception: {plain(analysis.exception.description)}")
    report = analysis.report
    for line in (*report.cause, *analysis.information) if report else ():
        out.print(f"           {plain(line)}")
    for note in report.notes if report else ():
        out.print(f"note:      {plain(note)}")
    out.print(f"signature: {analysis.signature()[0]}")
    if analysis.last_exception:
        out.print("\nlast exception, thrown at:")
        _print_frames(analysis.last_exception)
    for number, frames in enumerate(analysis.backtraces[1:]):
        if frames is not analysis.last_exception:
            out.print(f"\napplication-specific backtrace {number}:")
            _print_frames(frames)
    crashed = analysis.crashed
    for thread in (*([crashed] if crashed else []), *(t for t in analysis.threads if t is not crashed)):
        _print_thread(thread, crashed=thread is crashed)
        if thread is crashed:
            _print_registers(analysis.registers)
    out.print("\nmodules:")
    for module in analysis.modules:
        dumped, executable = module.loaded.module, module.loaded.executable
        uuid = uuid_text(dumped.uuid) if dumped.uuid else "-"
        note = " ".join(p for p in (executable.build if executable else "", module.detail) if p)
        symbols = " +dSYM" if module.debug_info and module.status in {"have", "memory"} else ""
        out.print(
            f"  {dumped.address:#018x}  {uuid:36}  {module.status + symbols:10}  {plain(dumped.path or dumped.name)}"
            + (f"  ({plain(note)})" if note else "")
        )


def _print_thread(thread: ThreadReport, *, crashed: bool) -> None:
    name = f" {plain(thread.name)}" if thread.name else ""
    out.print(f"\nthread {thread.index}{name}{' [bold red]crashed[/]' if crashed else ''}:")
    _print_frames(thread.frames)


def _print_frames(frames: Sequence[Frame]) -> None:
    for number, frame in enumerate(frames):
        out.print(f"  #{number:<3} {frame.address:#018x}  {plain(_frame_text(frame))}")
        if frame.source_line:
            line = printable(frame.source_line, keep="\t")
            out.print(Text(f"  {'':23} {line}", style="dim"))


def _frame_text(frame: Frame) -> str:
    module = frame.module.loaded.module if frame.module else None
    place = frame.module_name or "?"
    if frame.function:
        place += f"`{frame.function}"
        if frame.offset is not None and not frame.inlined:
            place += f" + {frame.offset}"
    elif module:
        place += f" + {frame.address - module.address:#x}"
    if frame.inlined:
        place += " [inlined]"
    if frame.other_function:
        place += f" (or {frame.other_function})"
    if frame.line:
        place += f" at {frame.file.rpartition('/')[2]}:{frame.line}"
    return place


def _print_registers(registers: dict[str, int]) -> None:
    out.print("  registers:")
    items = [f"{name:>6} {value:#018x}" for name, value in registers.items()]
    for start in range(0, len(items), 4):
        out.print("  " + "  ".join(items[start : start + 4]))
