"""What every command shares: consoles, JSON output, tables, and errors turned into sentences and exit codes."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.text import Text

from symcache.errors import EnvironmentFailure, SymcacheError, UsageError
from symcache.text import json_printable, printable

__all__ = [
    "State",
    "Table",
    "complain",
    "console",
    "emit_json",
    "emit_text",
    "error_of",
    "errors_to_exit",
    "existing_dump",
    "existing_path",
    "fail",
    "json_text",
    "name_some",
    "out",
    "plain",
    "show_images",
    "state",
    "takes_utf8",
    "to_output",
]


@contextmanager
def to_output() -> Iterator[None]:
    """Have an error of what is written to standard output within name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


class _Output(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        with to_output():
            super().print(*objects, **options)


out = _Output(soft_wrap=True, highlight=False, emoji=False)
"""Results: what a pipe should get."""
console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
"""Everything else: steps, progress, errors."""


@dataclass
class State:
    """Flags that hold for the whole run."""

    debug: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


state = State()


def plain(text: str) -> str:
    """Return foreign text as `printable` does, safe for rich's markup, too."""
    return escape(printable(text))


def name_some(title: str, texts: Sequence[str], *, style: str = "yellow", most: int = 20, in_json: bool = True) -> None:
    """Print foreign texts on standard error, each behind the title; of many, only the first `most`.

    `in_json`: the command's `--json` has all of them.
    """
    for text in texts[:most]:
        console.print(f"[{style}]{title}:[/] {plain(text)}", soft_wrap=True)
    if len(texts) > most:
        where = " (--json lists them all)" if in_json else ""
        console.print(f"[{style}]{title}:[/] and {len(texts) - most} more{where}")


class Table:
    """Rows of markup under headings, to be printed by `out`. No UUID or path is ever cut.

    In a pipe a row is a line, however long. On a terminal that is too narrow for that, the last column, which is the
    widest, has lines of its own, so that what stands before it stays in columns.
    """

    def __init__(self, *headings: str) -> None:
        self._rows = [[Text(heading, style="bold") for heading in headings]] if headings else []

    def add_row(self, *cells: str) -> None:
        """Add a row of as many cells as there are in the others."""
        self._rows.append([Text.from_markup(cell, emoji=False) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        widths = [max(cell.cell_len for cell in column) for column in zip(*self._rows, strict=True)]
        whole = sum(widths) + _GAP * (len(widths) - 1)
        apart = console.is_terminal and len(widths) > _LEAST_APART and whole > options.max_width
        for row in self._rows:
            if apart:
                yield _line(row[:-1], widths)
                yield _line([Text(" " * (_GAP - 1)), row[-1]], [_GAP - 1, 0], gap=1)
            else:
                yield _line(row, widths)


_GAP = 2
_LEAST_APART = 2
"""Columns: of two, neither is apart."""


def _line(cells: Sequence[Text], widths: Sequence[int], *, gap: int = _GAP) -> Text:
    line = Text(no_wrap=True, overflow="ignore")
    for cell, width in zip(cells, widths, strict=False):
        line.append_text(cell).append(" " * (width - cell.cell_len + gap))
    line.rstrip()
    return line


def show_images(images: Sequence[Mapping[str, object]]) -> None:
    """Print what was added or sent, a row each."""
    table = Table()
    for image in images:
        table.add_row(*(plain(str(image[key] or "-")) for key in ("uuid", "arch", "kind", "path")))
    if images:
        out.print(table)


def emit_json(value: object) -> None:
    """Print one JSON document on standard output, whatever that is and whatever bytes names and paths hold.

    What is not printable are `\\u` escapes in it, in a pipe, too: it may end in a terminal all the same.
    """
    emit_text(json_text(value) + "\n")


def json_text(value: object) -> str:
    """Return a value as one JSON document, printable, on several lines."""
    return json_printable(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def emit_text(document: str) -> None:
    """Print a piece of a JSON document, which may be no whole value, on standard output."""
    with to_output():
        sys.stdout.write(document if takes_utf8() else _ascii(document))


def _ascii(document: str) -> str:
    """Return JSON in ASCII: what is beyond stands in strings only."""
    return "".join(character if character < "\x80" else json.dumps(character)[1:-1] for character in document)


def takes_utf8() -> bool:
    """Return whether what is printed on standard output becomes UTF-8."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"


def complain(message: str, hint: str) -> None:
    """Say what is wrong and what to do next on stderr."""
    console.print(f"[bold red]error:[/] {plain(message)}")
    if hint:
        console.print(f"[dim]next:[/] {plain(hint)}")


def fail(message: str, *, hint: str = "", code: int = 1) -> NoReturn:
    """Say what is wrong and what to do next on stderr, and end with `code`."""
    complain(message, hint)
    raise typer.Exit(code)


def error_of(path: Path, error: Exception, command: str, done: str) -> SymcacheError:
    """Return whatever went wrong with one file of many as an error that the others need not know of.

    `done`: what `command` was to do with it, as a participle.
    """
    if isinstance(error, SymcacheError):
        return error
    if isinstance(error, OSError):
        said = EnvironmentFailure(
            f"{error.filename or path}: {error.strerror or error}",
            hint="check that it can be read, and the free space",
        )
    else:
        what = " ".join(f"{type(error).__name__} {error}".split())
        said = EnvironmentFailure(
            f"{path}: cannot be {done} for a fault of symcache: {what}",
            hint=f"report what `symcache --debug {command}` shows for it",
        )
    said.__cause__ = error
    return said


_CONTINUES = "run the same command again: it continues where it stopped"


@contextmanager
def errors_to_exit(again: str = _CONTINUES) -> Iterator[None]:
    """Turn the project's errors, and those of the operating system, into one sentence and an exit code.

    `again` is the next step after an interrupt.
    """
    try:
        yield
        with to_output():
            sys.stdout.flush()  # now, while what goes wrong can be said
    except SymcacheError as error:
        if state.debug:
            raise
        fail(str(error), hint=error.hint, code=error.exit_code)
    except KeyboardInterrupt as error:
        told = "; ".join(["interrupted", *getattr(error, "__notes__", ())])
        fail(told, hint=again, code=130)
    except BrokenPipeError:
        _forget_output()  # the reader went away (`| head`): not an error
        raise typer.Exit(0) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        try:
            sys.stdout.flush()
        except OSError:
            _forget_output()
        if state.debug:
            raise
        space = "free some space" + ("" if where else f" (temporary files lie in {tempfile.gettempdir()})")
        hint = {
            errno.ENOSPC: f"{space}, then run the same command again",
            errno.EDQUOT: f"{space}, then run the same command again",
            errno.EACCES: "check who owns it and who may write there",
            errno.ENOENT: "check the spelling of the path",
        }.get(error.errno or 0, "")
        fail(f"{where}{error.strerror or error}", hint=hint, code=2 if error.errno == errno.ENOENT else 3)


def _forget_output() -> None:
    """Throw away what standard output does not take: Python would complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def existing_path(value: str) -> Path:
    """Return `value` as a path that exists. Raises UsageError."""
    path = Path(value).expanduser()
    if not path.exists():
        raise UsageError(f"{value}: no such file or folder", hint="check the spelling of the path")
    return path


def existing_dump(value: str) -> Path:
    """Return `value` as a path at which there is a file. Raises UsageError."""
    path = existing_path(value)
    if path.is_dir():
        raise UsageError(f"{value}: is a folder where a dump was expected", hint="name the dumps in it")
    return path
