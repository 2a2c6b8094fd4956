"""Reading files from outside in a process of its own, since they may crash or fill whatever reads them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from symcache.errors import IntegrityError, StorageError
from symcache.files import atomic_write
from symcache.own_program import own_environment, own_python

__all__ = ["confine", "stop_making", "write_by_child"]

_SECONDS = 300
_MEMORY = 8 << 30
_FILE_SIZE = 4 << 30
_FULL = 1 << 20
"""A disk with fewer free bytes is taken for full."""
_running: set[subprocess.Popen[bytes]] = set()


def write_by_child(
    module: str, arguments: Sequence[str], images: Sequence[int], target: Path, *, head: bytes = b"", unreadable: str
) -> None:
    """Write `head` and what `main` of a `module` prints to `target`, which appears whole or not at all.

    Its arguments are `arguments`, then paths of `images`, which are open descriptors. Raises IntegrityError, with
    `unreadable` in front, when it fails, StorageError and OSError when that is nobody's fault.
    """
    command = own_python("-c", f"from {module} import main; main()")
    with atomic_write(target, mode=0o600) as part, part.open("wb") as out:
        try:
            out.write(head)
            out.flush()
            process = subprocess.Popen(
                [*command, *arguments, *(f"/dev/fd/{number}" for number in images)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=own_environment({"PATH": "/usr/bin:/bin"}),
                pass_fds=images,
            )
            _running.add(process)
            try:
                if code := process.wait(_SECONDS):
                    _raise_if_from_outside(code, part)
                    raise subprocess.CalledProcessError(code, command)
            finally:
                _running.discard(process)
                process.kill()
                process.wait()
        except subprocess.SubprocessError as error:
            raise IntegrityError(f"{unreadable}: {type(error).__name__}") from error


def confine() -> None:
    """Bound what this process may take, and have it print any text: the first thing that a child's `main` does."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]


def stop_making() -> None:
    """End what is being made: whoever waits for it gets StorageError."""
    for process in list(_running):
        process.kill()


def _raise_if_from_outside(code: int, part: Path) -> None:
    """Raise what tells that a child of exit code `code` did not end by what it read: another time it may succeed."""
    if -code in {signal.SIGKILL, signal.SIGTERM}:
        raise StorageError("making a file of others was ended from outside", hint="ask again")
    if shutil.disk_usage(part.parent).free < _FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
