"""`symcache lldb-plan`: what the LLDB command `symcache load` runs. It holds the files until LLDB has ended."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from symcache.cli.common import errors_to_exit, existing_dump
from symcache.cli.dumps import (
    AllModulesOption,
    FetchBar,
    SourceMapOption,
    SymbolsOption,
    name_wanting,
    source_pair,
    symbol_folders,
    warn,
)
from symcache.cli.options import BuildOption, CacheOption, LibraryOption, ServerOption
from symcache.cli.settings import binary_sources
from symcache.errors import UsageError
from symcache.macho import parse_uuid

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("lldb-plan", hidden=True)(lldb_plan)


def lldb_plan(
    dump: Annotated[str | None, typer.Argument(metavar="DUMP")] = None,
    opened: Annotated[str | None, typer.Option("--open", help="The core that LLDB has open.")] = None,
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    source_map: SourceMapOption = None,
    all_modules: AllModulesOption = False,
) -> None:
    """Print how LLDB is to load the modules of a dump, then respond to requests for more, until standard input ends."""
    from symcache.dump import response_for_lldb

    with errors_to_exit():
        named = dump or opened
        if named is None:
            raise UsageError(
                "no core is open here, or this LLDB does not tell which (older than 17)",
                hint="name the dump: symcache load DUMP",
            )
        path = existing_dump(named)
        with (
            binary_sources(symbol_folders(symbols), library, server) as sources,
            FetchBar() as bar,
            response_for_lldb(
                path,
                sources.resolver,
                cache=parse_uuid(cache) if cache else None,
                build=build,
                source_map=[source_pair(text) for text in source_map or ()],
                here=None if all_modules else sources.here,
                fetching=bar.fetching,
                problems=sources.problems,
            ) as (loaded, line, respond),
        ):
            bar.stop()
            warn(sources.problems)
            name_wanting(loaded, warned=bool(sources.problems))
            _write(line)
            for request in sys.stdin.buffer:  # until LLDB has ended
                _write(respond(request).decode())


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
