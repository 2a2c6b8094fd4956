"""Temporary folders that do not outlive their process: what a killed one left, the next to make a folder removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from symcache.files import is_named

__all__ = ["ScratchFolder", "memory_folder"]

_PREFIX = "symcache-scratch-"
_MEMORY, _LEAST_ROOM = Path("/dev/shm"), 512 << 20  # noqa: S108 (what is made there is nobody else's)


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """As tempfile.TemporaryDirectory, in `folder` or the system's folder; abandoned ones there are removed first.

    Whoever uses one holds its lock, which the system releases when the process ends in whatever way.
    """

    def __init__(self, what: str, folder: Path | None = None) -> None:
        parent = folder or Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        while True:
            super().__init__(prefix=f"{_PREFIX}{what}-", dir=parent, ignore_cleanup_errors=True)
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
                self._unlock = weakref.finalize(self, os.close, descriptor)
                with contextlib.suppress(OSError):  # where there are no locks, nobody else removes it
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if is_named(Path(self.name), descriptor):
                    return
                self._unlock()
            super().cleanup()  # it was taken for abandoned before it was locked

    def cleanup(self) -> None:
        """Remove the folder now."""
        super().cleanup()
        self._unlock()


def memory_folder() -> Path | None:
    """Return where files lie in memory, for hundreds of small ones; None where there is no such place, or little room.

    On a disk that takes long where as many have just been removed: ext4 does not take their inodes again at once.
    """
    with contextlib.suppress(OSError):
        if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _LEAST_ROOM:
            return _MEMORY
    return None


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders whose locks nobody holds."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(_PREFIX) or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(descriptor)
