"""`symcache dump`: write a crash dump, of a live process or as the handler of a crashing one (macOS)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symcache.cli.common import console, emit_json, errors_to_exit, out, plain
from symcache.cli.options import JsonOption
from symcache.errors import UsageError

if TYPE_CHECKING:
    from symcache.dump.capture import CrashReport, Task, WrittenDump

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(dump)


def dump(
    pid: Annotated[int | None, typer.Argument(metavar="PID", help="Process to write a dump of; it goes on.")] = None,
    handler: Annotated[
        bool,
        typer.Option("--handler", help="Wait on standard input for a crashing process that uses symcache_marshal.h."),
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Dump to write, or the folder to write it to.")
    ] = Path(),
    big: Annotated[bool, typer.Option("--big", help="Keep all readable memory, not the stacks alone.")] = False,
    c_header: Annotated[
        bool, typer.Option("--c-header", help="Print symcache_marshal.h, for crash handlers in native code.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a crash dump of a live process, or be the handler that a crashing one asks for it (macOS only)."""
    from symcache.dump.capture import CrashReport, MachReceiver, MachTask, read_images, serve, write_dump

    with errors_to_exit():
        if (pid is not None) + handler + c_header != 1:
            raise UsageError("one of PID, --handler and --c-header was expected", hint="see `symcache dump --help`")
        if c_header:
            sys.stdout.write((resources.files("symcache.dump.capture") / "symcache_marshal.h").read_text())
            return
        if pid is not None:
            task = MachTask.of_process(pid)
            # Nobody crashed: the first thread is the main one.
            thread = next((thread.thread_id for thread in task.threads()), 0)
            report = CrashReport(thread, next((image.path for image in read_images(task).images), ""))
            written = write_dump(task, report, _target(output, report), everything=big)
            emit_json(_as_json(written)) if json else out.print(plain(str(written.path)))
            _problems(written)
            return

        def write(task: Task, report: CrashReport) -> None:
            # Standard output belongs to the crashing process: nothing is printed there.
            written = write_dump(task, report, _target(output, report), everything=big)
            console.print(f"{plain(report.executable)} crashed: {plain(str(written.path))}")
            _problems(written)

        serve(sys.stdin.buffer, sys.stdout.buffer, MachReceiver, write)


def _target(output: Path, report: CrashReport) -> Path:
    if output.suffix == ".zip" and not output.is_dir():
        return output
    name = "".join(c if c.isalnum() or c in "._- " else "_" for c in report.executable.rpartition("/")[2]) or "process"
    return output / f"{name[:100]}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{report.thread_id}.zip"


def _problems(written: WrittenDump) -> None:
    for problem in written.problems:
        console.print(f"[yellow]note:[/] {plain(problem)}")


def _as_json(written: WrittenDump) -> dict[str, object]:
    return {
        "path": str(written.path),
        "threads": written.threads,
        "modules": written.modules,
        "kept_bytes": written.kept,
        "problems": list(written.problems),
    }
