"""`symcache missing`: what clients asked for in vain."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

import symcache.verify as completeness  # most of it is imported by those who need it
from symcache.cli.common import Table, console, emit_json, errors_to_exit, out, plain
from symcache.cli.options import JsonOption, LibraryOption
from symcache.cli.settings import library_if_any, open_library, server_urls
from symcache.kinds import uuid_text

if TYPE_CHECKING:
    from pathlib import Path

    from symcache.verify import MissedRequest

__all__ = ["register"]

_MOST_MISSES = 10_000


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(missing)


def missing(
    library: LibraryOption = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Take what this server was asked for in vain, not what those of this machine were; may be repeated.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="List at most so many: those asked for most often.")
    ] = 100,
    json: JsonOption = False,
) -> None:
    """List what clients asked for and nobody had: what to harvest next.

    The library says what came since, and which release may have the rest; with --server there need be none.
    """
    with errors_to_exit(), ExitStack() as stack:
        urls = server_urls(server) if server else []
        opened = library_if_any(library) if urls else open_library(library)
        if opened:
            stack.enter_context(opened)
        wanted = completeness.missing_images(opened, completeness.remote_misses(urls) if urls else _own_misses())[
            :limit
        ]
        if json:
            emit_json([w.to_json() for w in wanted])
            return
        if not wanted:
            out.print("nothing is missing")
            if not urls and not _own_log().exists():
                console.print(
                    "[dim]next:[/] no server of this user has noted anything; of another, `--server URL` tells"
                )
            return
        table = Table("times", "UUID", "kind", "name", "where it may be")
        for w in wanted:
            table.add_row(
                str(w.request.times),
                uuid_text(w.request.uuid),
                w.request.kind,
                plain(w.request.name) or "-",
                plain(w.hint),
            )
        out.print(table)
        if not opened:
            console.print(
                "[dim]next:[/] the server's page /missing tells which release may have them; so does --library"
            )


def _own_log() -> Path:
    return platformdirs.user_state_path("symcache") / "misses.db"


def _own_misses() -> list[MissedRequest]:
    """Return what the servers of this user and machine noted."""
    from symcache_server.lookup.misses import MissLog

    path = _own_log()
    if not path.exists():
        return []
    log = MissLog(path)
    try:
        return [
            completeness.MissedRequest(
                m.uuid, m.kind, m.times, m.name, m.build or "", m.cache, m.first_asked, m.last_asked
            )
            for m in log.recent(_MOST_MISSES)
        ]
    finally:
        log.close()
