"""Commands about completeness: verify, diff."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import symcache.verify as completeness  # most of it is imported by those who need it
from symcache.cli.common import (
    Table,
    console,
    emit_json,
    errors_to_exit,
    existing_path,
    name_some,
    out,
    plain,
)
from symcache.cli.completion import complete_builds
from symcache.cli.junit import save_report
from symcache.cli.options import JsonOption, JunitOption, LibraryOption, ReleasesOption
from symcache.cli.progress import count_progress
from symcache.cli.settings import cache_dir, open_library, path_setting, server_urls
from symcache.errors import UsageError
from symcache.text import counted
from symcache.verify import Level

if TYPE_CHECKING:
    from symcache.verify import Expectations, VerifyReport

__all__ = ["register"]

_SHOWN = 200
_NAMED = 2
"""Builds that a module is in, up to which they are named."""
_MAX_LIST = 64 << 20


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(verify)
    app.command()(diff)


def verify(
    builds: Annotated[
        list[str] | None, typer.Argument(metavar="BUILD|PRODUCT:BUILD", autocompletion=complete_builds)
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every build of the library, and every one that --releases expects (default).")
    ] = False,
    level: Annotated[
        Level, typer.Option("--level", metavar="catalog|blobs|bytes", help="How thoroughly to look.")
    ] = Level.BLOBS,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch", metavar="ARCH", help="Expect the system caches of just these architectures; may be repeated."
        ),
    ] = None,
    releases: ReleasesOption = None,
    waivers: Annotated[
        Path | None,
        typer.Option(
            "--waivers", metavar="FILE", help="Findings that are accepted, and until when [env: SYMCACHE_WAIVERS]."
        ),
    ] = None,
    dump: Annotated[
        list[Path] | None,
        typer.Option("--dump", metavar="FILE", help="Instead: can the modules of this dump, .ips or .crash be served?"),
    ] = None,
    uuids: Annotated[
        list[str] | None, typer.Option("--uuids", metavar="FILE|-", help="Instead: can these UUIDs be served?")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Ask this server, not the library; with --library, for every image that the library lists.",
        ),
    ] = None,
    junit: JunitOption = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a summary in Markdown.")] = False,
    scratch: Annotated[
        Path | None, typer.Option("--scratch", metavar="DIR", help="Where level bytes unpacks one raw cache at a time.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", min=1, help="Contents to check at a time.")
    ] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that releases are complete: exit 0 if they are, 1 if anything is wanting."""
    from symcache.verify import Expectations

    with errors_to_exit():
        if builds and every:
            raise UsageError("--all and named builds exclude each other", hint="leave one of them out")
        if json and as_markdown:
            raise UsageError("--json and --markdown exclude each other", hint="run the command twice")
        if (dump or uuids) and (builds or every):
            raise UsageError("builds cannot be verified together with dumps or UUIDs", hint="run the command twice")
        waiver_file = path_setting(waivers, "waivers")
        accepted = completeness.load_waivers(waiver_file) if waiver_file else ()
        expectations = Expectations.load(path_setting(releases, "releases"), arch or ())
        urls = server_urls(server) if server else []
        if dump or uuids:
            report = _modules(dump or [], uuids or [], library, urls)
        elif urls and library:
            with open_library(library) as opened:
                report = completeness.verify_against_library(opened, builds or (), urls, cache_dir())
        elif urls:
            report = completeness.verify_coverage(urls, builds or (), expectations)
        else:
            report = _releases(builds or [], level, expectations, scratch, jobs, library)
        completeness.apply_waivers(report, accepted, datetime.now(UTC).date())
        _tell(report, json=json, as_markdown=as_markdown, github=github, junit=junit)


