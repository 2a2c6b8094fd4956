"""Commands over crash dumps: open, analyze."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self
from uuid import UUID

import typer
from rich.text import Text

from symcache.cli.common import (
    BuildOption,
    CacheOption,
    JsonOption,
    LibraryOption,
    ServerOption,
    console,
    emit_json,
    errors_to_exit,
    existing_path,
    out,
    percent_progress,
    plain,
    state,
)
from symcache.dump import (
    Analysis,
    Frame,
    Limits,
    LldbProcess,
    LoadedDump,
    Mode,
    ThreadReport,
    WantedSource,
    analyze,
    open_in_lldb,
)
from symcache.errors import SymcacheError, UsageError
from symcache.kinds import uuid_text
from symcache.macho import parse_uuid

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from symcache.cli.resolving import Sources

__all__ = ["register"]

SymbolsOption = Annotated[
    list[Path] | None,
    typer.Option("--symbols", metavar="DIR", help="Folder of own binaries and dSYMs, looked at first; repeatable."),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="For LLDB, a dump.")]
_NAMED = 12
"""Missing modules that are named one by one."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(name="open")(open_)
    app.command(name="analyze")(analyze_)


def open_(
    dump: Annotated[str, typer.Argument(metavar="DUMP", help="Zip with header and core, bare Mach-O core, minidump.")],
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    source_map: Annotated[
        list[str] | None,
        typer.Option("--source-map", metavar="FROM=TO", help="Where sources built at FROM are; repeatable."),
    ] = None,
    timeout: TimeoutOption = Limits.seconds,
) -> None:
    """Open a crash dump in LLDB: crashed thread selected, backtrace printed. Without a terminal it stops there."""
    with errors_to_exit():
        path = existing_path(dump)
        pairs = [_pair(text) for text in source_map or ()]
        wanted_cache = parse_uuid(cache) if cache else None
        mode = Mode.PROMPT if sys.stdin.isatty() and sys.stdout.isatty() else Mode.PRINT
        with LldbProcess(mode, Limits(seconds=timeout)) as lldb:
            from symcache.cli.resolving import binary_sources  # noqa: PLC0415 (while LLDB is being imported over there)

            with binary_sources(symbols or [], library, server) as sources, _FetchBar() as bar:

                def show(loaded: LoadedDump) -> None:
                    bar.stop()  # the terminal is LLDB's from here on
                    missing = [(m.module.name, m.module.uuid) for m in loaded.modules if not m.executable]
                    _name_missing(missing, loaded.dump.path, sources)
                    out.print(f"exception: {plain(loaded.exception.description)}")

                printed = open_in_lldb(
                    path,
                    sources.resolver,
                    lldb,
                    cache=wanted_cache,
                    build=build,
                    source_map=pairs,
                    progress=bar.report,
                    show=show,
                    sources=sources.files,
                )
                _warn(sources)
        if printed:
            # The text holds names out of the dump: control characters must not reach a terminal.
            out.print(Text("\n".join(_visible(line) for line in printed.splitlines())))


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
    source: Annotated[bool, typer.Option("--source", help="Fetch sources; print the line of each frame.")] = False,
    json: JsonOption = False,
    html: Annotated[bool, typer.Option("--html", help="Print a page to keep or send.")] = False,
) -> None:
    """Print what happened: exception, every thread's frames, registers, modules. The crashed thread comes first."""
    with errors_to_exit():
        if json and html:
            raise UsageError("--json and --html exclude each other", hint="run it once for each")
        paths = [existing_path(text) for text in dumps]
        wanted_cache = parse_uuid(cache) if cache else None
        worst = 0
        reports: list[dict[str, Any]] = []
        from symcache.cli.resolving import binary_sources  # noqa: PLC0415 (as in `open`)

        with binary_sources(symbols or [], library, server) as sources:
            for path in paths:
                try:
                    with _FetchBar() as bar:
                        analysis = analyze(
                            path,
                            sources.resolver,
                            cache=wanted_cache,
                            build=build,
                            limits=Limits(seconds=timeout),
                            progress=bar.report,
                            sources=(sources.files or _NoSources()) if source else None,
                        )
                except SymcacheError as error:
                    if len(paths) == 1 or state.debug:
                        raise
                    worst = max(worst, error.exit_code)
                    reports.append({"dump": str(path), "error": str(error), "hint": error.hint})
                    console.print(f"[bold red]error:[/] {plain(str(error))}")
                    continue
                _name_missing([(m.loaded.module.name, m.loaded.module.uuid) for m in analysis.missing], path, sources)
                if json or html:
                    reports.append(analysis.to_json())
                else:
                    _print(analysis)
        if json:
            emit_json(reports[0] if len(paths) == 1 else reports)
        if html:
            from symcache.dump.html import to_html  # noqa: PLC0415 (templates take their time to import)

            sys.stdout.write(to_html(reports))
        if worst:
            raise typer.Exit(worst)


