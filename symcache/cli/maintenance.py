"""Commands that look after a library: fsck, gc, prefer, rebuild, reextract, stats."""

from __future__ import annotations

import re
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from symcache.cli.common import Table, console, emit_json, errors_to_exit, out, plain
from symcache.cli.completion import complete_builds
from symcache.cli.options import JsonOption, LibraryOption
from symcache.cli.progress import count_progress
from symcache.cli.settings import library_location, open_library
from symcache.errors import IncompleteError, StorageError, UsageError
from symcache.kinds import uuid_text
from symcache.macho import parse_uuid
from symcache.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from symcache.library import FsckReport, Library

__all__ = ["register"]

_DEFAULT_GRACE = "14d"
"""As the library has it, `DEFAULT_GRACE`, in days."""
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (fsck, gc, prefer, rebuild, reextract, stats):
        app.command()(command)


def fsck(
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and hash every byte, too.")] = False,
    read_data_subset: Annotated[
        str | None,
        typer.Option(
            "--read-data-subset", metavar="SHARE", help="Read a random share, 5%, or one of equal parts, 1/10."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put aside what is damaged, and restore it from wherever it can be had.")
    ] = False,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="PATH|URL", help="Another library, or a server, to repair from; may be repeated."
        ),
    ] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Check that everything is there and is what it was: exit 0 if so, 1 if anything is found wrong."""
    from symcache.library import Library, Subset
    from symcache.library import fsck as fsck_library

    with errors_to_exit():
        if sources and not repair:
            raise UsageError("--from says what to repair from", hint="give --repair too")
        if read_data and read_data_subset:
            raise UsageError("--read-data and --read-data-subset exclude each other", hint="give one of them")
        read = Subset.parse(read_data_subset) if read_data_subset else Subset() if read_data else None
        urls = [s for s in sources or [] if s.startswith(("http://", "https://"))]
        with open_library(library) as opened, ExitStack() as stack, count_progress() as bar:
            others = [stack.enter_context(Library.open(s)) for s in sources or [] if s not in urls]
            task = bar.add_task("reading" if read else "checking", total=None)
            report = fsck_library(
                opened,
                read=read,
                rebuild=repair,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            if repair and report.findings:
                task = bar.add_task("repairing", total=len(report.findings))
                _repair(opened, report, others, urls, lambda done, _: bar.update(task, completed=done))
        if json:
            emit_json({"library": library_location(library), **report.to_json()})
        else:
            _show_report(report, contents_read=read is not None)
            if not sources and any(f.code.startswith("blob-") and not f.repaired for f in report.findings):
                options = "--read-data --repair" if read else "--repair"
                console.print(f"[dim]next:[/] `symcache fsck {options} --from` has it again, as from a backup")
        if not report.clean:
            raise typer.Exit(1)


def _repair(
    library: Library, report: FsckReport, others: list[Library], urls: list[str], progress: Callable[[int, int], None]
) -> None:
    from symcache.client import fetch_from
    from symcache.library import repair as repair_library

    fetch = [fetch_from(urls)] if urls else []
    repair_library(library, report, others=others, fetch=fetch, progress=progress)


def _show_report(report: FsckReport, *, contents_read: bool) -> None:
    for finding in report.findings:
        mark = f"[green]repaired[/] ({plain(finding.repaired)})" if finding.repaired else "[red]found[/]"
        out.print(f"{mark} {finding.code}  {plain(finding.message)}")
    left = sum(not f.repaired for f in report.findings)
    verdict = f"[red]{counted(left, 'finding')}[/]" if left else "[green]clean[/]"
    read = f", {decimal(report.bytes_read)} read" if report.bytes_read else ""
    out.print(
        f"{verdict}: {counted(report.records, 'record')}, {counted(report.blobs, 'blob')}{read},"
        f" {counted(report.unnamed, 'blob')} unnamed{'' if contents_read else '; contents not read (--read-data)'}"
    )


def gc(
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="TIME", help="How long a blob is kept that no record names: 90m, 12h, 14d, 2w."
        ),
    ] = _DEFAULT_GRACE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Delete blobs that no record names any more; safe while others harvest."""
    from symcache.library import gc as gc_library

    with errors_to_exit():
        seconds = _duration(grace)
        with open_library(library) as opened, count_progress() as bar:
            task = bar.add_task("collecting", total=None)
            report = gc_library(
                opened,
                grace=seconds,
                dry_run=dry_run,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if json:
            emit_json(report.to_json())
            return
        verb = "would delete" if dry_run else "deleted"
        out.print(
            f"{verb} {counted(report.deleted, 'blob')} ({decimal(report.deleted_bytes)}) and"
            f" {counted(report.leftovers, 'leftover')};"
            f" kept {report.live} that are named and {report.young} that may still be needed"
        )
        if report.first_expires and report.last_expires:
            first, last = (moment[:16].replace("T", " ") for moment in (report.first_expires, report.last_expires))
            out.print(
                f"{decimal(report.young_bytes)} of these may go when their grace of {grace} is over:"
                f" the first from {first} UTC on, the last from {last} UTC on"
            )


def _duration(text: str) -> float:
    from symcache.library import MINIMUM_GRACE

    match = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if match is None:
        raise UsageError(f"{text!r}: not a time", hint="write 14d, 12h, 90m or 2w")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds < MINIMUM_GRACE:
        raise UsageError(
            f"--grace {text}: a harvest that runs now may need what is that young",
            hint=f"give 1h or more; the default is {_DEFAULT_GRACE}",
        )
    return seconds


def prefer(
    uuid: Annotated[str, typer.Argument(metavar="UUID")],
    sha256: Annotated[str, typer.Argument(metavar="SHA", help="SHA-256 of the content, or at least 8 digits of it.")],
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Decide which of several contents under one UUID is served."""
    from symcache.library import prefer as prefer_content

    with errors_to_exit(), open_library(library) as opened:
        chosen = prefer_content(opened, parse_uuid(uuid), sha256)
        if json:
            emit_json({"uuid": uuid_text(parse_uuid(uuid)), "kind": chosen.kind, "sha256": chosen.sha256})
        else:
            out.print(f"{uuid_text(parse_uuid(uuid))} ({chosen.kind}): {chosen.sha256} is served from now on")


def rebuild(
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Also store a copy that new machines can start from.")
    ] = False,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Build the catalog anew from all records, and take those that are there for all that there are.

    Whoever reads it meanwhile sees the old one or the new one.
    """
    from symcache.library import Library, write_snapshot

    with errors_to_exit(), Library.open(library_location(library), repair=True) as opened:
        with console.status("folding records"):
            with suppress(StorageError):  # a damaged catalog is what this is for
                opened.refresh(whole=True)
            gone = sorted(opened.catalog.lost().values())
            count = opened.rebuild(accept_losses=True)
            key = write_snapshot(opened.store, opened.catalog) if snapshot else None
        if json:
            emit_json({"records": count, "unreadable": opened.unreadable, "snapshot": key, "gone": gone})
        else:
            out.print(f"{counted(count, 'record')} folded" + (f", snapshot {key}" if key else ""))
            if gone:
                out.print(
                    f"{counted(len(gone), 'record')} that this machine's catalog knew: gone, and no longer asked after"
                )
        if opened.unreadable:
            raise IncompleteError(
                f"{counted(len(opened.unreadable), 'record')} cannot be read: {next(iter(opened.unreadable.values()))}",
                hint="run `symcache fsck --repair --from ANOTHER_LIBRARY`",
            )


def reextract(
    builds: Annotated[list[str], typer.Argument(metavar="BUILD", autocompletion=complete_builds)],
    force: Annotated[bool, typer.Option("--force", help="Even where this revision of the extractor did it.")] = False,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Extract the images of a release again, from the raw shared caches that were kept."""
    from symcache.library import reextract as reextract_release

    with errors_to_exit(), open_library(library) as opened:
        results = []
        for build in builds:
            with count_progress() as bar:
                task = bar.add_task(f"extracting {plain(build)}", total=None)
                results.append(
                    reextract_release(
                        opened,
                        build,
                        force=force,
                        progress=lambda done, total: bar.update(task, completed=done, total=total),  # noqa: B023
                    )
                )
        if json:
            emit_json([vars(r) for r in results])
        else:
            for r in results:
                out.print(
                    f"{plain(r.build)}: {counted(r.images, 'image')} extracted, {r.changed} of them changed,"
                    f" {counted(r.skipped, 'cache')} up to date"
                )
                for problem in r.problems:
                    console.print(f"[yellow]problem:[/] {plain(problem)}")
        problems = sum(len(r.problems) for r in results)
        if problems:
            what = counted(problems, "image or cache", "images or caches")
            raise IncompleteError(
                f"{what} could not be extracted",
                hint="their earlier contents stay in place",
            )


def stats(library: LibraryOption = None, json: JsonOption = False) -> None:
    """Say how much the library holds, and what it takes on disk."""
    from symcache.library import stats as library_stats

    with errors_to_exit(), open_library(library) as opened:
        with console.status("counting"):
            found = library_stats(opened)
        if json:
            emit_json(found.to_json())
            return
        table = Table()
        share = f" ({found.image_stored / found.image_content:.0%})" if found.image_content else ""
        for name, value in (
            ("releases", f"{found.releases}, {found.sealed} of them sealed"),
            ("records", str(found.records)),
            ("images", f"{found.listed} in releases"),
            ("UUIDs", f"{found.images} of binaries and dSYMs, {counted(found.occurrences, 'occurrence')}"),
            ("image contents", f"{found.image_blobs}, {decimal(found.image_content)}"),
            ("  as stored", decimal(found.image_stored) + share),
            ("raw cache files", f"{found.cache_blobs}, {decimal(found.cache_content)}"),
            ("  as stored", decimal(found.cache_stored)),
            ("unnamed blobs", f"{found.unnamed_blobs}, {decimal(found.unnamed_stored)} stored"),
            ("conflicts", f"{found.conflicts}, {found.undecided} undecided"),
        ):
            table.add_row(name, value)
        out.print(table)
