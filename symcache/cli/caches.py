"""Commands over single files, without a library: extract, info."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from symcache.cli.common import Table, console, emit_json, errors_to_exit, existing_path, out, plain
from symcache.cli.options import JsonOption
from symcache.cli.progress import count_progress
from symcache.errors import FormatError, IncompleteError, NotFoundError, SharedCacheError, UsageError
from symcache.kinds import uuid_text
from symcache.macho import PLATFORMS, fileset_entries, identify
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.dyld import SharedCache

__all__ = ["register"]

_DUMP_KINDS = {
    "dump": "crash dump, header and core",
    "core": "Mach-O core",
    "minidump": "minidump of a Mac process",
    "crash report": "crash report, without memory",
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(extract)
    app.command()(info)


def extract(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="Main file, e.g. dyld_shared_cache_arm64e.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Images go below DIR/ARCHITECTURE.")],
    image: Annotated[
        str | None, typer.Option("--image", metavar="GLOB", help="Only images whose path, alias or name matches.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes.", show_default="one a core, at most 8"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Extract the images of a dyld shared cache to Mach-O files that debuggers accept."""
    from symcache.cli.cache_json import extract_json
    from symcache.dyld import SharedCache, extract_all

    with errors_to_exit(), SharedCache.open(_main_file(cache)) as opened:
        for warning in opened.warnings:
            console.print(f"[yellow]warning:[/] {plain(warning)}")
        # Architectures have the same paths: each has a tree of its own, so that none overwrites another.
        root = output / opened.arch
        with count_progress() as bar:
            task = bar.add_task("extracting", total=None)
            report = extract_all(
                opened,
                root,
                image=image,
                jobs=jobs,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if not report.extracted and not report.failed:
            raise NotFoundError(
                f"{cache}: no image matches {image!r}" if opened.images else f"{cache}: lists no image at all",
                hint=f"`symcache info {cache}` lists its images",
            )
        if json:
            emit_json(extract_json(opened, root, report))
        else:
            out.print(
                f"{counted(len(report.extracted), 'image')}, {_size(report.size)}, {plain(opened.arch)}"
                f" {_uuid(opened.uuid)}: {plain(str(root))}"
            )
        for hollow in (e for e in report.extracted if e.unbacked):
            console.print(
                f"[yellow]warning:[/] {plain(hollow.path)}: {_size(hollow.unbacked)} are in no file: zeros here"
            )
        for failed in report.failed:
            console.print(f"[bold red]failed:[/] {plain(failed.path)}: {plain(failed.reason)}")
        if report.failed:
            total = counted(len(report.failed) + len(report.extracted), "image")
            raise IncompleteError(
                f"{len(report.failed)} of {total} could not be extracted",
                hint="each is named above; the others are complete",
            )


def info(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Shared cache, Mach-O file, .dSYM, crash dump, core, crash report.")
    ],
    json: JsonOption = False,
) -> None:
    """Say what a file is: a shared cache, a Mach-O file, a dSYM, a crash dump, core, minidump or report."""
    from symcache.dump import dump_kind

    with errors_to_exit():
        place = existing_path(path)
        if place.is_dir():
            _info_folder(place, json)
            return
        if not place.is_file():
            raise FormatError(f"{place}: is no ordinary file", hint="copy what it holds to a file")
        with place.open("rb") as file:
            head = file.read(16)
        if head[:7] == b"dyld_v1":
            _info_cache(place, json)
        elif dump_kind(place):
            _info_dump(place, json)
        else:
            _info_macho([place], place, json)


def _main_file(text: str) -> Path:
    from symcache.dyld import find_caches

    path = existing_path(text)
    if path.is_dir():
        found = find_caches(path)
        hint = f"name one of: {', '.join(map(str, found))}" if found else "name dyld_shared_cache_ARCHITECTURE itself"
        raise UsageError(f"{path}: is a folder, not a shared cache", hint=hint)
    return path


def _info_folder(folder: Path, json: bool) -> None:
    from symcache.dyld import find_caches

    if caches := find_caches(folder):
        raise FormatError(f"{folder}: is a folder of shared caches", hint=f"name one of them: {caches[0]}")
    inner = folder / "Contents" / "Resources" / "DWARF"
    files = sorted(f for f in inner.iterdir() if f.is_file()) if inner.is_dir() else []
    if not files:
        raise FormatError(f"{folder}: is a folder, but no dSYM bundle", hint="name a file, or a .dSYM bundle")
    _info_macho(files, folder, json)


