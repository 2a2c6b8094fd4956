"""`symcache setup lldb`: gives LLDB the command `symcache load` and servers to ask by itself, and takes that back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from symcache.cli.common import console, errors_to_exit, fail, out, plain
from symcache.cli.help import Application
from symcache.cli.options import BuildOption, CacheOption, ServerOption
from symcache.cli.settings import server_urls
from symcache.errors import StorageError, UsageError
from symcache.files import atomic_write
from symcache.kinds import uuid_text
from symcache.macho import parse_uuid

__all__ = ["register"]

_BEGIN, _END = "# >>> symcache >>>", "# <<< symcache <<<"
_UNENDED = "# (the line before had no end)"
_DOMAIN, _KEY = "com.apple.DebugSymbols", "DBGShellCommands"
DEFAULTS = "/usr/bin/defaults"
"""macOS's program for preferences."""


def register(app: typer.Typer) -> None:
    """Add the group of commands of this module."""
    group = Application(help="Set up other programs to use a library or server, and undo it.")
    group.command("lldb")(lldb)
    app.add_typer(group, name="setup")


def lldb(
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was set up.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    init_file: Annotated[
        Path, typer.Option("--init-file", metavar="FILE", help="LLDB's init file.", show_default="~/.lldbinit")
    ] = Path("~/.lldbinit"),
) -> None:
    """Give LLDB the command `symcache load`, and let it fetch binaries by UUID; on a Mac the dsymForUUID hook too."""
    from symcache.cli import lldb_files

    with errors_to_exit():
        path = init_file.expanduser()
        # To the byte: ends of lines, and whatever the encoding is.
        before = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
        kept = _without_block(before, path)
        folder = lldb_files.folder_for(path)
        if undo:
            _undo(path, before, kept, folder, dry_run)
            return
        pin = _pin(build, cache)
        files = lldb_files.LldbFiles.plan(folder, server_urls(server), pin, [*_pin_options(build, cache)])
        ended = not kept or kept.endswith("\n")
        block = "\n".join([_BEGIN, *([] if ended else [_UNENDED]), *files.init_lines(), _END]) + "\n"
        out.print(plain(str(path)) + ":")
        for line in block.splitlines():
            out.print(f"  {plain(line)}")
        for line in files.summary():
            out.print(plain(line))
        if files.hook:
            out.print(f"defaults write {_DOMAIN} {_KEY} {plain(str(files.hook))}")
        for note in files.notes:
            console.print(f"[yellow]note:[/] {plain(note)}")
        if dry_run:
            out.print("nothing was written (--dry-run)")
            return
        files.write()
        _write(path, kept + ("" if ended else "\n") + block)
        if files.hook:
            _defaults("write", _DOMAIN, _KEY, "-string", str(files.hook))
        out.print("In LLDB: `symcache load DUMP`, or `symcache load` for the core that is open.")
        out.print("Undo it with: symcache setup lldb --undo")


def _pin_options(build: str | None, cache: str | None) -> list[str]:
    return [*(["--build", build] if build else []), *(["--cache", cache] if cache else [])]


def _pin(build: str | None, cache: str | None) -> str:
    if build and cache:
        raise UsageError("--build and --cache exclude each other", hint="the cache is the more exact pin")
    if cache:
        return f"/cache/{uuid_text(parse_uuid(cache)).lower()}"
    if build and not build.isalnum():
        raise UsageError(f"{build}: not a macOS build", hint="write e.g. 22G120")
    return f"/build/{build}" if build else ""


def _without_block(text: str, path: Path) -> str:
    """Return `text` without our block; everything else stays to the byte."""
    if _BEGIN not in text:
        return text
    head, _, rest = text.partition(_BEGIN)
    ours, end, tail = rest.partition(_END)
    if not end:
        fail(f"{path}: holds {_BEGIN!r} without {_END!r}", hint="mend the file by hand, then run this again", code=1)
    tail = tail.removeprefix("\n")
    return head.removesuffix("\n") if _UNENDED in ours and not tail else head + tail


def _undo(path: Path, before: str, kept: str, folder: Path, dry_run: bool) -> None:
    from symcache.cli.lldb_files import PROGRAM

    ours = PROGRAM in _defaults("read", _DOMAIN, _KEY) if sys.platform == "darwin" else False
    if _BEGIN not in before and not ours and not folder.exists():
        out.print(f"{plain(str(path))}: nothing of symcache in it")
        return
    if dry_run:
        out.print(f"{plain(str(path))}: the block between {_BEGIN} and {_END} would be removed (--dry-run)")
        if folder.exists():
            out.print(f"{plain(str(folder))}: would be removed (--dry-run)")
        return
    if _BEGIN not in before:
        pass  # the file was never ours, or is as it was
    elif kept:
        _write(path, kept)
    else:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if ours:
        _defaults("delete", _DOMAIN, _KEY)
    out.print(f"{plain(str(path))}: as it was before")


def _write(path: Path, text: str) -> None:
    """Replace the file at once, through a link if it is one, keeping its permissions."""
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        with atomic_write(target, mode=mode) as part:
            part.write_bytes(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}", hint="check who may write there, and the free space"
        ) from error


def _defaults(*arguments: str) -> str:
    """Run macOS's `defaults`; a key that is not there reads as nothing."""
    done = subprocess.run([DEFAULTS, *arguments], capture_output=True, text=True, check=False)
    if done.returncode and arguments[0] != "read":
        raise StorageError(f"defaults {' '.join(arguments)}: {done.stderr.strip()[:200]}")
    return done.stdout
