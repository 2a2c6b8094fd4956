"""What `analyze` prints and writes: findings as text, JSON or a page, one by one or by signature."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from symcache.cli.common import emit_json, emit_text, json_text, out, plain, takes_utf8, to_output
from symcache.cli.file_names import FileNames
from symcache.dump import Analysis, Frame, ModuleReport, ThreadReport
from symcache.errors import SymcacheError, UsageError
from symcache.files import atomic_write
from symcache.kinds import uuid_text
from symcache.text import printable

__all__ = ["Output", "output_of"]

_ORIGINS = {"option": "as the options say", "dump": "as the file says", "inferred": "inferred from its modules"}
_MAX_NAMED = 5
"""Dumps of a group that are named one by one."""


class Output:
    """Takes what came of each dump, in their order; this one prints it as text."""

    quiet = False
    """Whether what is wanting in a dump is left to its own findings."""

    def take(self, path: Path, analysis: Analysis) -> None:
        """Take the findings of a dump."""
        del path
        print_analysis(analysis)

    def fail(self, path: Path, error: SymcacheError) -> None:
        """Take the error that a dump ended with; the command says it as well."""

    def close(self) -> None:
        """Print what is left."""


def output_of(*, many: bool, folder: Path | None, group: bool, as_json: bool, html: bool) -> Output:
    """Return what the options ask for. Raises UsageError for those that exclude each other, OSError."""
    if as_json and html and not folder:
        raise UsageError("--json and --html exclude each other", hint="run it once for each")
    if group and html and not folder:
        raise UsageError("--group and --html exclude each other", hint="with --output FOLDER, each dump gets a page")
    summary = _Groups(as_json=as_json) if group else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        return _Files(folder, summary or (_JsonOutput(many=True) if as_json else None), html=html)
    if summary:
        return summary
    return _JsonOutput(many=many) if as_json else _HtmlOutput() if html else Output()


def _failed(path: Path, error: SymcacheError) -> dict[str, Any]:
    return {"dump": str(path), "error": str(error), "hint": error.hint}


class _JsonOutput(Output):
    """Prints one object, or a list of them, each when it is there: there may be thousands."""

    def __init__(self, *, many: bool) -> None:
        self._many, self._count = many, 0

    def take(self, path: Path, analysis: Analysis) -> None:
        del path
        self.emit(analysis.to_json())

    def fail(self, path: Path, error: SymcacheError) -> None:
        self.emit(_failed(path, error))

    def emit(self, value: dict[str, Any]) -> None:
        if self._many:
            emit_text(("[\n" if self._count == 0 else ",\n") + textwrap.indent(json_text(value), "  "))
        else:
            emit_json(value)
        self._count += 1

    def close(self) -> None:
        if self._many:
            emit_text("\n]\n" if self._count else "[]\n")


class _HtmlOutput(Output):
    """Prints one page about all."""

    def __init__(self) -> None:
        self._reports: list[dict[str, Any]] = []

    def take(self, path: Path, analysis: Analysis) -> None:
        del path
        self._reports.append(analysis.to_json())

    def fail(self, path: Path, error: SymcacheError) -> None:
        self._reports.append(_failed(path, error))

    def close(self) -> None:
        page = _page(self._reports)  # which says that it is UTF-8
        with to_output():
            sys.stdout.write(page if takes_utf8() else page.encode("ascii", "xmlcharrefreplace").decode())


def _page(reports: list[dict[str, Any]]) -> str:
    from symcache.dump.html import to_html

    return to_html(reports)


class _Files(Output):
    """Writes a file for each dump, and prints a line for each, or what the other output makes of them."""

    quiet = True

    def __init__(self, folder: Path, summary: Output | None, *, html: bool) -> None:
        self._folder, self._summary, self._html = folder, summary, html
        self._names = FileNames()

    def take(self, path: Path, analysis: Analysis) -> None:
        file = self._write(path, analysis.to_json())
        identity, _ = analysis.signature()
        if isinstance(self._summary, _JsonOutput):
            self._summary.emit({"dump": str(path), "file": str(file), "signature": identity})
        elif self._summary:
            self._summary.take(path, analysis)
        else:
            out.print(f"{plain(str(path))}: {identity} {plain(analysis.exception.description)}")

    def fail(self, path: Path, error: SymcacheError) -> None:
        self._write(path, _failed(path, error))
        if self._summary:
            self._summary.fail(path, error)

    def close(self) -> None:
        if self._summary:
            self._summary.close()

    def _write(self, path: Path, findings: dict[str, Any]) -> Path:
        """Write a file under the dump's name; dumps of one name get numbers."""
        target = self._folder / self._names.take(path.name, ".html" if self._html else ".json")
        if self._html:
            text = _page([findings])
        else:
            text = json_text(findings) + "\n"
        with atomic_write(target) as part:
            part.write_text(text, "utf-8", errors="backslashreplace")
        return target


@dataclass(slots=True)
class _Group:
    """Dumps of one signature."""

    frames: list[str]
    exception: str
    """Of the first."""
    dumps: list[str] = field(default_factory=list)


