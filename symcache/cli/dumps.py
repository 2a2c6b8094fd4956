"""The command `open`, and what it has in common with `analyze`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import typer
from rich.text import Text

from symcache.cli.common import (
    console,
    errors_to_exit,
    existing_dump,
    existing_path,
    out,
    plain,
    state,
)
from symcache.cli.options import BuildOption, CacheOption, LibraryOption, ServerOption
from symcache.cli.progress import percent_progress
from symcache.cli.settings import binary_sources, lldb_memory
from symcache.confined import machine_memory, unconfined_parts
from symcache.dump import Limits, LldbProcess, Mode
from symcache.kinds import uuid_text
from symcache.macho import parse_uuid
from symcache.text import counted, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from symcache.dump import LoadedDump

__all__ = [
    "AllModulesOption",
    "FetchBar",
    "SourceMapOption",
    "SymbolsOption",
    "TimeoutOption",
    "lldb_limits",
    "name_missing",
    "name_symbols_only",
    "name_wanting",
    "register",
    "source_pair",
    "symbol_folders",
    "warn",
]

SourceMapOption = Annotated[
    list[str] | None,
    typer.Option("--source-map", metavar="FROM=TO", help="Where sources built at FROM are; may be repeated."),
]
SymbolsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--symbols", metavar="DIR", help="Folder of own binaries and dSYMs, looked at first; may be repeated."
    ),
]
AllModulesOption = Annotated[
    bool, typer.Option("--all-modules", help="Fetch all modules, not only those that threads are in: for use offline.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=1, metavar="SECONDS", help="That LLDB may take for a dump.")
]
_LEAST_MEMORY = 512 << 20
_NAMED = 12
"""Missing modules that are named one by one."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(name="open")(open_)


def open_(
    dump: Annotated[str, typer.Argument(metavar="DUMP", help="Zip with header and core, bare Mach-O core, minidump.")],
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    source_map: SourceMapOption = None,
    all_modules: AllModulesOption = False,
    timeout: TimeoutOption = Limits.seconds,
    write: Annotated[
        list[Path] | None,
        typer.Option(
            "--write", metavar="DIR", help="Folder that commands at the prompt may write into; may be repeated."
        ),
    ] = None,
) -> None:
    """Open a crash dump in LLDB: crashed thread selected, backtrace printed. Without a terminal it stops there."""
    with errors_to_exit():
        writable = [existing_path(str(folder)) for folder in write or ()]
        path = existing_dump(dump)
        folders = symbol_folders(symbols)
        pairs = [source_pair(text) for text in source_map or ()]
        wanted_cache = parse_uuid(cache) if cache else None
        mode = Mode.PROMPT if sys.stdin.isatty() and sys.stdout.isatty() else Mode.PRINT
        with (
            LldbProcess(mode, lldb_limits(timeout), writable) as lldb,  # which imports LLDB meanwhile
            binary_sources(folders, library, server) as sources,
            FetchBar() as bar,
        ):
            from symcache.dump import open_in_lldb

            def report_missing(loaded: LoadedDump) -> None:
                bar.stop()  # the terminal is LLDB's from here on
                warn(sources.problems)
                name_wanting(loaded, warned=bool(sources.problems))
                sources.problems.clear()
                out.print(f"exception: {plain(loaded.exception.description)}")

            printed = open_in_lldb(
                path,
                sources.resolver,
                lldb,
                cache=wanted_cache,
                build=build,
                source_map=pairs,
                here=None if all_modules else sources.here,
                fetching=bar.fetching,
                on_loaded=report_missing,
                sources=sources.files,
                problems=sources.problems,
            )
            warn(sources.problems)
        if printed:
            # The text holds names out of the dump: control characters must not reach a terminal.
            out.print(Text(printable("\n".join(printed.splitlines()), keep="\t\n")))


def symbol_folders(named: list[Path] | None) -> list[Path]:
    """Return what `--symbols` names. Raises UsageError for what is not there."""
    return [existing_path(str(folder)) for folder in named or ()]


