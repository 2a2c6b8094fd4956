"""`symcache lookup`: what a library has, by UUID or by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.filesize import decimal

from symcache.cli.common import Table, console, emit_json, errors_to_exit, out, plain
from symcache.cli.completion import complete_names
from symcache.cli.options import ArchOption, BuildOption, CacheOption, JsonOption, KindOption, LibraryOption
from symcache.cli.settings import is_empty, library_location, open_library
from symcache.errors import NotFoundError, UsageError
from symcache.kinds import Kind, uuid_text
from symcache.macho import parse_uuid
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.catalog import CollectedImage, Occurrence
    from symcache.library import Library

__all__ = ["register"]

_ROWS, _CONTENTS = 100, 1000
"""What is listed at most, by default."""

_PART_OF_UUID = re.compile(r"(?=.*[0-9])[0-9A-Fa-f]{8}[0-9A-Fa-f-]{0,27}")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(lookup)


def lookup(
    what: Annotated[
        str,
        typer.Argument(
            metavar="UUID|NAME",
            autocompletion=complete_names,
            help="A name or path, a part of it in any case, or one with * and ?.",
        ),
    ],
    kind: KindOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    arch: ArchOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            metavar="N",
            help="List at most so many.",
            show_default=f"{_ROWS}; of contents, in JSON: {_CONTENTS}",
        ),
    ] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Say what the library has under a UUID, or a name or path.

    What differs in the build alone is one row; --json lists every content of every build.
    """
    from symcache.catalog import MOST_PATHS

    with errors_to_exit(), open_library(library) as opened:
        cache_uuid = parse_uuid(cache) if cache else None
        most, more = limit or (_CONTENTS if json else _ROWS), False
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
            wanted = most if json else max(most, _CONTENTS)
            rows = opened.by_name(what, wanted + 1, kind=kind, build=build, cache=cache_uuid, arch=arch)
            if not rows:
                rows = opened.catalog.by_part(what, wanted + 1, kind=kind, build=build, cache=cache_uuid, arch=arch)
                more = len({r.path for r in rows}) >= MOST_PATHS
            more |= len(rows) > wanted
            rows = rows[:wanted]
        notes = opened.sources([r.uuid for r in rows if r.uuid and r.kind is Kind.DEBUGINFO])
        inside = [c for c in opened.collected(uuid) if build is None or c.build == build] if uuid else []
        if json:
            emit_json([_occurrence_json(r, notes) for r in rows] + [_collected_json(what, c) for c in inside])
        elif rows:
            left = _print_found(rows, len(rows) if uuid else most) + more
            if uuid:
                _print_builds(rows)
            if left:
                at_least = "at least " if more else ""
                rows_left = counted(left, "more row")
                console.print(f"[yellow]note:[/] and {at_least}{rows_left}: raise --limit, or ask for less")
            for known, pairs in notes.items():
                for recorded, place in pairs:
                    out.print(f"sources of {uuid_text(known)}: {plain(recorded)} are noted at {plain(place)}")
        if more and json:
            console.print(f"[yellow]note:[/] there are more than these {most}: raise --limit, or ask for less")
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
            narrowed = any(option is not None for option in (kind, build, cache, arch))
            raise NotFoundError(f"{what}: not in {library_location(library)}", hint=_what_else(opened, what, narrowed))


def _print_found(rows: Sequence[Occurrence], most: int) -> int:
    """Print a row for all that looks the same but for the build; return how many rows were left out."""
    alike: dict[tuple[str, ...], list[Occurrence]] = {}
    for r in rows:
        path = plain(r.path) + (f" [yellow](conflict: {r.sha256[:12]} is not served)[/]" if r.rival else "")
        shown = uuid_text(r.uuid) if r.uuid else "-", plain(r.arch), r.kind.value, decimal(r.size), path
        alike.setdefault(shown, []).append(r)
    table = Table("UUID", "arch", "kind", "build", "size", "path")
    for (uuid, arch, kind, size, path), same in list(alike.items())[:most]:
        builds = _builds(same)
        build = f"in {len(builds)} builds" if len(builds) > 1 else builds[0] if builds else "-"
        table.add_row(uuid, arch, kind, build, size, path)
    out.print(table)
    return max(len(alike) - most, 0)


def _builds(rows: Sequence[Occurrence]) -> list[str]:
    return list(dict.fromkeys(r.build for r in rows if r.build))


def _print_builds(rows: Sequence[Occurrence]) -> None:
    if len(builds := _builds(rows)) > 1:
        out.print(f"in {len(builds)} builds: {', '.join(builds)}")


def _what_else(library: Library, what: str, narrowed: bool) -> str:
    """Return the next step where nothing was found."""
    if is_empty(library):
        return ""  # that was said already
    if narrowed and (_as_uuid(what) or library.by_name(what, 1) or library.catalog.by_part(what, 1)):
        return "leave out --build, --arch, --cache or --kind"
    if _PART_OF_UUID.fullmatch(what):
        return "a UUID is looked up whole, by all of its 32 digits"
    if similar := [] if _as_uuid(what) else library.catalog.similar_names(what):
        return f"did you mean {', '.join(similar[:-1])}{' or ' if similar[1:] else ''}{similar[-1]}?"
    return "`symcache releases` shows what was harvested"


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