class _Groups(Output):
    """Prints signatures, the most frequent first, with the frames that define them."""

    quiet = True

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._groups: dict[str, _Group] = {}
        self._failures: list[dict[str, Any]] = []

    def take(self, path: Path, analysis: Analysis) -> None:
        identity, lines = analysis.signature()
        group = self._groups.setdefault(identity, _Group(lines, analysis.exception.description))
        group.dumps.append(str(path))

    def fail(self, path: Path, error: SymcacheError) -> None:
        self._failures.append(_failed(path, error))

    def close(self) -> None:
        groups = sorted(self._groups.items(), key=lambda item: -len(item[1].dumps))
        if self._json:
            listed = [
                {
                    "signature": {"id": identity, "frames": group.frames},
                    "count": len(group.dumps),
                    "exception": group.exception,
                    "dumps": group.dumps,
                }
                for identity, group in groups
            ]
            emit_json({"groups": listed, "failed": self._failures})
            return
        for identity, group in groups:
            out.print(f"{len(group.dumps):6}  [bold]{identity}[/]  {plain(group.exception)}")
            for line in group.frames[1:]:
                out.print(f"        {plain(line)}")
            left = len(group.dumps) - _MAX_NAMED
            named = ", ".join(group.dumps[:_MAX_NAMED]) + (f" and {left} more" if left > 0 else "")
            out.print(Text(f"        {printable(named)}", style="dim"))
        if self._failures:
            out.print(f"{len(self._failures):6}  not analyzed")


def print_analysis(analysis: Analysis) -> None:
    """Print what happened: exception, threads, registers, modules."""
    loaded, header = analysis.loaded, analysis.loaded.header
    title = plain(header.executable.rpartition("/")[2] or "core")
    version = f" {plain(header.bundle_version)}" if header.bundle_version else ""
    out.print(f"[bold]{title}[/]{version}, {loaded.dump.core.arch}: {plain(str(loaded.dump.path))}")
    if loaded.build or loaded.cache_uuid:
        mapped = analysis.cache_uuid()
        cache = f", shared cache {uuid_text(mapped)}" if mapped else ""
        out.print(f"system:    build {plain(loaded.build or 'unknown')}{cache} ({_ORIGINS[loaded.cache_origin]})")
    out.print(f"exception: {plain(analysis.exception.description)}")
    report = analysis.report
    for line in (*report.cause, *analysis.information) if report else ():
        out.print(f"           {plain(line)}")
    for note in report.notes if report else ():
        out.print(f"note:      {plain(note)}")
    out.print(f"signature: {analysis.signature()[0]}")
    if analysis.last_exception:
        out.print("\nlast exception, thrown at:")
        _print_frames(analysis.last_exception)
    for number, frames in enumerate(analysis.backtraces[1:]):
        if frames is not analysis.last_exception:
            out.print(f"\napplication-specific backtrace {number}:")
            _print_frames(frames)
    crashed = analysis.crashed
    for thread in analysis.crashed_first:
        _print_thread(thread, crashed=thread is crashed)
        if thread is crashed:
            _print_registers(analysis.registers)
    out.print("\nmodules:")
    for module in analysis.modules:
        _print_module(module)


def _print_module(module: ModuleReport) -> None:
    """Print a module on one line, or its path on a second one if it does not fit: paths and UUIDs are never cut."""
    dumped, executable = module.loaded.module, module.loaded.executable
    uuid = uuid_text(dumped.uuid) if dumped.uuid else "-"
    note = " ".join(p for p in (executable.build if executable else "", module.detail) if p)
    symbols = " +dSYM" if module.debug_info and module.status in {"have", "memory"} else ""
    start = f"  {dumped.address:#018x}  {uuid:36}  {module.status + symbols:10}"
    path = plain(dumped.path or dumped.name) + (f"  ({plain(note)})" if note else "")
    line = f"{start}  {path}"
    out.print(line if cell_len(line) <= out.width else f"{start.rstrip()}\n      {path}")


def _print_thread(thread: ThreadReport, *, crashed: bool) -> None:
    name = f" {plain(thread.name)}" if thread.name else ""
    out.print(f"\nthread {thread.index}{name}{' [bold red]crashed[/]' if crashed else ''}:")
    _print_frames(thread.frames)


def _print_frames(frames: Sequence[Frame]) -> None:
    for number, frame in enumerate(frames):
        out.print(f"  #{number:<3} {frame.address:#018x}  {plain(_frame_text(frame))}")
        if frame.source_line:
            line = printable(frame.source_line, keep="\t")
            out.print(Text(f"  {'':23} {line}", style="dim"))


def _frame_text(frame: Frame) -> str:
    place = frame.module_name or "?"
    if frame.function:
        place += f"`{frame.function}"
        if frame.offset is not None and not frame.inlined:
            place += f" + {frame.offset}" + (" [nearest]" if frame.source == "nearest" else "")
    elif frame.module_offset is not None:
        place += f" + {frame.module_offset:#x}"
    if frame.inlined:
        place += " [inlined]"
    if frame.other_function:
        place += f" (or {frame.other_function})"
    if frame.line:
        place += f" at {frame.file.rpartition('/')[2]}:{frame.line}"
    return place


def _print_registers(registers: dict[str, int]) -> None:
    out.print("  registers:")
    items = [f"{name:>6} {value:#018x}" for name, value in registers.items()]
    for start in range(0, len(items), 3):  # in 80 columns
        out.print("  ".join(items[start : start + 3]))