def _releases(
    builds: list[str],
    level: Level,
    expectations: Expectations,
    scratch: Path | None,
    jobs: int | None,
    library: str | None,
) -> VerifyReport:
    if scratch is not None and not scratch.is_dir():
        raise UsageError(f"{scratch}: no such folder", hint="make it, or leave --scratch out")
    with open_library(library) as opened, count_progress() as bar:
        task = bar.add_task("checking", total=None)
        return completeness.verify(
            opened,
            builds,
            level=level,
            expectations=expectations,
            scratch=scratch,
            jobs=jobs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _modules(dumps: list[Path], lists: list[str], library: str | None, urls: list[str]) -> VerifyReport:
    """Ask servers, or else the library, for the modules of dumps and lists."""
    reports, unreadable = completeness.read_reports([existing_path(str(path)) for path in dumps])
    for name in lists:
        data = sys.stdin.buffer.read(_MAX_LIST + 1) if name == "-" else existing_path(name).read_bytes()
        if len(data) > _MAX_LIST:
            raise UsageError(f"{name}: more than {_MAX_LIST} bytes", hint="ask in parts")
        reports.append(
            completeness.parse_uuid_list(data.decode("utf-8", "replace"), "standard input" if name == "-" else name)
        )
    if urls:
        report = completeness.verify_modules(
            reports, completeness.remote_holder(urls, cache_dir()), completeness.remote_builds(urls)
        )
    else:
        with open_library(library) as opened:
            report = completeness.verify_modules(
                reports, completeness.library_holder(opened), [r.build for r in opened.releases()]
            )
    report.add(unreadable)
    return report


def diff(
    before: Annotated[str, typer.Argument(metavar="BUILD", autocompletion=complete_builds)],
    after: Annotated[str, typer.Argument(metavar="BUILD", autocompletion=complete_builds)],
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """List the images that were added, removed or changed between two releases."""
    with errors_to_exit():
        with open_library(library) as opened:
            result = completeness.diff_releases(opened, before, after)
        if json:
            emit_json(result.to_json())
            return
        for title, style, differences in (
            ("removed", "red", result.removed),
            ("added", "green", result.added),
            ("changed", "yellow", result.changed),
        ):
            for d in differences:
                out.print(
                    f"[{style}]{title}[/]  {d.family} {plain(d.cache)}  {plain(d.path)} ({plain(d.arch)}, {d.kind})"
                )
        out.print(
            f"{plain(before)} to {plain(after)}: {len(result.added)} added, {len(result.removed)} removed,"
            f" {len(result.changed)} changed, {result.same} the same"
        )


def _tell(report: VerifyReport, *, json: bool, as_markdown: bool, github: bool, junit: Path | None) -> None:
    """Print the verdict in the forms that were asked for, and end with 1 if it is no."""
    if junit is not None:
        save_report(completeness.junit_xml(report).encode(), junit)
    if json:
        emit_json(report.to_json())
    elif as_markdown:
        out.print(completeness.markdown(report), markup=False, end="")
    else:
        _show(report)
    if github:
        # The runner reads both streams; standard output belongs to the document, where one was asked for.
        target = console if json or as_markdown else out
        for line in completeness.github_lines(report):
            target.print(line, markup=False, soft_wrap=True)
    if not report.complete:
        raise typer.Exit(1)


def _show(report: VerifyReport) -> None:
    name_some("note", report.notes, style="dim")
    for finding in report.findings[:_SHOWN]:
        build = f"{finding.build}  " if finding.build else ""
        out.print(f"[red]{finding.code}[/]  {plain(build)}{plain(finding.message)}")
    if len(report.findings) > _SHOWN:
        out.print(f"and {counted(len(report.findings) - _SHOWN, 'more finding')} (--json lists them all)")
    for waived in report.waived[:_SHOWN]:
        message, reason = plain(waived.finding.message), plain(waived.reason)
        out.print(f"[yellow]waived[/]  {waived.finding.code}  {message} (until {waived.until}: {reason})")
    if report.releases:
        table = Table("build", "version", "images", "verdict", "shared caches")
        for release in report.releases:
            count = sum(map(release.has, report.findings))
            caches = ", ".join(f"{c['family']} {c['arch']}" for c in release.caches if c["uuid"])
            name = release.build
            if report.builds.count(name) > 1:
                name = f"{release.product}:{name}"
            verdict = f"[red]{counted(count, 'finding')}[/]" if count else "[green]complete[/]"
            table.add_row(plain(name), plain(release.version), str(release.images), verdict, plain(caches) or "-")
        out.print(table)
    if report.modules:
        table = Table("UUID", "from", "module")
        for module in report.modules[:_SHOWN]:
            builds = module["builds"]
            origin = f"in {len(builds)} builds" if len(builds) > _NAMED else ", ".join(builds) or "own binaries"
            table.add_row(
                module["uuid"], plain(origin) if module["served"] else "[red]nobody[/]", plain(module["path"]) or "-"
            )
        out.print(table)
        if len(report.modules) > _SHOWN:
            out.print(f"and {counted(len(report.modules) - _SHOWN, 'more module')} (--json lists them all)")
        served = sum(m["served"] for m in report.modules)
        out.print(f"{served} of {counted(len(report.modules), 'module')} can be served")
        return
    out.print(
        f"[{'green' if report.complete else 'red'}]{report.verdict}[/]"
        f" ({counted(report.images, 'image')}, level {report.level})"
    )