def _info_dump(path: Path, json: bool) -> None:
    from symcache.dump import describe

    described = describe(path)
    kind, modules = described["kind"], described["modules"]
    if json:
        emit_json({"kind": kind, "path": str(path), **described})
        return
    out.print(f"{plain(str(path))}: {_DUMP_KINDS[kind]}")
    for key, value in described.items():
        if key not in {"kind", "modules"} and value is not None:
            out.print(f"  {key + ':':16}{plain(str(value))}")
    out.print(f"  modules:        {len(modules)}")
    if modules:
        rows = ((m["address"] or "-", m["uuid"] or "-", plain(m["path"] or "-")) for m in modules)
        _print_table(("address", "UUID", "path"), *rows)


def _info_macho(files: list[Path], named: Path, json: bool) -> None:
    from symcache.cli.cache_json import file_type, slice_json

    found = [(file, part) for file in files for part in identify(file)]
    if not found:
        raise FormatError(
            f"{named}: is no Mach-O file, shared cache or crash dump", hint="a shared cache is named by its main file"
        )
    if json:
        emit_json({"kind": "mach-o", "path": str(named), "slices": [slice_json(f, s) for f, s in found]})
        return
    out.print(plain(str(named)))
    _print_table(
        ("arch", "type", "UUID", "offset", "size", "install name"),
        *(
            (
                part.arch,
                file_type(part),
                _uuid(part.uuid),
                f"{part.offset:#x}",
                _size(part.size),
                plain(part.install_name or "-"),
            )
            for _, part in found
        ),
    )
    for file, part in found:
        if entries := fileset_entries(file, part):
            rows = ((_uuid(e.uuid), f"{e.address:#x}", plain(e.name)) for e in entries)
            _print_table(("UUID", "address", "image"), *rows)


def _info_cache(path: Path, json: bool) -> None:
    from symcache.cli.cache_json import cache_json
    from symcache.dyld import SharedCache

    with SharedCache.open(path, partial=True) as cache:
        lacking = [m for m in cache.missing if not m.companion.optional]
        if json:
            emit_json(cache_json(cache))
        else:
            _print_cache(cache)
        for warning in cache.warnings:
            console.print(f"[yellow]warning:[/] {plain(warning)}")
        if lacking:
            raise SharedCacheError(
                f"{path}: {len(lacking)} of its {counted(len(lacking) + len(cache.files), 'file')} cannot be used",
                hint="copy all files of the cache from the same machine",
            )


def _print_cache(cache: SharedCache) -> None:
    header = cache.main.header
    platform = PLATFORMS.get(header.platform, f"platform {header.platform}") if header.platform else ""
    release = f"{platform} {cache.os_version}".strip() or "system not noted"
    kind = {0: "development", 1: "production", 2: "universal"}.get(header.cache_type, f"type {header.cache_type}")
    out.print(f"{plain(str(cache.path))}: shared cache, {plain(cache.arch)}, {_uuid(cache.uuid)}, {release}, {kind}")
    files = [(p.path.name, p.header.uuid, _size(p.size), f"{p.header.mapping_offset:#x} bytes") for p in cache.files]
    files += [(m.companion.name, m.companion.uuid, "missing", "") for m in cache.missing]
    _print_table(
        ("UUID", "size", "header", "file"),
        *((_uuid(uuid), size, header, plain(name)) for name, uuid, size, header in files),
    )
    _print_table(
        ("mapping", "address", "size", "offset", "access", "slide info", "file"),
        *(
            (
                mapping.name,
                f"{mapping.address:#x}",
                f"{mapping.size:#x}",
                f"{mapping.file_offset:#x}",
                _access(mapping.init_prot),
                f"v{part.slide_version(mapping)}" if part.slide_version(mapping) else "-",
                plain(part.path.name),
            )
            for part, mapping in cache.mappings
        ),
    )
    if cache.images:
        _print_table(
            ("UUID", "address", "image"),
            *((_uuid(image.uuid), f"{image.address:#x}", plain(image.path)) for image in cache.images),
        )
    out.print(f"{counted(len(cache.images), 'image')}, {counted(len(cache.aliases), 'other path')} of them")


def _print_table(headings: Sequence[str], *rows: Sequence[str]) -> None:
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _uuid(uuid: UUID | None) -> str:
    return uuid_text(uuid) if uuid else "-"


def _access(protection: int) -> str:
    return "".join(letter if protection & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
