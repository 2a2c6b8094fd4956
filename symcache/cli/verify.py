"""Commands about completeness: verify, diff, missing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from symcache.cli.common import (
    JsonOption,
    LibraryOption,
    console,
    count_progress,
    emit_json,
    errors_to_exit,
    out,
    plain,
)
from symcache.cli.settings import open_library
from symcache.errors import UsageError
from symcache.verify import (
    Expectations,
    Level,
    VerifyReport,
    apply_waivers,
    github_lines,
    junit_xml,
    load_waivers,
    markdown,
)
from symcache.verify import verify as verify_library

__all__ = ["register"]

_SHOWN = 200


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(verify)


def verify(
    builds: Annotated[list[str] | None, typer.Argument(metavar="[BUILD]...")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every build of the library, and every one that --releases expects (default).")
    ] = False,
    level: Annotated[Level, typer.Option(help="How thoroughly to look.")] = Level.BLOBS,
    arch: Annotated[
        list[str] | None,
        typer.Option("--arch", help="Expect the system caches of just these architectures; may be repeated."),
    ] = None,
    releases: Annotated[
        Path | None,
        typer.Option(envvar="SYMCACHE_RELEASES", metavar="FILE", help="Table of what releases of yours should have."),
    ] = None,
    waivers: Annotated[
        Path | None,
        typer.Option(envvar="SYMCACHE_WAIVERS", metavar="FILE", help="Findings that are accepted, and until when."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a summary in Markdown.")] = False,
    scratch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where level bytes unpacks one raw cache at a time.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Contents to check at a time.")] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that releases are complete: exit 0 if they are, 1 if anything is wanting."""
    with errors_to_exit():
        if builds and every:
            raise UsageError("--all and named builds exclude each other", hint="leave one of them out")
        if json and as_markdown:
            raise UsageError("--json and --markdown exclude each other", hint="run the command twice")
        accepted = load_waivers(waivers) if waivers else ()
        expectations = Expectations.load(releases, arch or ())
        if scratch is not None and not scratch.is_dir():
            raise UsageError(f"{scratch}: no such folder", hint="make it, or leave --scratch out")
        with open_library(library) as opened, count_progress() as bar:
            task = bar.add_task("checking", total=None)
            report = verify_library(
                opened,
                builds or (),
                level=level,
                expectations=expectations,
                scratch=scratch,
                jobs=jobs,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        apply_waivers(report, accepted, datetime.now(UTC).date())
        _tell(report, json=json, as_markdown=as_markdown, github=github, junit=junit)


def _tell(report: VerifyReport, *, json: bool, as_markdown: bool, github: bool, junit: Path | None) -> None:
    """Print the verdict in the forms that were asked for, and end with 1 if it is no."""
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_text(junit_xml(report), encoding="utf-8")
    if json:
        emit_json(report.to_json())
    elif as_markdown:
        out.print(markdown(report), markup=False, end="")
    else:
        _show(report)
    if github:
        # The runner reads both streams; standard output belongs to the document, where one was asked for.
        target = console if json or as_markdown else out
        for line in github_lines(report):
            target.print(line, markup=False, soft_wrap=True)
    if not report.complete:
        raise typer.Exit(1)


def _show(report: VerifyReport) -> None:
    for finding in report.findings[:_SHOWN]:
        build = f"{finding.build}  " if finding.build else ""
        out.print(f"[red]{finding.code}[/]  {plain(build)}{plain(finding.message)}")
    if len(report.findings) > _SHOWN:
        out.print(f"and {len(report.findings) - _SHOWN} more findings (--json lists them all)")
    for waived in report.waived[:_SHOWN]:
        message, reason = plain(waived.finding.message), plain(waived.reason)
        out.print(f"[yellow]waived[/]  {waived.finding.code}  {message} (until {waived.until}: {reason})")
    for note in report.notes:
        console.print(f"[dim]note:[/] {plain(note)}")
    if report.releases:
        table = Table("build", "version", "images", "shared caches", "verdict", box=None, pad_edge=False)
        for release in report.releases:
            count = sum(f.build == release.build for f in report.findings)
            caches = ", ".join(f"{c['family']} {c['arch']}" for c in release.caches if c["uuid"])
            verdict = f"[red]{count} findings[/]" if count else "[green]complete[/]"
            table.add_row(
                plain(release.build), plain(release.version), str(release.images), plain(caches) or "-", verdict
            )
        out.print(table)
    verdict = "[green]complete[/]" if report.complete else f"[red]{len(report.findings)} findings[/]"
    out.print(f"{verdict} ({report.images} images, level {report.level})")
