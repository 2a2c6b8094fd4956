"""`symcache verify`: prove that releases are complete."""

from __future__ import annotations

from typing import Annotated

import typer

from symcache.cli.common import JsonOption, LibraryOption, count_progress, emit_json, errors_to_exit, out, plain
from symcache.cli.settings import open_library
from symcache.verify import Level
from symcache.verify import verify as verify_library

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(verify)


def verify(
    builds: Annotated[list[str] | None, typer.Argument(metavar="[BUILD]...")] = None,
    level: Annotated[Level, typer.Option(help="How thoroughly to look.")] = Level.BLOBS,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that releases are complete: exit 0 if they are, 1 if anything is wanting."""
    with errors_to_exit(), open_library(library) as opened:
        with count_progress() as bar:
            task = bar.add_task("checking", total=None)
            report = verify_library(
                opened,
                builds or (),
                level=level,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if json:
            emit_json(report.to_json())
        else:
            for finding in report.findings:
                out.print(f"[red]{finding.code}[/]  {plain(finding.message)}")
            verdict = "[green]complete[/]" if report.complete else f"[red]{len(report.findings)} findings[/]"
            out.print(f"{', '.join(report.builds) or 'nothing'}: {verdict} ({report.images} images, level {level})")
        if not report.complete:
            raise typer.Exit(1)
