"""Where a harvest keeps what it has copied until the library has it: a folder a source and build, kept for a rerun."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from symcache.errors import StorageError, UsageError
from symcache.files import is_named
from symcache_provisioning.ssh.transfer import MAX_FILE_SIZE

__all__ = ["Staging"]

_RESERVE = 64 << 20
"""What a harvest leaves on the disk, in bytes."""


class Staging:
    """The folder of one harvest, for one process at a time. No name that a guest chose is ever used as it is."""

    def __init__(self, base: Path, source: str, build: str) -> None:
        self.folder = base / f"{build}-{_hash(source)}"
        self._lock = -1
        self._source = source

    def __enter__(self) -> Self:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                raise StorageError(
                    f"{self.folder}: cannot be used for staging: {error.strerror}",
                    hint="name another one with --staging",
                ) from error
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._lock)
                raise UsageError(
                    f"{self._source}: another process is harvesting it into {self.folder}", hint="wait until it ends"
                ) from error
            # Whoever had the lock before may have removed the folder, and the lock with it.
            if is_named(self.folder / ".lock", self._lock, follow_symlinks=False):
                break
            os.close(self._lock)
        self._remove_outdated()
        return self

    def _remove_outdated(self) -> None:
        """Remove what is left of another build of the same source: it can no longer be continued."""
        for other in self.folder.parent.glob(f"*-{_hash(self._source)}"):
            if other == self.folder:
                continue
            with contextlib.suppress(OSError):
                lock = os.open(other / ".lock", os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(other, ignore_errors=True)
                finally:
                    os.close(lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def folder_for(self, what: str, key: str) -> Path:
        """Return a folder for the files of `key`, made if need be."""
        folder = self.folder / what / _hash(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def empty_folder_for(self, what: str, key: str) -> Path:
        """Return such a folder with nothing of an earlier run in it."""
        shutil.rmtree(self.folder / what / _hash(key), ignore_errors=True)
        return self.folder_for(what, key)

    def file_for(self, what: str, path: str) -> Path:
        """Return where the copy of one file goes. Few enough files share a folder for any file system."""
        name = _hash(path)
        folder = self.folder / what / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def room_for(self, size: int, what: str, path: str) -> Path:
        """Return where the copy of a file goes, if it fits; a size that no file can have is not asked for."""
        self.require_space(min(size, MAX_FILE_SIZE))
        return self.file_for(what, path)

    def require_space(self, size: int) -> None:
        """Raise StorageError when `size` bytes do not fit, or would leave next to nothing for others."""
        free = shutil.disk_usage(self.folder).free
        if size > 0 and free < size + _RESERVE:
            raise StorageError(
                f"{self.folder}: {free >> 20} MiB are free where {size >> 20} MiB are needed",
                hint="free some space, or name another folder with --staging",
            )

    def remove(self) -> None:
        """Remove everything: it is in the library now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
