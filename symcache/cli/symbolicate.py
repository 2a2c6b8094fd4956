"""The command `symbolicate`: names for addresses, and for the frames of reports, without a debugger."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from symcache.cli.addresses import AddressOptions, print_addresses, wanted_image
from symcache.cli.common import (
    complain,
    emit_text,
    error_of,
    errors_to_exit,
    existing_path,
    json_text,
    out,
    plain,
    state,
    to_output,
)
from symcache.cli.dumps import SymbolsOption, name_missing, symbol_folders, warn
from symcache.cli.file_names import FileNames
from symcache.cli.options import BuildOption, CacheOption, JsonOption, LibraryOption, ServerOption
from symcache.cli.settings import binary_sources, names_folder
from symcache.errors import SymcacheError, UsageError
from symcache.files import atomic_write
from symcache.macho import parse_uuid
from symcache.text import counted, printable

if TYPE_CHECKING:
    from symcache.resolve import SourceNamer
    from symcache.symbolicate import NamedReport

__all__ = ["register"]

_MAX_REPORT = 64 << 20
"""Bytes of standard input."""
_HELP = """Print names for addresses, as `atos` does, or crash reports with the names of their frames filled in.

`symcache symbolicate -o FILE|dSYM|UUID -l LOADADDRESS ADDRESS...` names addresses; `symcache symbolicate REPORT...`
writes reports (`.ips`, `.crash`) as they are, but with names. Without ADDRESS or REPORT, standard input is read.
Servers are sent UUIDs and offsets, never a report.

