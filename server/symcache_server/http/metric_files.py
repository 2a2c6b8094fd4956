"""The files in which several processes keep their metrics, and where they lie.

prometheus_client maps them into memory: whoever writes to a page that the disk has no room for is killed by SIGBUS. So
all of them are written once, full of zeros, before any process starts, and never grow.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SLOT", "clear_live_metrics", "common_metrics", "set_place"]

log = logging.getLogger("symcache.server")
SLOT = "SYMCACHE_METRICS_SLOT"
"""Environment variable with a process's number in its server. Its files are named by that, not by its process id."""
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX, _LOCK = "symcache-metrics-", "lock"
_SIZE = 256 << 10
"""Several times what all metrics need with every label that they can have."""
_LIVE = "gauge_livemin"
_TYPES = ("counter", "histogram", _LIVE)
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made in it
"""Where files lie in memory (Linux): what is written there once has its room."""


@contextlib.contextmanager
def common_metrics(processes: int, *folders: Path) -> Iterator[None]:
    """Have processes that are started in this block share their metrics, in the first folder with room, or warn.

    In memory, where the system can; else in the temporary folder, or one of `folders`.
    """
    places = (_MEMORY, Path(tempfile.gettempdir()), *folders)
    with contextlib.ExitStack() as stack:
        for parent in places:
            with contextlib.ExitStack() as attempt, contextlib.suppress(OSError):
                _sweep(parent)
                folder = attempt.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent))
                lock = attempt.enter_context(Path(folder, _LOCK).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for number in range(processes):
                    for kind in _TYPES:
                        _zero(Path(folder, f"{kind}_{number}.db"))
                stack.push(attempt.pop_all())
                os.environ[_FOLDER] = folder
                stack.callback(os.environ.pop, _FOLDER, None)
                break
        else:
            log.warning("no room for common metrics in %s: each process tells its own", ", ".join(map(str, places)))
        yield


def set_place(number: int) -> None:
    """Have the next process that is started count in the files of this number, if there are any."""
    if _FOLDER in os.environ:
        os.environ[SLOT] = str(number)


def clear_live_metrics(number: int) -> None:
    """Reset the gauges of a process that has died; its counters stay."""
    if folder := os.environ.get(_FOLDER):
        with contextlib.suppress(OSError):
            _zero(Path(folder, f"{_LIVE}_{number}.db"))


def _sweep(parent: Path) -> None:
    """Remove what this user's servers left that were killed: nobody holds its lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            # Others may write to `parent`, too: it must not wait for the other end of a FIFO.
            lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _zero(file: Path) -> None:
    """Overwrite a file with zeros, so that its blocks stay allocated. Raises OSError."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
        out.write(bytes(_SIZE))
        out.flush()
        os.fsync(out.fileno())
