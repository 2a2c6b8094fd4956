"""Commands over the library: releases, get."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

import symcache.verify as completeness  # most of it is imported by those who need it
from symcache.cli.common import (
    Table,
    console,
    emit_json,
    errors_to_exit,
    fail,
    name_some,
    out,
    plain,
)
from symcache.cli.options import (
    ArchOption,
    BuildOption,
    CacheOption,
    JsonOption,
    KindOption,
    LibraryOption,
    ServerOption,
)
from symcache.cli.progress import byte_progress
from symcache.cli.settings import cache_dir, library_location, open_library, path_setting, server_urls
from symcache.errors import NotFoundError, UsageError
from symcache.files import atomic_write
from symcache.images import ImageRequest
from symcache.kinds import MACOS, Kind, uuid_text
from symcache.macho import parse_uuid
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.catalog import ReleaseRow
    from symcache.library import Library
    from symcache.verify import Expectations

__all__ = ["register"]

_STDOUT = 1
"""The descriptor."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(releases)
    app.command()(get)


def releases(
    available: Annotated[
        bool, typer.Option("--available", help="List the builds that exist and are not harvested (by `ipsw`).")
    ] = False,
    list_file: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Take what exists from this file instead.")
    ] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """List the macOS releases that the library holds, newest first.

    A release is complete where sealed harvests list every shared cache that its version has: `symcache verify` looks at
    each image and proves it. Its size is that of all its contents, images and raw caches, before compression; what
    several releases have in common is stored once. `symcache stats` tells what all takes on disk.
    """
    from symcache.verify import Expectations

    with errors_to_exit(), open_library(library) as opened:
        rows = opened.releases()
        if available or list_file:
            option = "--list" if list_file else "--available"
            console.print(f"[yellow]note:[/] {option} goes with the next version: `symcache sync --dry-run` says more")
            _show_available({r.build: r.sealed for r in rows if r.id.product == MACOS}, list_file, json)
            return
        overviews = _overviews(opened, rows, Expectations.load(path_setting(None, "releases")))
        if json:
            emit_json([o.to_json() for o in overviews])
            return
        if not rows:
            out.print("no release was harvested yet")
            return
        table = Table("release", "build", "harvested", "state", "size", "architectures")
        for o in overviews:
            version = f"{o.row.product} {o.row.version} {o.row.extra}".rstrip()
            table.add_row(
                plain(version),
                plain(o.row.build),
                plain(o.harvested[:10]) or "-",
                o.state,
                decimal(o.size),
                plain(" ".join(o.archs)) or "-",
            )
        out.print(table)
        if any(o.state != "complete" for o in overviews):
            console.print("[dim]next:[/] `symcache verify BUILD` names what a release lacks")


@dataclass(frozen=True)
class _Overview:
    """A release as the list shows it."""

    row: ReleaseRow
    harvested: str
    size: int
    archs: list[str]
    lacking: list[str] | None

    @property
    def state(self) -> str:
        """What its harvests say; `verify` proves it."""
        if not self.row.sealed:
            return "partial"
        if self.lacking is None:
            return "sealed"
        return f"lacks {counted(len(self.lacking), 'cache')}" if self.lacking else "complete"

    def to_json(self) -> dict[str, object]:
        r = self.row
        return {
            "product": r.product,
            "version": r.version,
            "extra": r.extra,
            "build": r.build,
            "sealed": r.sealed,
            "harvests": r.harvests,
            "images": r.images,
            "listed": r.listed,
            "harvested": self.harvested or None,
            "archs": self.archs,
            "lacking": self.lacking,
            "content_bytes": self.size,
        }


def _overviews(library: Library, rows: Sequence[ReleaseRow], expectations: Expectations) -> list[_Overview]:
    from symcache.catalog import GlancedRelease

    seen = library.catalog.glance() if rows else {}
    result = []
    for row in rows:
        one = seen.get(row.id, GlancedRelease())
        lacking = completeness.lacking_at_a_glance(row, one, expectations)
        result.append(_Overview(row, one.harvested, one.content_bytes, completeness.archs_at_a_glance(one), lacking))
    return result