def lldb_limits(seconds: float, jobs: int = 1) -> Limits:
    """Return the limits of each LLDB of `jobs`; with --debug, say them and what there is no way to keep LLDB from.

    Raises UsageError.
    """
    share = max(machine_memory() * 3 // 4 // jobs, _LEAST_MEMORY)
    limits = Limits(seconds=seconds, memory=min(lldb_memory() or Limits.memory, share))
    if state.debug:
        _say(f"[dim]LLDB may take:[/] {seconds:g} seconds and {limits.memory / (1 << 30):.1f} GiB of memory")
        for part in unconfined_parts():
            _say(f"[yellow]not confined:[/] {plain(part)}")
    return limits


class FetchBar:
    """Shows on a terminal how far fetching is, from the first file on."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def fetching(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """Yield what takes note of progress; `text` says what is fetched, and why."""

        def report(done: int, total: int) -> None:
            if not console.is_terminal:
                return
            if self._bar is None:
                self._bar = percent_progress()
                self._task = self._bar.add_task(plain(text), total=None)
                self._bar.start()
            if self._task is not None:
                self._bar.update(self._task, completed=done, total=total)

        try:
            yield report
        finally:
            self.stop()

    def stop(self) -> None:
        """Clear the line."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def name_wanting(loaded: LoadedDump, *, warned: bool) -> None:
    """Name the modules of a dump of which there is nothing, or no binary, before LLDB has seen it.

    `warned`: a server could not be asked.
    """
    modules, dump = loaded.modules, loaded.dump.path
    name_missing(
        [(m.module.name, m.module.uuid) for m in modules if not (m.available or m.deferred)],
        dump,
        warned=warned,
        build=build_said(loaded),
    )
    name_symbols_only([(m.module.name, m.module.uuid) for m in modules if m.symbols_only], dump)


def build_said(loaded: LoadedDump) -> str | None:
    """Return the build of the crashed system where the dump says it: what was inferred is here already."""
    return loaded.build if loaded.cache_origin == "dump" else None


def name_missing(
    missing: Sequence[tuple[str, UUID | None]],
    dump: Path | str,
    *,
    warned: bool,
    reported: bool = False,
    command: str = "analyze",
    build: str | None = None,
) -> None:
    """Name the modules of a dump that nobody has.

    `warned`: a server could not be asked, so that one may. `reported`: it is a crash report, which may have names
    itself. `command`: the one whose JSON lists all. `build`: of macOS, as the dump says.
    """
    if not missing:
        return
    names = "only the names that the report itself has" if reported else "no names"
    _say(f"[yellow]missing:[/] {counted(len(missing), 'module')} of {plain(str(dump))}; their frames have {names}")
    _list(missing, command)
    if warned:
        _say("[dim]next:[/] mend what the warning names: that server may have them, and could not be asked")
    else:
        which = f" ({plain(build)})" if build else ""
        _say(
            f"[dim]next:[/] harvest the release they come from{which}, add your own binaries,"
            " or name a --server, or --symbols DIR"
        )


def name_symbols_only(modules: Sequence[tuple[str, UUID | None]], dump: Path) -> None:
    """Name the modules of a dump of which there is a dSYM, but no binary."""
    if modules:
        _say(
            f"[yellow]symbols only:[/] {counted(len(modules), 'module')} of {plain(str(dump))}; their frames have names"
            " and lines, but without code and unwind tables a caller may be missing"
        )
        _list(modules)


def _list(modules: Sequence[tuple[str, UUID | None]], command: str = "analyze") -> None:
    for name, uuid in modules[:_NAMED]:
        _say(f"  {uuid_text(uuid) if uuid else 'without UUID':36}  {plain(name)}")
    if len(modules) > _NAMED:
        _say(f"  … and {len(modules) - _NAMED} more (`symcache {command} --json` lists all)")


def warn(problems: Sequence[str]) -> None:
    """Print why servers were left out."""
    for problem in problems:
        _say(f"[yellow]warning:[/] {plain(problem)}")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


def source_pair(text: str) -> tuple[str, str]:
    """Return the folders of FROM=TO, the second as LLDB finds it from another folder. Raises UsageError."""
    source, equals, target = text.partition("=")
    if not (source and equals and target):
        raise typer.BadParameter(f"{text!r}: write FROM=TO", param_hint="--source-map")
    return source, str(existing_path(target).absolute())
