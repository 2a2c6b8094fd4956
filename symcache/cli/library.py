"""Commands over the library: lookup, releases, get."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from symcache.catalog import CollectedImage, Occurrence
from symcache.cli.common import (
    ArchOption,
    BuildOption,
    CacheOption,
    JsonOption,
    LibraryOption,
    ServerOption,
    Table,
    byte_progress,
    console,
    emit_json,
    errors_to_exit,
    fail,
    out,
    plain,
)
from symcache.cli.settings import cache_dir, library_location, open_library, server_urls
from symcache.client import SymbolClient, split_tokens
from symcache.errors import NotFoundError, UsageError
from symcache.files import atomic_write
from symcache.images import ImageRequest
from symcache.library import Library
from symcache.macho import parse_uuid
from symcache.model import MACOS, Kind, uuid_text

__all__ = ["register"]

KindOption = Annotated[Kind | None, typer.Option("--kind", help="The binary itself, or its dSYM.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(lookup)
    app.command()(releases)
    app.command()(get)


def lookup(
    what: Annotated[str, typer.Argument(metavar="UUID|NAME")],
    kind: KindOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    arch: ArchOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many contents of a name or path to list at most.")] = 1000,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Say what the library has under a UUID, or a name or path (with * and ?)."""
    with errors_to_exit(), open_library(library) as opened:
        cache_uuid = parse_uuid(cache) if cache else None
        more = False
        if uuid := _as_uuid(what):
            rows = [
                r
                for r in opened.variants(uuid)
                if (kind is None or r.kind is kind)
                and (build is None or r.build == build)
                and (arch is None or r.arch == arch)
                and (cache_uuid is None or r.cache_uuid == cache_uuid)
            ]
        else:
            rows = opened.by_name(what, limit + 1, kind=kind, build=build, cache=cache_uuid, arch=arch)
            more = len(rows) > limit
            rows = rows[:limit]
        notes = opened.sources([r.uuid for r in rows if r.uuid and r.kind is Kind.DEBUGINFO])
        inside = [c for c in opened.collected(uuid) if build is None or c.build == build] if uuid else []
        if json:
            emit_json([_occurrence_json(r, notes) for r in rows] + [_collected_json(what, c) for c in inside])
        else:
            table = Table("UUID", "arch", "kind", "build", "size", "path")
            for r in rows:
                table.add_row(
                    *(uuid_text(r.uuid) if r.uuid else "-", r.arch, r.kind, r.build or "-", str(r.size)),
                    plain(r.path) + (f" [yellow](conflict: {r.sha256[:12]} is not served)[/]" if r.rival else ""),
                )
            if rows:
                out.print(table)
            for known, pairs in notes.items():
                for recorded, place in pairs:
                    out.print(f"sources of {uuid_text(known)}: {plain(recorded)} are noted at {plain(place)}")
        if more:
            console.print(f"[yellow]note:[/] there are more than these {limit}: raise --limit, or ask for less")
        for c in inside if rows and not json else ():
            out.print(f"also inside {plain(c.path)} of {c.build or 'no build'}, as {plain(c.name)}")
        if inside and not rows:
            first = inside[0]
            raise NotFoundError(
                f"{what}: is {first.name} inside the kernel collection {first.path} of {first.build or 'no build'},"
                " which is stored as a whole: its images cannot be had by themselves yet",
                hint=f"symcache get {uuid_text(first.collection)}"
                if first.collection
                else "harvest a kernel debug kit",
            )
        if not rows:
            raise NotFoundError(
                f"{what}: not in {library_location(library)}", hint="`symcache releases` shows what was harvested"
            )


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
    """List the macOS releases that the library holds, newest first; or those that it lacks."""
    with errors_to_exit(), open_library(library) as opened:
        rows = opened.releases()
        if available or list_file:
            option = "--list" if list_file else "--available"
            console.print(f"[yellow]note:[/] {option} goes with the next version: `symcache sync --dry-run` says more")
            _show_available({r.build: r.sealed for r in rows if r.id.product == MACOS}, list_file, json)
            return
        if json:
            emit_json(
                [
                    {
                        "product": r.product,
                        "version": r.version,
                        "extra": r.extra,
                        "build": r.build,
                        "sealed": r.sealed,
                        "harvests": r.harvests,
                        "images": r.images,
                        "listed": r.listed,
                    }
                    for r in rows
                ]
            )
            return
        table = Table("release", "build", "state", "harvests", "images", "UUIDs")
        for r in rows:
            state = "sealed" if r.sealed else "partial"
            version = f"{r.product} {r.version} {r.extra}".rstrip()
            table.add_row(plain(version), plain(r.build), state, str(r.harvests), str(r.listed), str(r.images))
        out.print(table)


def _show_available(sealed: dict[str, bool], list_file: Path | None, json: bool) -> None:
    from symcache_provisioning import available_releases  # noqa: PLC0415 - SSH is not needed for the rest

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
    uuid: str,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write, else the local cache.")] = None,
    kind: KindOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    arch: ArchOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch one binary by UUID, from the library or from servers, and print where it is."""
    with errors_to_exit():
        wanted = parse_uuid(uuid)
        cache_uuid = parse_uuid(cache) if cache else None
        urls = server_urls(server)
        # A server named on the command line is meant, even where a library of one's own exists.
        kinds = [kind] if kind else list(Kind)  # executables first
        requests = [ImageRequest(wanted, one, cache_uuid, build) for one in kinds]
        path = None if (server and not library) else _from_library(requests, library, output, urls)
        if path is None and urls:
            request = requests[0]
            with SymbolClient(urls, cache_dir()) as client, byte_progress("fetching") as bar:
                task = bar.add_task("fetching", total=None)
                found = client.fetch_many([request], lambda done, total: bar.update(task, completed=done, total=total))
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
        if json:
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


def _copy(source: Path, target: Path) -> Path:
    """Copy a cached file, which never changes, to where the user wants it: whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as part:
        shutil.copyfile(source, part)
    return target


def _check_arch(path: Path, arch: str) -> None:
    from symcache.macho import identify  # noqa: PLC0415

    found = {s.arch for s in identify(path)}
    if arch not in found:
        fail(f"{path}: is {', '.join(sorted(found))} where {arch} was asked for", code=1)


def _as_uuid(text: str) -> UUID | None:
    try:
        return parse_uuid(text)
    except UsageError:
        return None


def _collected_json(uuid: str, c: CollectedImage) -> dict[str, object]:
    collection = uuid_text(c.collection) if c.collection else None
    return {
        "uuid": uuid_text(parse_uuid(uuid)),
        "name": c.name,
        "collection": collection,
        "path": c.path,
        "build": c.build,
    }


def _occurrence_json(o: Occurrence, notes: Mapping[UUID, Sequence[tuple[str, str]]]) -> dict[str, object]:
    return {
        "uuid": uuid_text(o.uuid) if o.uuid else None,
        "kind": o.kind,
        "arch": o.arch,
        "path": o.path,
        "origin": o.origin,
        "cache_uuid": uuid_text(o.cache_uuid) if o.cache_uuid else None,
        "extractor": o.extractor,
        "revision": o.revision,
        "sha256": o.sha256,
        "size": o.size,
        "build": o.build,
        "version": o.version,
        "sealed": o.sealed,
        "trust": o.trust,
        "symbols": o.symbols,
        "rival": o.rival,
        "sources": [
            {"recorded": recorded, "place": place}
            for recorded, place in (notes.get(o.uuid, ()) if o.uuid and o.kind is Kind.DEBUGINFO else ())
        ],
    }