def _show_available(sealed: dict[str, bool], list_file: Path | None, json: bool) -> None:
    from symcache_provisioning import available_releases

    lacking = [r for r in available_releases(list_file) if not sealed.get(r.build)]
    if json:
        emit_json([{"build": r.build, "version": r.version, "partial": r.build in sealed} for r in lacking])
        return
    table = Table("build", "version", "state")
    for r in lacking:
        table.add_row(r.build, r.version or "-", "partial" if r.build in sealed else "not harvested")
    if lacking:
        out.print(table)
    else:
        out.print("every build that is known of is harvested")


def get(
    uuid: Annotated[str, typer.Argument(metavar="UUID")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write, or -: standard output; else the local cache."
        ),
    ] = None,
    kind: KindOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    arch: ArchOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch one binary by UUID, from the library or from servers, and print where it is."""
    from symcache.client import SymbolClient, split_tokens

    with errors_to_exit():
        printed = output is not None and _is_standard_output(output)
        if printed:
            output = None  # by way of the cache, and without a line that would stand behind the bytes
        try:
            wanted = parse_uuid(uuid)
        except UsageError as error:
            raise UsageError(str(error), hint="`symcache lookup NAME` tells the UUIDs of what has a name") from error
        cache_uuid = parse_uuid(cache) if cache else None
        urls = server_urls(server)
        # A server named on the command line is meant, even where a library of one's own exists.
        kinds = [kind] if kind else list(Kind)  # executables first
        requests = [ImageRequest(wanted, one, cache_uuid, build) for one in kinds]
        path = None if (server and not library) else _from_library(requests, library, output, urls)
        if path is None and urls:
            request = requests[0]
            with SymbolClient(urls, cache_dir()) as client, byte_progress() as bar:
                task = bar.add_task("fetching", total=None)
                found = client.fetch_many([request], lambda done, total: bar.update(task, completed=done, total=total))
            # Of servers that were away, or sent something else.
            name_some("warning", client.failures.get(request, []), in_json=False)
            fetched = found.get(request)
            path = fetched.path if fetched else None
            if path and output:
                path = _copy(path, output)
        if path is None:
            where = " and ".join(
                [*([] if server and not library else [library_location(library)]), *split_tokens(urls)[0]]
            )
            raise NotFoundError(
                f"{uuid_text(wanted)}: nobody has it ({where})", hint="harvest the release that holds it"
            )
        if arch:
            _check_arch(path, arch)
        if printed:
            with path.open("rb") as content, open(_STDOUT, "wb", closefd=False) as stream:
                shutil.copyfileobj(content, stream)
        elif json:
            emit_json({"uuid": uuid_text(wanted), "path": str(path), "size": path.stat().st_size})
        else:
            out.print(plain(str(path)))


def _from_library(
    requests: list[ImageRequest], location: str | None, output: Path | None, urls: list[str]
) -> Path | None:
    try:
        opened: Library = open_library(location)
    except NotFoundError:
        if urls and location is None:
            return None  # no library of one's own is fine where a server can be asked
        raise
    with opened:
        found = next((found for request in requests if (found := opened.resolve(request))), None)
        if found is None:
            return None
        target = output or cache_dir() / "library" / found.sha256 / (found.name or "image")
        if output or not target.exists():
            opened.materialize(found.sha256, found.size, target)
        return target


def _is_standard_output(target: Path) -> bool:
    if target == Path("-"):
        return True
    with contextlib.suppress(OSError):  # no such file yet
        return os.path.samestat(target.stat(), os.fstat(_STDOUT))
    return False


def _copy(source: Path, target: Path) -> Path:
    """Copy a cached file, which never changes, to where the user wants it: whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as part:
        shutil.copyfile(source, part)
    return target


def _check_arch(path: Path, arch: str) -> None:
    from symcache.macho import identify

    found = {s.arch for s in identify(path)}
    if arch not in found:
        fail(f"{path}: is {', '.join(sorted(found))} where {arch} was asked for", code=1)