Marks: `fun_4a30` is a function that begins at offset 0x4a30 and has no name; a name with `[nearest]` is that of the
last symbol before an address in a file that does not tell where functions begin, and may be the neighbour's;
`[inlined]` is in the function of the line below.
"""


class Format(StrEnum):
    """How reports are written."""

    OWN = "own"
    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(name="symbolicate", help=_HELP)(symbolicate)


def symbolicate(
    what: Annotated[list[str] | None, typer.Argument(metavar="REPORT|ADDRESS")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|UUID|DIR",
            help="Of addresses, the binary, dSYM or UUID; of reports, the folder to write them into.",
        ),
    ] = None,
    load: Annotated[
        str | None,
        typer.Option("--load-address", "-l", metavar="ADDRESS", help="Where the image was loaded, in hex."),
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", "-arch", metavar="ARCH", help="Of a universal file.")] = None,
    offset: Annotated[bool, typer.Option("--offset", "-offset", help="Addresses are offsets in the image.")] = False,
    inlines: Annotated[bool, typer.Option("--inlines", "-i", help="Print inlined functions, too.")] = False,
    full_path: Annotated[bool, typer.Option("--full-path", "-fullPath", help="Print paths of sources.")] = False,
    form: Annotated[
        Format,
        typer.Option("--format", metavar="own|text|json", help="Of reports: as they are, text of one layout, or JSON."),
    ] = Format.OWN,
    symbols: SymbolsOption = None,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    json: JsonOption = False,
) -> None:
    """Print names for addresses, or reports with names: see `_HELP`."""
    with errors_to_exit():
        image = wanted_image(output, arch) if output else None
        pin = (parse_uuid(cache) if cache else None, build)
        addresses = what and all(re.fullmatch("0x[0-9A-Fa-f]+", word) and not Path(word).exists() for word in what)
        if image is None and (load or arch or offset or inlines or full_path or (addresses and not output)):
            raise UsageError(
                f"{output}: is no binary, dSYM or UUID" if output else "addresses of which image?",
                hint="name its binary, dSYM or UUID with -o; -l, -arch, -offset, -i and -fullPath are for addresses",
            )
        folders = [*symbol_folders(symbols), *(image.folders if image else ())]
        with names_folder() as names, binary_sources(folders, library, server) as sources:
            from symcache.resolve import SourceNamer
            from symcache.symbolicate import NamesFolder

            namer = SourceNamer(sources, NamesFolder(names), *pin)
            if image:
                options = AddressOptions(load, offset=offset, inlines=inlines, full_path=full_path, json=json)
                print_addresses(image, what or [], options, namer)
                warn(list(dict.fromkeys(namer.problems)))
                return
            folder = Path(output).expanduser() if output else None
            worst = _Reports(namer, Format.JSON if json else form, folder).run(what or ["-"])
        if worst:
            raise typer.Exit(worst)


class _Reports:
    """Names reports one by one, and writes each when it is there."""

    def __init__(self, namer: SourceNamer, form: Format, folder: Path | None) -> None:
        self._namer, self._form, self._folder = namer, form, folder
        self._names = FileNames()
        self._missing: dict[UUID | str, tuple[str, UUID | None]] = {}
        """Name and UUID, by the UUID; of images that have none, by the name."""
        self._builds: set[str] = set()
        self._written = 0
        self._warned: set[str] = set()

    def run(self, reports: Sequence[str]) -> int:
        """Write all reports; return the worst of their exit codes."""
        worst, many = 0, len(reports) > 1
        for text in reports:
            path = Path("standard input") if text == "-" else Path(text).expanduser()
            try:
                data = _read(text, path)
                named = self._named(path, data)
                made = self._made(path, data, named)
            except Exception as error:
                failure = error_of(path, error, "symbolicate", "symbolicated")
                if state.debug or not many:
                    raise failure from error
                worst = max(worst, failure.exit_code)
                complain(str(failure), failure.hint)
                self._fail(path, failure, many=many)
                continue
            finally:
                problems = [problem for problem in dict.fromkeys(self._namer.problems) if problem not in self._warned]
                warn(problems)
                self._warned.update(problems)
            self._write(path, made, many=many)
            if self._folder:
                known, wanted = named.counts
                out.print(f"{plain(str(path))}: {known} of {counted(wanted, 'address is', 'addresses are')} named")
        if many and self._form is Format.JSON and not self._folder:
            emit_text("\n]\n" if self._written else "[]\n")
        title = f"{len(reports)} reports" if many else str(path)
        name_missing(
            list(self._missing.values()),
            title,
            warned=bool(self._warned),
            reported=True,
            command="symbolicate",
            build=next(iter(self._builds)) if len(self._builds) == 1 else None,
        )
        return worst

    def _named(self, path: Path, data: bytes) -> NamedReport:
        from symcache.reports import parse_report
        from symcache.symbolicate import name_report

        named = name_report(parse_report(data, str(path)), self._namer)
        self._builds.add(named.report.os_build)
        for number, found in named.used.items():
            if not found:
                image = named.report.images[number]
                if image.uuid in self._namer.explained:
                    continue  # a warning said why
                name = image.path.rpartition("/")[2]
                key = image.uuid or name
                if not self._missing.get(key, ("", None))[0]:
                    self._missing[key] = name, image.uuid
        return named

    def _made(self, path: Path, data: bytes, named: NamedReport) -> bytes | str:
        """Return what is written of a report: a text is a value of JSON."""
        from symcache.symbolicate import report_json, report_text, rewritten

        if self._form is Format.JSON:
            return json_text({"report": str(path), **report_json(named)})
        if self._form is Format.TEXT:
            return report_text(named).encode("utf-8", "backslashreplace")
        return rewritten(data, named)

    def _write(self, path: Path, made: bytes | str, *, many: bool) -> None:
        if isinstance(made, bytes):
            self._put(path, made, ".crash" if self._form is Format.TEXT else "")
            return
        if self._folder:
            self._put(path, f"{made}\n".encode("utf-8", "backslashreplace"), ".json")
        elif many:
            emit_text(("[\n" if not self._written else ",\n") + made)
        else:
            emit_text(f"{made}\n")
        self._written += 1

    def _fail(self, path: Path, error: SymcacheError, *, many: bool) -> None:
        if self._form is Format.JSON:
            self._write(path, json_text({"report": str(path), "error": str(error), "hint": error.hint}), many=many)

    def _put(self, path: Path, data: bytes, ending: str) -> None:
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._target(self._folder, path, ending)) as part:
                part.write_bytes(data)
            return
        with to_output():
            if sys.stdout.isatty():  # a report may hold what drives a terminal
                sys.stdout.write(printable(data, keep="\n\t"))
            else:
                sys.stdout.flush()
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()

    def _target(self, folder: Path, path: Path, ending: str) -> Path:
        """Return where a report is written; those of one name get numbers."""
        name = Path(path.name + (ending if not path.name.endswith(ending) else ""))
        target = folder / self._names.take(name.stem, name.suffix)
        if path.exists() and target.exists() and path.samefile(target):
            raise UsageError(f"{path}: would be replaced by itself with names", hint="name another folder with -o")
        return target


def _read(text: str, path: Path) -> bytes:
    if text != "-":
        path = existing_path(text)
        if path.is_dir():
            raise UsageError(f"{text}: is a folder where a report was expected", hint="name the reports in it")
        with path.open("rb") as file:
            data = file.read(_MAX_REPORT + 1)
    else:
        data = sys.stdin.buffer.read(_MAX_REPORT + 1)
    return data
