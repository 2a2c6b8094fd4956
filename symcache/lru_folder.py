"""A bounded folder of files that can be made anew: those that were used longest ago are removed first."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from symcache.errors import StorageError
from symcache.files import file_lock

__all__ = ["LruFolder", "touch"]

_COUNT_ANEW = 1 << 30
"""After so many bytes written by this process the folder is measured again: other processes write to it, too."""
_STALE_SECONDS = 86400.0
"""No file is written for so long: what is older was left by a process that died."""
_TRIES = 3
"""How often it is tried to write to a full disk, after removing files: others fill it, too."""
_LEAST = 64 << 20
"""Bytes that are removed then at least."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TOUCH_SECONDS = 60.0
_LOCK = ".lock-"


class LruFolder:
    """At most `limit` bytes of files in the folders of `folder`, which may be deleted at any time.

    A file counts as used when it was written or read last (see `touch`). Files that were used within the last
    `in_use_seconds` stay, whatever the limit. Names that begin with a dot are locks and files that are being written:
    they count, and stay.
    """

    def __init__(self, folder: Path, limit: int, *, in_use_seconds: float = 0) -> None:
        self._folder, self._limit, self._in_use_seconds = folder, limit, in_use_seconds
        self._lock = threading.Lock()
        self._pinned: Counter[str] = Counter()
        self._since_count = _COUNT_ANEW  # measure at the first write

    @contextlib.contextmanager
    def pinned(self, path: str) -> Iterator[None]:
        """Keep this process from removing `path`, be it larger than the limit.

        From one thread only, which is the event loop's: it may not wait for one that measures the folder.
        """
        self._pinned[path] += 1
        try:
            yield
        finally:
            self._pinned[path] -= 1
            if not self._pinned[path]:
                del self._pinned[path]

    def write(self, path: Path, size: int, fill: Callable[[], None], lock_suffix: str = "") -> None:
        """Write a file of about `size` bytes, under its lock; where the disk is full, older files are removed.

        Raises what `fill` does, and StorageError.
        """
        try:
            for attempt in range(_TRIES):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with file_lock(path.with_name(f"{_LOCK}{path.name[:2]}{lock_suffix}")):
                        fill()
                        break
                except OSError as error:
                    if attempt == _TRIES - 1:
                        raise
                    full = error.errno in _FULL and self.free(max(size, _LEAST))
                    if not full and not isinstance(error, FileNotFoundError):  # that is a folder which somebody deletes
                        raise
        except OSError as error:
            hint = "free some space" if error.errno in _FULL else "check its permissions, and the disk"
            raise StorageError(f"{path.parent}: {error.strerror or error}", hint=hint) from error
        self._count(size)

    def _count(self, size: int) -> None:
        """Count a new file of about `size` bytes, and evict if it is time to measure again."""
        with self._lock:
            self._since_count += size
            if self._since_count < min(_COUNT_ANEW, self._limit // 8):
                return
            self._since_count = 0
        self.evict()

    def evict(self) -> int:
        """Remove the files that were used longest ago until the limit is kept; return the bytes removed."""
        with self._lock:
            files = self._files()
            return self._remove(files, sum(size for _, size, _ in files) - self._limit)

    def free(self, size: int) -> bool:
        """Remove `size` bytes more than the limit asks for, since the disk is full; return False if there are none."""
        with self._lock:
            return self._remove(self._files(), size) > 0

    def _files(self) -> list[tuple[float, int, str]]:
        """Return (time of last use, size, path) of every file."""
        files: list[tuple[float, int, str]] = []
        latest = time.time() + _STALE_SECONDS  # later ones were left by a clock that was wrong, and tell nothing
        for folder in _entries(self._folder):
            for entry in _entries(folder.path):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    used = _used(status)
                    files.append((used if used < latest else 0.0, status.st_size, entry.path))
        return files

    def _remove(self, files: list[tuple[float, int, str]], wanted: int) -> int:
        """Remove what was used longest ago until `wanted` bytes are gone; return how many are."""
        removed, now = 0, time.time()
        for used, size, path in sorted(files):
            if removed >= wanted or now - used < self._in_use_seconds:
                break
            name = os.path.basename(path)  # noqa: PTH119
            if path in self._pinned or name.startswith(_LOCK) or (name[0] == "." and now - used < _STALE_SECONDS):
                continue
            with contextlib.suppress(OSError):
                Path(path).unlink()
                removed += size
        return removed


def touch(path: str | Path, status: os.stat_result) -> None:
    """Have a file count as used now, within a minute; it stays as it was last written: who checked it need not again.

    Its access time is set, since many systems are told not to keep it. Raises OSError.
    """
    if not 0 <= time.time() - _used(status) < _TOUCH_SECONDS:
        os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))


def _used(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder; none if it is not a folder, or was deleted."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
