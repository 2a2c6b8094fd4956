"""The bound of a folder of files that can be made anew: what was used longest ago makes room."""

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

__all__ = ["Room"]

_COUNT_ANEW = 1 << 30
"""After so many bytes filled by this process the folder is measured again: other processes fill it, too."""
_STALE_SECONDS = 86400.0
"""No file is written for so long: what is older was left by a process that died."""
_TRIES = 3
"""How often it is tried to write to a full disk, after making room: others fill it, too."""
_LEAST = 64 << 20
"""Bytes that are thrown away then at least."""
_LOCK = ".lock-"


class Room:
    """At most `limit` bytes in the folders of `folder`, but for what is about to be opened. It may be deleted.

    Names that begin with a dot are locks and files that are being written: they count, and stay.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._since_count = _COUNT_ANEW  # measure at the first fill

    @contextlib.contextmanager
    def held(self, path: str) -> Iterator[None]:
        """Keep this process from throwing `path` away, be it larger than all the room there is.

        From one thread only, which is the event loop's: it may not wait for one that measures the folder.
        """
        self._held[path] += 1
        try:
            yield
        finally:
            self._held[path] -= 1
            if not self._held[path]:
                del self._held[path]

    def write(self, path: Path, size: int, fill: Callable[[], None], word: str = "") -> None:
        """Write a file of about `size` bytes, under its lock; where the disk is full, what was used least goes.

        Raises what `fill` does, and StorageError.
        """
        try:
            for attempt in range(_TRIES):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with file_lock(path.with_name(f"{_LOCK}{path.name[:2]}{word}")):
                        fill()
                        break
                except OSError as error:
                    if attempt == _TRIES - 1:
                        raise
                    full = error.errno in {errno.ENOSPC, errno.EDQUOT} and self.free(max(size, _LEAST))
                    if not full and not isinstance(error, FileNotFoundError):  # that is a folder which somebody deletes
                        raise
        except OSError as error:
            raise StorageError(f"cache of decoded files: {error.strerror or error}", hint="free some space") from error
        with contextlib.suppress(FileNotFoundError):
            self._filled(path.stat().st_size)

    def _filled(self, size: int) -> None:
        """Take note of a new file of `size` bytes, and make room if need be."""
        with self._lock:
            self._since_count += size
            if self._since_count < min(_COUNT_ANEW, self._limit // 8):
                return
            self._since_count = 0
            files = self._files()
            self._remove(files, sum(size for _, size, _ in files) - self._limit)

    def free(self, size: int) -> bool:
        """Throw away `size` bytes more than the limit asks for, since the disk is full; False: there was nothing."""
        with self._lock:
            return self._remove(self._files(), size) > 0

    def _files(self) -> list[tuple[float, int, str]]:
        """Return (when it was used, size, path) of every file."""
        files: list[tuple[float, int, str]] = []
        for folder in _entries(self._folder):
            for entry in _entries(folder.path):
                with contextlib.suppress(OSError):
                    found = entry.stat()
                    files.append((found.st_mtime, found.st_size, entry.path))
        return files

    def _remove(self, files: list[tuple[float, int, str]], wanted: int) -> int:
        """Remove what was used longest ago until `wanted` bytes are gone; return how many are."""
        removed, now = 0, time.time()
        for used, size, path in sorted(files):
            if removed >= wanted:
                break
            name = os.path.basename(path)  # noqa: PTH119
            if path in self._held or name.startswith(_LOCK) or (name[0] == "." and now - used < _STALE_SECONDS):
                continue
            with contextlib.suppress(OSError):
                Path(path).unlink()
                removed += size
        return removed


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing of what is none, or was deleted."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
