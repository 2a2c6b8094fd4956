"""`symcache prune`: what the site keeps no longer is taken back, as `symcache remove` does it."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from symcache.cli.common import console, emit_json, errors_to_exit, name_some, out, plain
from symcache.cli.options import JsonOption, LibraryOption, ReleasesOption, YesOption
from symcache.cli.settings import open_library, path_setting
from symcache.errors import NotFoundError, UsageError
from symcache.kinds import ReleaseId
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.library import Library, RemovalPlan
    from symcache.verify import RetentionPolicy, Verdict

__all__ = ["register"]

_KEPT_USES = 400
"""Days for which it is kept what was asked for, or longer where policy looks back further."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(prune)


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: YesOption = False,
    every: Annotated[bool, typer.Option("--all", help="Say of the builds that stay, too, why they do.")] = False,
    releases: ReleasesOption = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Take back the builds that the site's policy keeps no longer; `symcache remove --undo BUILD` brings one back."""
    from symcache.library import plan_removal
    from symcache.verify import Expectations, plan_pruning

    with errors_to_exit():
        table = path_setting(releases, "releases")
        expectations = Expectations.load(table)
        policy = expectations.retention
        if policy is None or (policy.beta_days is None and policy.last is None):
            raise UsageError(
                f"{table or 'the site has no table of releases'}: nothing says which builds may go",
                hint="write [retention] with beta_days or last into the table that SYMCACHE_RELEASES names"
                " (docs/sources.md)",
            )
        with open_library(library) as opened:
            pinned = expectations.expected_releases
            held = [row.id for row in opened.releases()]
            idle = [name for name in policy.pinned if not any(release.is_meant_by(name) for release in held)]
            name_some(
                "note",
                [f"{name}: is pinned, and the library has nothing of it: is it spelt right?" for name in idle],
                in_json=False,
            )
            verdicts = plan_pruning(opened, policy, pinned=pinned)
            plans = {p.release: p for p in plan_removal(opened, [str(v.release) for v in verdicts if v.goes])}
            removed: dict[ReleaseId, list[str]] = {}
            if not dry_run and plans:
                if not yes and sys.stdin.isatty() and sys.stdout.isatty():
                    _print(opened, verdicts, plans, every=every, error=True)
                    if not typer.confirm(f"remove {counted(len(plans), 'build')}?", err=True):
                        console.print("nothing was removed")
                        raise typer.Exit(1)
                removed, verdicts = _remove(opened, policy, pinned, plans)
            if not dry_run:
                _forget_uses(opened, policy)
            if json:
                emit_json([_to_json(v, plans.get(v.release), removed.get(v.release)) for v in verdicts])
            else:
                _print(opened, verdicts, plans, every=every, removed=None if dry_run else removed)


def _remove(
    library: Library, policy: RetentionPolicy, pinned: Sequence[ReleaseId], plans: dict[ReleaseId, RemovalPlan]
) -> tuple[dict[ReleaseId, list[str]], list[Verdict]]:
    """Take back what was planned, as far as it still goes: while somebody decided, it may have been asked for."""
    from symcache.library import remove_build
    from symcache.verify import plan_pruning

    removed: dict[ReleaseId, list[str]] = {}
    verdicts = plan_pruning(library, policy, pinned=pinned)
    for verdict in verdicts:
        if verdict.goes and verdict.release in plans:
            try:
                reason = f"prune: {verdict.reason}"
                removed[verdict.release] = remove_build(library, str(verdict.release), reason=reason)
            except NotFoundError:
                continue  # somebody else was faster
    return removed, verdicts


def _forget_uses(library: Library, policy: RetentionPolicy) -> None:
    from symcache.library import forget_uses

    days = max(_KEPT_USES, (policy.requested_days or 0) + 1)
    today = dt.datetime.fromtimestamp(library.store.now(), dt.UTC).date()
    forget_uses(library.store, max(today - dt.timedelta(days), dt.date.min + dt.timedelta(1)))


def _print(
    library: Library,
    verdicts: Sequence[Verdict],
    plans: dict[ReleaseId, RemovalPlan],
    *,
    every: bool,
    removed: dict[ReleaseId, list[str]] | None = None,
    error: bool = False,
) -> None:
    """Print one line a build; on standard error what is asked about."""
    from symcache.library import DEFAULT_GRACE, utc

    target = console if error else out
    expires = utc(library.store.now() + DEFAULT_GRACE)[:16].replace("T", " ")
    for verdict in verdicts:
        plan = plans.get(verdict.release)
        if not verdict.goes or plan is None:
            if every:
                target.print(f"{plain(verdict.title)}: [green]stays[/]: {plain(verdict.reason)}")
            continue
        word = "goes" if removed is None else "removed" if verdict.release in removed else "gone before"
        target.print(
            f"{plain(verdict.title)}: [yellow]{word}[/]: {plain(verdict.reason)}; {counted(plan.blobs, 'file')}"
            f" ({decimal(plan.bytes)}) that nothing else names"
        )
    if not plans:
        target.print("every build is kept")
    elif removed:
        target.print(
            f"`symcache gc` may free their space from {expires} UTC on; until then `symcache remove --undo BUILD`"
            " brings one back"
        )


def _to_json(verdict: Verdict, plan: RemovalPlan | None, records: list[str] | None) -> dict[str, object]:
    return {
        "build": verdict.build,
        "product": verdict.release.product,
        "release": verdict.title,
        "goes": verdict.goes,
        "reason": verdict.reason,
        "records": records if records is not None else plan.records if plan else [],
        "blobs": plan.blobs if plan else 0,
        "bytes": plan.bytes if plan else 0,
        "removed": records is not None,
    }
