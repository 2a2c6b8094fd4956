"""`symcache export`: a release as the files that debuggers and other tools look for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from symcache.cli.common import emit_json, errors_to_exit, name_some, out, plain
from symcache.cli.completion import complete_builds
from symcache.cli.options import ArchsOption, CacheOption, JsonOption, LibraryOption
from symcache.cli.progress import byte_progress
from symcache.cli.settings import open_library
from symcache.errors import IncompleteError
from symcache.macho import parse_uuid
from symcache.text import counted

__all__ = ["register"]


class ExportFormat(StrEnum):
    """How a release is laid out."""

    DEVICE_SUPPORT = "device-support"
    RAW = "raw"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(export)


def export(
    build: Annotated[
        str, typer.Argument(metavar="BUILD", autocompletion=complete_builds, help="E.g. 22G120, or PRODUCT:BUILD.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="~/Library/Developer/Xcode, for LLDB and Xcode on this Mac, or other.",
        ),
    ],
    layout: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            metavar="device-support|raw",
            help="device-support: images as Xcode lays them out. raw: the shared caches, in their paths.",
        ),
    ] = ExportFormat.DEVICE_SUPPORT,
    arch: ArchsOption = None,
    cache: CacheOption = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Write a release as files, for LLDB and Xcode, or its raw shared caches. Nothing that is there is overwritten."""
    from symcache.library import export_device_support, export_raw_caches

    with (
        errors_to_exit(again="run the same command again: it begins anew"),
        open_library(library) as opened,
    ):
        cache_uuid = parse_uuid(cache) if cache else None
        write = export_raw_caches if layout is ExportFormat.RAW else export_device_support
        with byte_progress() as bar:
            task = bar.add_task("writing", total=None)
            result = write(
                opened,
                build,
                output.expanduser(),
                archs=arch or (),
                cache=cache_uuid,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if json:
            emit_json(
                {
                    "build": build,
                    "format": layout,
                    "folders": [str(f) for f in result.folders],
                    "files": result.files,
                    "size": result.size,
                    "problems": result.problems,
                }
            )
        else:
            for folder in result.folders:
                out.print(plain(str(folder)))
            name_some("problem", result.problems)
        if result.problems:
            raise IncompleteError(
                f"{build}: is exported as far as the library has it: {counted(len(result.problems), 'problem')}",
                hint="what is missing is named by `symcache verify`",
            )