class _NoSources:
    """For where no server is named: only folders that dSYMs note have sources."""

    def fetch(self, wanted: Sequence[WantedSource]) -> dict[WantedSource, Path]:
        """Return nothing."""
        del wanted
        return {}


class _FetchBar:
    """Shows on a terminal how far fetching is, from the first file on."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def report(self, done: int, total: int) -> None:
        """Take note of progress."""
        if not console.is_terminal:
            return
        if self._bar is None:
            self._bar = percent_progress()
            self._task = self._bar.add_task("fetching modules", total=None)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def stop(self) -> None:
        """Clear the line."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _name_missing(missing: list[tuple[str, UUID | None]], dump: Path, sources: Sources) -> None:
    _warn(sources)
    if not missing:
        return
    _say(f"[yellow]missing:[/] {len(missing)} modules of {plain(str(dump))}; their frames have no names")
    for name, uuid in missing[:_NAMED]:
        _say(f"  {uuid_text(uuid) if uuid else 'without UUID':36}  {plain(name)}")
    if len(missing) > _NAMED:
        _say(f"  … and {len(missing) - _NAMED} more (`symcache analyze --json` lists all)")
    _say("[dim]next:[/] harvest the macOS release they come from, or name a --server, or --symbols DIR")


def _warn(sources: Sources) -> None:
    for problem in sources.problems:
        _say(f"[yellow]warning:[/] {plain(problem)}")
    sources.problems.clear()


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not (source and equals and target):
        raise typer.BadParameter(f"{text!r}: write FROM=TO", param_hint="--source-map")
    return source, target


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _print(analysis: Analysis) -> None:
    loaded, header = analysis.loaded, analysis.loaded.header
    title = plain(header.executable.rpartition("/")[2] or "core")
    version = f" {plain(header.bundle_version)}" if header.bundle_version else ""
    out.print(f"[bold]{title}[/]{version}, {loaded.dump.core.arch}: {plain(str(loaded.dump.path))}")
    if loaded.build or loaded.cache_uuid:
        cache = f", shared cache {uuid_text(loaded.cache_uuid)}" if loaded.cache_uuid else ""
        out.print(f"system:    build {plain(loaded.build or 'unknown')}{cache} (from: {loaded.cache_origin})")
    out.print(f"exception: {plain(analysis.exception.description)}")
    out.print(f"signature: {analysis.signature()[0]}")
    crashed = analysis.crashed
    for thread in (crashed, *(t for t in analysis.threads if t is not crashed)):
        _print_thread(thread, crashed=thread is crashed)
        if thread is crashed:
            _print_registers(analysis.registers)
    out.print("\nmodules:")
    for module in analysis.modules:
        dumped, executable = module.loaded.module, module.loaded.executable
        uuid = uuid_text(dumped.uuid) if dumped.uuid else "-"
        note = " ".join(p for p in (executable.build if executable else "", module.detail) if p)
        symbols = " +dSYM" if module.debug_info else ""
        out.print(
            f"  {dumped.address:#018x}  {uuid:36}  {module.status + symbols:10}  {plain(dumped.path or dumped.name)}"
            + (f"  ({plain(note)})" if note else "")
        )


def _print_thread(thread: ThreadReport, *, crashed: bool) -> None:
    name = f" {plain(thread.name)}" if thread.name else ""
    out.print(f"\nthread {thread.index}{name}{' [bold red]crashed[/]' if crashed else ''}:")
    for number, frame in enumerate(thread.frames):
        out.print(f"  #{number:<3} {frame.address:#018x}  {plain(_frame_text(frame))}")
        if frame.source_line:
            out.print(Text(f"  {'':23} {_visible(frame.source_line)}", style="dim"))


def _frame_text(frame: Frame) -> str:
    module = frame.module.loaded.module if frame.module else None
    place = module.name if module else "?"
    if frame.function:
        place += f"`{frame.function}"
        if frame.offset is not None and not frame.inlined:
            place += f" + {frame.offset}"
    elif module:
        place += f" + {frame.address - module.address:#x}"
    if frame.inlined:
        place += " [inlined]"
    if frame.line:
        place += f" at {frame.file.rpartition('/')[2]}:{frame.line}"
    return place


def _print_registers(registers: dict[str, int]) -> None:
    out.print("  registers:")
    items = [f"{name:>6} {value:#018x}" for name, value in registers.items()]
    for start in range(0, len(items), 4):
        out.print("  " + "  ".join(items[start : start + 4]))
