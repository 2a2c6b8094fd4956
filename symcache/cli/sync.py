"""`symcache sync`: the builds that came out and that the site wants, into the library; the job of every night."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

from symcache.cli import junit
from symcache.cli.common import console, emit_json, errors_to_exit, name_some, out, plain
from symcache.cli.completion import complete_builds
from symcache.cli.options import (
    JsonOption,
    JunitOption,
    LibraryOption,
    NoKeepCachesOption,
    ReleasesOption,
    TagOption,
    TrustOption,
)
from symcache.cli.settings import library_location, open_library, path_setting
from symcache.errors import NotFoundError, SymcacheError, UsageError
from symcache.kinds import MACOS
from symcache.scratch import ScratchFolder

if TYPE_CHECKING:
    from symcache.library import Library
    from symcache_provisioning import (
        BuildReport,
        Inventory,
        MachineBuild,
        PublishedBuild,
        SyncRunner,
    )

__all__ = ["register"]

_FAILED = {"failed", "interrupted"}
_WANTING = {"not sealed", "partial", "waiting", "given up"}
"""Something went wrong, or nobody has tried again yet; that nobody can bring a build is said, and no failure."""
_COLOURS = {"complete": "green", "sealed": "green", "wanted": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(sync)


def sync(
    builds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUILD", autocompletion=complete_builds, help="Just these, whatever failed or was removed before."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be harvested, and harvest nothing.")
    ] = False,
    appledb: Annotated[
        str | None,
        typer.Option(
            "--appledb", metavar="URL|FILE", help="AppleDB, a mirror or a file of it [env: SYMCACHE_APPLEDB]."
        ),
    ] = None,
    betas: Annotated[bool | None, typer.Option("--betas/--no-betas", help="Betas, too; else as the site says.")] = None,
    rcs: Annotated[
        bool | None, typer.Option("--rcs/--no-rcs", help="Release candidates, too; else as the site says.")
    ] = None,
    tag: TagOption = None,
    firmware: Annotated[bool, typer.Option("--firmware/--no-firmware", help="Whether to download firmware.")] = True,
    firmware_host: Annotated[
        list[str] | None,
        typer.Option("--firmware-host", metavar="HOST[:PORT]", help="Host besides Apple's that may give firmware."),
    ] = None,
    releases: ReleasesOption = None,
    staging: Annotated[
        Path | None, typer.Option("--staging", metavar="DIR", help="Where to keep copies and firmware meanwhile.")
    ] = None,
    trust_new_host: TrustOption = False,
    no_keep_caches: NoKeepCachesOption = False,
    junit_file: JunitOption = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Harvest the builds that came out and that the site wants: exit 0 when none failed or waits, else 1 or 3."""
    from symcache.cli.build_harvester import BuildHarvester
    from symcache.cli.harvest_process import harvest_environment
    from symcache.model import APPLE_BUILD
    from symcache.verify import Expectations
    from symcache_provisioning import (
        APPLEDB,
        Interrupts,
        Inventory,
        SyncRunner,
        read_appledb,
        select_builds,
    )

    with errors_to_exit(), Interrupts():
        for build in builds or ():
            if not re.fullmatch(APPLE_BUILD, build):
                raise UsageError(f"{build}: is no build of macOS", hint="name one as sw_vers does, e.g. 22G120")
        table = path_setting(releases, "releases")
        expectations = Expectations.load(table)
        choice = {key: value for key, value in (("betas", betas), ("rcs", rcs)) if value is not None}
        expectations.sync = expectations.sync.model_copy(update=choice)
        inventory = Inventory.load()
        if tag and not inventory.tagged(tag):
            name_some("note", [f"{inventory.path or 'the inventory'}: has no machine with the tags {', '.join(tag)}"])
        published = read_appledb(appledb or os.environ.get("SYMCACHE_APPLEDB") or APPLEDB)
        name_some("note", published.problems, in_json=False)
        always = [r.build for r in expectations.expected_releases if r.product == MACOS]
        targets = select_builds(published, expectations.sync, always=always, only=builds or ())
        options = ["--library", library_location(library)]
        options += [n for n, on in (("--trust-new-host", trust_new_host), ("--no-keep-caches", no_keep_caches)) if on]
        options += ["--staging", str(staging)] if staging else []
        environment = harvest_environment(inventory) | ({"SYMCACHE_RELEASES": str(table.absolute())} if table else {})
        folder = staging or platformdirs.user_cache_path("symcache")
        with _opened(library, dry_run=dry_run) as opened:
            runner = SyncRunner(
                opened,
                expectations,
                BuildHarvester(options, environment, folder / "firmware"),
                lambda: _ask(inventory, tag or (), trust_new_host),
                firmware_hosts=firmware_host or (),
                firmware=firmware,
                forced=bool(builds),
                dry_run=dry_run,
            )
            # What is there already, too: `prune` wants to know when it came out.
            held = [r.build for r in opened.releases() if r.id.product == MACOS]
            runner.note([published.builds[build] for build in held if build in published.builds])
            reports, ended = _run(runner, targets, show=not json)
            machines = runner.machines
        if junit_file is not None:
            junit.write_junit("sync", [_case(r) for r in reports], junit_file)
        if json:
            emit_json({"builds": [_to_json(r) for r in reports], "machines": [_machine_json(m) for m in machines]})
        elif not reports:
            out.print("no published build is wanted")
        if ended is not None:
            raise ended
        if code := _exit_code(reports, machines, dry_run=dry_run):
            raise typer.Exit(code)


