"""A bounded folder of files that are named by their hash, each checked before this process gives it out.

Disks decay, so each process checks for itself, after each start and whenever a file has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

from symcache.errors import IntegrityError
from symcache.lru_folder import LruFolder, touch
from symcache.store import decoded
from symcache_server.http.metrics import CACHE_FILLS, DAMAGED

__all__ = ["CheckedFolder", "Proofs", "content_hash", "decoded_hash", "put_aside"]

log = logging.getLogger("symcache.server")
_DAMAGED = "damaged"
"""Folder for files that are not what their names say: never served, and evicted as any other."""
_REMEMBERED = 200_000

_Signature = tuple[int, int, int]
"""Inode, size and time of change (ns) of a file."""


class Proofs:
    """Remembers which files this process has checked. May be used from several threads.

    Damaged files are put aside in the cache in `folder`, and counted under `kind`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._signatures: OrderedDict[str, _Signature] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, path: str, status: os.stat_result) -> bool:
        """Return whether a file was checked, and has not changed since."""
        return self._signatures.get(path) == _signature(status)

    def check(self, path: Path, sha256: str, hashed: Callable[[BinaryIO], str] | None = None) -> bool:
        """Return whether the file exists and `hashed` returns this hash for it; put it aside if not."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                found = (hashed or content_hash)(file)
        except FileNotFoundError:
            return False
        if found != sha256:
            put_aside(self._folder, path, self._kind)
            return False
        self.add(str(path), status)
        return True

    def add(self, path: str, status: os.stat_result) -> None:
        """Remember that a file was found right; `status` is from before it was read."""
        with self._lock:
            self._signatures[path] = _signature(status)
            while len(self._signatures) > _REMEMBERED:
                self._signatures.popitem(last=False)


class CheckedFolder:
    """A folder of at most `limit` bytes of checked files; it can open checked files that lie elsewhere, too."""

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.bounded, self.proofs = folder, LruFolder(folder, limit), Proofs(folder, "decoded")
        self._own = f"{folder}/"
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._pool = ThreadPoolExecutor(min(8, (os.cpu_count() or 2) * 2), thread_name_prefix="decode")

    def close(self) -> None:
        """Wait for running work, and drop what is queued."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def path(self, name: str) -> str:
        """Return where the file of this name is, or would be."""
        return f"{self.folder}/{name[:2]}/{name}"

    async def open(self, path: str, prepare: Callable[[], None]) -> int:
        """Return a descriptor of the file at `path`, once `prepare`, in a thread, has brought or checked it.

        Raises what that raises. The file may lie elsewhere; it is not evicted then.
        """
        if (ready := self._open(path)) is not None:
            return ready
        with self.bounded.pinned(path):
            while (descriptor := self._open(path)) is None:
                await self.once(path, prepare)
        return descriptor

    def _open(self, path: str) -> int | None:
        """Return a descriptor of a file that has been checked, or None."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if not self.proofs.hold(path, status):
            os.close(descriptor)
            return None
        if path.startswith(self._own):
            with contextlib.suppress(OSError):
                touch(path, status)
        return descriptor

    async def once(self, key: str, work: Callable[[], None], pool: ThreadPoolExecutor | None = None) -> None:
        """Do `work` in a thread; whoever calls this for the same `key` meanwhile waits for the same work."""
        future = self._waiting.get(key)
        if future is None:
            future = asyncio.ensure_future(asyncio.wrap_future((pool or self._pool).submit(work)))
            self._waiting[key] = future
            future.add_done_callback(lambda done: self._finished(key, done))
        # A client that goes away must not take the work from the others.
        await asyncio.shield(future)

    def under_way(self, key: str) -> asyncio.Future[None] | None:
        """Return the work that is being done for `key`, or None."""
        return self._waiting.get(key)

    def _finished(self, key: str, future: asyncio.Future[None]) -> None:
        self._waiting.pop(key, None)
        failed = future.cancelled() or future.exception() is not None  # seen: every waiter may have gone
        CACHE_FILLS.labels("failed" if failed else "done").inc()


def content_hash(file: BinaryIO) -> str:
    """Return the SHA-256 of what is in a file, in hex."""
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def decoded_hash(stored: BinaryIO) -> str:
    """Return the SHA-256, in hex, of what zstd frames decode to; an empty string for what does not decode."""
    digest = hashlib.sha256()
    try:
        for chunk in decoded(stored):
            digest.update(chunk)
    except IntegrityError:
        return ""
    return digest.hexdigest()


def put_aside(folder: Path, path: Path, kind: str) -> None:
    """Move a damaged file of the cache in `folder` to where nobody looks for it, and count it. Raises OSError."""
    aside = folder / _DAMAGED
    aside.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        path.replace(aside / path.name)
        DAMAGED.labels(kind).inc()
        log.error("%s: damaged, and put aside", path)


def _signature(status: os.stat_result) -> _Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns
