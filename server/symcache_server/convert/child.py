"""Makes files from images in confined processes, by the modules of this package."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from symcache.confined import Bounds, Cause, ConfinedProcess, ProcessFailure
from symcache.errors import IntegrityError, StorageError
from symcache.files import atomic_write
from symcache.own_program import own_environment, own_python
from symcache.scratch import ScratchFolder

__all__ = ["begin_output", "stop_making", "write_by_child"]

_BOUNDS = Bounds(seconds=300, memory=8 << 30, output=4 << 30)
_running: set[ConfinedProcess] = set()


def write_by_child(
    module: str, arguments: Sequence[str], images: Sequence[int], target: Path, *, head: bytes = b"", unreadable: str
) -> None:
    """Write `head` and what `main` of a `module` prints to `target`, which appears whole or not at all.

    Its arguments are `arguments`, then paths of `images`, which are open descriptors. Raises IntegrityError, with
    `unreadable` in front, when it fails, StorageError and OSError when that is nobody's fault.
    """
    paths = [f"/dev/fd/{number}" for number in images]
    try:
        with atomic_write(target, mode=0o600) as part, part.open("wb") as out, ScratchFolder("make") as folder:
            out.write(head)
            process = ConfinedProcess(
                own_python,
                "-m",
                [module, *arguments, *paths],
                _BOUNDS,
                environment=own_environment({"PATH": "/usr/bin:/bin"}),
                folder=Path(folder),
                descriptors=images,
            )
            _running.add(process)
            try:
                with process:
                    process.copy("reading it", out)
            finally:
                _running.discard(process)
    except ProcessFailure as error:
        if error.code in {-signal.SIGKILL, -signal.SIGTERM}:
            raise StorageError("making a file of others was ended from outside", hint="ask again") from error
        if error.cause is Cause.UNCONFINED:
            raise StorageError(str(error)) from error
        raise IntegrityError(f"{unreadable}: {error}") from error


def begin_output() -> None:
    """Let this process print any text as UTF-8; a child's `main` calls it first."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]


def stop_making() -> None:
    """Kill the processes that make files; whoever waits for one gets StorageError."""
    for process in list(_running):
        process.kill()
