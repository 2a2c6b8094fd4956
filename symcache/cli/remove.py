"""`symcache remove`: taking a release back, gently: shown before, and undone while the files are there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal

from symcache.cli.common import Table, console, emit_json, errors_to_exit, name_some, out, plain
from symcache.cli.completion import complete_builds
from symcache.cli.options import JsonOption, LibraryOption, YesOption
from symcache.cli.settings import open_library
from symcache.errors import IncompleteError, UsageError
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.library import Library, RemovalPlan

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(remove)


def remove(
    builds: Annotated[
        list[str] | None, typer.Argument(metavar="BUILD|PRODUCT:BUILD|RECORD", autocompletion=complete_builds)
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever asks later.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: YesOption = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Bring back what was removed, as far as gc left it; without BUILD, list it."),
    ] = False,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Take back what was harvested of a build: it is no longer served, and `gc` deletes it in time."""
    from symcache.library import plan_removal, remove_build

    with errors_to_exit(), open_library(library) as opened:
        names = list(dict.fromkeys(builds or ()))
        if undo and (dry_run or reason):
            raise UsageError("--undo goes with neither --dry-run nor --reason", hint="leave them out")
        if undo:
            _undo(opened, names, json) if names else _list_removed(opened, json)
            return
        if not names:
            raise UsageError("no build is named", hint="`symcache releases` lists what there is")
        names = list({opened.release_id(name): name for name in names}.values())  # before any is taken back
        if dry_run:
            _show_plans(opened, names, json)
            return
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            _print_plans(console, opened, names, plan_removal(opened, names))
            if not typer.confirm("remove it?", err=True):
                console.print("nothing was removed")
                raise typer.Exit(1)
        removed = {name: remove_build(opened, name, reason=reason) for name in names}
        if json:
            emit_json({name: {"records": ids} for name, ids in removed.items()})
            return
        for name, ids in removed.items():
            out.print(
                f"{plain(name)}: {counted(len(ids), 'record')} taken back; `symcache gc` frees the space after its"
                f" grace, until then `symcache remove --undo {plain(shlex.quote(name))}` brings it back"
            )


def _show_plans(library: Library, names: Sequence[str], json: bool) -> None:
    from symcache.library import plan_removal

    plans = plan_removal(library, names)
    if not json:
        _print_plans(out, library, names, plans)
        return
    expires = _expires(library)
    emit_json(
        {
            name: {"records": p.records, "images": p.images, "blobs": p.blobs, "bytes": p.bytes, "expires": expires}
            for name, p in zip(names, plans, strict=True)
        }
    )


def _print_plans(target: Console, library: Library, names: Sequence[str], plans: Sequence[RemovalPlan]) -> None:
    expires = _expires(library)[:16].replace("T", " ")
    for name, p in zip(names, plans, strict=True):
        target.print(
            f"{plain(name)}: {counted(len(p.records), 'record')}, {counted(p.images, 'image')};"
            f" {counted(p.blobs, 'file')} ({decimal(p.bytes)}) that"
            f" nothing else names, which `symcache gc` may free from {expires} UTC on"
        )


def _expires(library: Library) -> str:
    from symcache.library import DEFAULT_GRACE, utc

    return utc(library.store.now() + DEFAULT_GRACE)


def _undo(library: Library, names: list[str], json: bool) -> None:
    from symcache.library import undo_removal

    restored = [record for name in names for record in undo_removal(library, name)]
    if json:
        emit_json([asdict(r) for r in restored])
    else:
        for r in restored:
            state = "sealed" if r.sealed else "partial"
            out.print(
                f"{plain(r.build)}: {counted(r.stored, 'content is', 'contents are')} served again ({state}),"
                f" by record {r.record}"
            )
    lost = [text for r in restored for text in r.lost]
    name_some("lost", lost)
    if lost:
        raise IncompleteError(
            f"{counted(len(lost), 'file was', 'files were')} deleted by `symcache gc` since they were removed",
            hint="harvest the release again: it continues what is there",
        )


def _list_removed(library: Library, json: bool) -> None:
    from symcache.library import removals

    rows = removals(library)
    if json:
        emit_json(
            [
                {
                    "build": r.build,
                    "product": r.release.product,
                    "record": r.record,
                    "source": r.source,
                    "finished": r.finished,
                    "removed": r.removed,
                }
                for r in rows
            ]
        )
        return
    if not rows:
        out.print("nothing is removed")
        return
    table = Table("build", "record", "harvested", "removed", "source")
    for r in rows:
        several = any(other.build == r.build and other.release != r.release for other in rows)
        name = plain(str(r.release)) if several else r.build
        table.add_row(name, r.record[:12], plain(r.finished[:19]), plain(r.removed[:19]), plain(r.source))
    out.print(table)