def _run(
    runner: SyncRunner, targets: Sequence[PublishedBuild], *, show: bool
) -> tuple[list[BuildReport], BaseException | None]:
    """Return what came of each build, and what ended the run early: to be raised when the reports have been written."""
    from symcache_provisioning import BuildReport

    reports: list[BuildReport] = []
    try:
        for report in runner.run(targets):
            reports.append(report)
            if show:
                _print(report)
    except (KeyboardInterrupt, SymcacheError) as error:
        if len(reports) < len(targets):
            interrupted = isinstance(error, KeyboardInterrupt)
            state, why = ("interrupted", "the run was interrupted") if interrupted else ("failed", str(error))
            reports.append(BuildReport(targets[len(reports)], state, why))
        return reports, error
    return reports, None


@contextmanager
def _opened(option: str | None, *, dry_run: bool) -> Iterator[Library]:
    """Open the library; for a dry run, an empty one in place of one that does not exist yet, and is not made."""
    from symcache.library import Library

    with ExitStack() as stack:
        try:
            library = open_library(option, create=not dry_run)
        except NotFoundError:
            place = Path(library_location(option))
            if not dry_run or (place.exists() and not place.is_dir()) or (place.is_dir() and any(place.iterdir())):
                raise
            library = Library.open(stack.enter_context(ScratchFolder("sync")), create=True)
        yield stack.enter_context(library)


def _ask(inventory: Inventory, tags: Sequence[str], trust_new: bool) -> list[MachineBuild]:
    from symcache_provisioning import machine_builds

    machines = machine_builds(inventory.tagged(tags), lambda text: console.print(plain(text)), trust_new=trust_new)
    for machine in machines:
        if machine.error:
            console.print(f"[bold red]{plain(machine.name)}:[/] does not say what it runs: {plain(machine.error)}")
    return machines


def _title(report: BuildReport) -> str:
    version = report.build.version or "macOS"
    return f"{report.build.build} ({version}{', ' + report.build.released if report.build.released else ''})"


def _print(report: BuildReport) -> None:
    """Print the one line of a build, and the next step on standard error."""
    colour = _COLOURS.get(report.state, "red" if report.state in _FAILED else "yellow")
    out.print(f"{plain(_title(report))}: [{colour}]{report.state}[/]: {plain(report.text)}")
    if report.hint:
        console.print(f"[dim]next:[/] {plain(report.hint)}")


def _to_json(report: BuildReport) -> dict[str, object]:
    build = report.build
    return {
        "build": build.build,
        "version": build.version,
        "kind": build.kind,
        "released": build.released,
        "state": report.state,
        "text": report.text,
        "hint": report.hint,
        "source": report.source,
        "attempts": report.attempts,
        "seconds": report.seconds,
        "results": report.results,
    }


def _machine_json(machine: MachineBuild) -> dict[str, str]:
    return {"machine": machine.name, "build": machine.build, "model": machine.model, "error": machine.error}


def _case(report: BuildReport) -> junit.Case:
    kind = "error" if report.state in _FAILED else "failure" if report.state in _WANTING else ""
    if not kind and report.state not in {"complete", "sealed"}:
        kind = "skipped"
    problems = [str(p) for result in report.results for p in (result.get("problems") or [])]
    text = "\n".join([*problems, report.hint])
    return junit.Case(_title(report), report.seconds, kind, report.state, report.text, text)


def _exit_code(reports: Sequence[BuildReport], machines: Sequence[MachineBuild], *, dry_run: bool) -> int:
    if any(m.error for m in machines) or any(r.state in _FAILED for r in reports):
        return 3
    return 1 if not dry_run and any(r.state in _WANTING for r in reports) else 0
