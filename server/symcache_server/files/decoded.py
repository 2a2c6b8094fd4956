"""Files ready to be sent: decoded, checked against their hash, on the local disk, within a limit.

::

    ab/<sha256>        the content of a blob
    ab/<sha256>.ok     a note that the blob as it is stored was proven to decode to its hash
    ab/<hash>.sym2     a Breakpad symbol file; the hash is that of the names of what it was made from
    ab/<hash>.fat1     a universal file, in the same way
    ab/<hash>.sym2.no  why it could not be made
    ab/<sha256>.zst    a blob as it is stored, where the store is not on this machine's disks

Several server processes may share one folder: files are renamed into place, filled under a lock, and only ever
removed. A file that is being sent stays open, so it may be removed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import zstandard

from symcache.errors import IntegrityError, NotFoundError
from symcache.files import atomic_write, atomic_write_bytes
from symcache.library import Library
from symcache.lru_folder import LruFolder
from symcache.store import LocalStore, blob_key
from symcache_server.http.content import Content, Source
from symcache_server.http.metrics import CACHE_FILLS

__all__ = ["DecodedCache"]

_TOUCH_SECONDS = 60
_REMEMBERED = 1_000_000
_PROVEN_SECONDS = 7 * 86400.0
"""How long a proof holds that outlives its process: disks decay."""
_FAILED_SECONDS = 3600.0
"""How long what could not be made is not tried again: it may take minutes and gigabytes each time."""

_Signature = tuple[int, int, int]
"""Inode, size and time of change (ns) of a file."""


class DecodedCache:
    """The bounded cache in `folder` over one library. `open` and `open_stored` return file descriptors."""

    def __init__(self, library: Library, folder: Path, limit: int) -> None:
        self._library, self._folder = library, folder
        self._bounded = LruFolder(folder, limit)
        self._root = library.store.root if isinstance(library.store, LocalStore) else None
        """Folder of a store on this machine's disks, whose files can be sent as they lie."""
        folder.mkdir(parents=True, exist_ok=True)
        self._filling: dict[str, asyncio.Future[None]] = {}
        self._pool = ThreadPoolExecutor(min(8, (os.cpu_count() or 2) * 2), thread_name_prefix="decode")
        self._makers = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2), thread_name_prefix="make")
        """For what may take minutes and gigabytes: nobody who wants a blob waits behind it."""
        self._touched: OrderedDict[str, float] = OrderedDict()
        self._intact: OrderedDict[str, _Signature] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop decoding."""
        self.stop_making()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._makers.shutdown(wait=True)

    def stop_making(self) -> None:
        """Begin to make nothing more."""
        self._makers.shutdown(wait=False, cancel_futures=True)

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the decoded, checked content. Raises IntegrityError, StorageError, NotFoundError."""
        path = self._path(sha256)
        if (ready := self._open(path, size)) is not None:
            return ready
        with self._bounded.pinned(path):
            while (descriptor := self._open(path, size)) is None:
                await self._once(sha256, lambda: self._fill(sha256, size, Path(path)))
        return descriptor

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor of the blob as stored, which was proven to decode to its hash."""
        if (ready := self._open_intact(sha256, stored_size)) is not None:
            return ready
        with self._bounded.pinned(self._path(f"{sha256}.zst")):
            while (descriptor := self._open_intact(sha256, stored_size)) is None:
                await self._once(sha256 + ".zst", lambda: self._prove(sha256, size, stored_size))
        return descriptor

    def name(self, sha256: str, *, stored: bool) -> str:
        """Return where the file that was opened lies: below `decoded/`, this cache, or `library/`, the local store."""
        if stored and self._root is not None:
            return f"library/{blob_key(sha256)}"
        return f"decoded/{sha256[:2]}/{sha256}{'.zst' if stored else ''}"

    async def made(
        self, parts: Sequence[tuple[Source, str, int]], suffix: str, make: Callable[[Sequence[int], Path], None]
    ) -> tuple[Path, Content]:
        """Return a file that is made of others, and what to send of it: named by their hashes, and `suffix` for how.

        Of each part: where it is opened, its hash and size. `make` gets a descriptor of each and the path to write,
        whole or not at all, where it is not there yet. Raises what it raises, and IntegrityError, which it raised
        lately, without trying again.
        """
        digest = hashlib.sha256(" ".join(sha256 for _, sha256, _ in parts).encode()).hexdigest()
        name = f"{digest}.{suffix}"
        path = Path(self._path(name))
        with self._bounded.pinned(str(path)):
            while not path.exists():
                if waiting := self._filling.get(name):
                    await asyncio.shield(waiting)
                    continue
                _raise_if_noted(path)
                descriptors = await self._open_all(parts)
                if name in self._filling:  # somebody else was faster
                    _close(descriptors)
                else:
                    await self._once(name, partial(self._make, path, descriptors, make), self._makers)
            size = path.stat().st_size
        return path, Content(f"{digest}-{suffix}", size, size)

    def _make(self, path: Path, descriptors: Sequence[int], make: Callable[[Sequence[int], Path], None]) -> None:
        def fill() -> None:
            if path.exists():
                return
            _raise_if_noted(path)
            try:
                make(descriptors, path)
            except IntegrityError as error:
                with contextlib.suppress(OSError):
                    atomic_write_bytes(_failure(path), str(error).encode())
                raise

        try:
            self._bounded.write(path, sum(os.fstat(descriptor).st_size for descriptor in descriptors), fill, ".made")
        finally:
            _close(descriptors)  # not by who waits, and may give up while they are read

    async def _open_all(self, parts: Sequence[tuple[Source, str, int]]) -> list[int]:
        """Return a descriptor of each part; none is open when one cannot be."""
        descriptors: list[int] = []
        try:
            for source, sha256, size in parts:
                descriptors.append(await source.open(sha256, size))
        except BaseException:
            _close(descriptors)
            raise
        return descriptors

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"

    async def _once(self, key: str, work: Callable[[], None], pool: ThreadPoolExecutor | None = None) -> None:
        """Do `work` in a thread, once for everybody who waits for `key` meanwhile."""
        future = self._filling.get(key)
        if future is None:
            future = asyncio.ensure_future(asyncio.wrap_future((pool or self._pool).submit(work)))
            self._filling[key] = future
            future.add_done_callback(lambda done: self._finished(key, done))
        # A client that goes away must not take the work from the others.
        await asyncio.shield(future)

    def _finished(self, key: str, future: asyncio.Future[None]) -> None:
        self._filling.pop(key, None)
        failed = future.cancelled() or future.exception() is not None  # seen: every waiter may have gone
        CACHE_FILLS.labels("failed" if failed else "done").inc()

    def _open(self, path: str, size: int) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size != size:  # no work of ours: checked files are renamed into place
            os.close(descriptor)
            Path(path).unlink(missing_ok=True)
            return None
        now = time.monotonic()
        if now - self._touched.get(path, -_TOUCH_SECONDS) >= _TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(path)
            self._touched[path] = now
            self._touched.move_to_end(path)
            while len(self._touched) > _REMEMBERED:
                self._touched.popitem(last=False)
        return descriptor

    def _fill(self, sha256: str, size: int, path: Path) -> None:
        def fill() -> None:
            if not path.exists():  # else another process was faster
                self._library.materialize(sha256, size, path)

        self._bounded.write(path, size, fill)

    def _open_intact(self, sha256: str, stored_size: int) -> int | None:
        """Return a descriptor of a stored blob that has been proven, and not changed since."""
        if self._root is None:
            return self._open(self._path(f"{sha256}.zst"), stored_size)
        try:
            descriptor = os.open(f"{self._root}/{blob_key(sha256)}", os.O_RDONLY)
        except FileNotFoundError:
            raise NotFoundError(f"{self._root}: blob {sha256} is gone", hint="run `symcache fsck`") from None
        signature = _signature(descriptor)
        if self._intact.get(sha256) == signature or self._was_proven(sha256, signature):
            return descriptor
        os.close(descriptor)
        return None

    def _was_proven(self, sha256: str, signature: _Signature) -> bool:
        """Return whether another process, or this one before it was started anew, has lately proven this very file."""
        try:
            with open(self._path(f"{sha256}.ok"), "rb") as note:  # noqa: PTH123 - once a blob, but on the event loop
                if time.time() - os.fstat(note.fileno()).st_mtime > _PROVEN_SECONDS:
                    return False
                proven = note.read(100) == _note(signature)
        except FileNotFoundError:
            return False
        if proven:
            self._remember(sha256, signature)
        return proven

    def _remember(self, sha256: str, signature: _Signature) -> None:
        with self._lock:
            self._intact[sha256] = signature
            while len(self._intact) > _REMEMBERED:
                self._intact.popitem(last=False)

    def _prove(self, sha256: str, size: int, stored_size: int) -> None:
        """Decode a stored blob once, to its end, so that no damaged one is sent."""
        if self._root is None:
            self._copy_stored(sha256, size, stored_size)
            return
        with self._library.open_stored(sha256) as file:
            signature = _signature(file.fileno())
        for _ in self._library.read_blob(sha256, size):
            pass
        self._remember(sha256, signature)
        path = Path(self._path(f"{sha256}.ok"))
        with contextlib.suppress(OSError):  # without the note, others prove it themselves
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, mode=0o600) as note:
                note.write_bytes(_note(signature))

    def _copy_stored(self, sha256: str, size: int, stored_size: int) -> None:
        """Bring a blob of a remote store here as it lies there, proven."""
        path = Path(self._path(f"{sha256}.zst"))

        def fill() -> None:
            if path.exists():
                return
            try:
                with atomic_write(path, mode=0o600) as part:
                    with part.open("w+b") as out, self._library.open_stored(sha256) as stored:
                        while chunk := stored.read(1 << 20):
                            out.write(chunk)
                        got = out.tell()
                        out.seek(0)
                        digest, total = hashlib.sha256(), 0
                        decoder = zstandard.ZstdDecompressor()
                        with decoder.stream_reader(out, read_across_frames=True, closefd=False) as reader:
                            while chunk := reader.read(1 << 20):
                                digest.update(chunk)
                                total += len(chunk)
                    if (got, total, digest.hexdigest()) != (stored_size, size, sha256):
                        raise IntegrityError(f"blob {sha256}: what the store holds is not what was stored")
            except zstandard.ZstdError as error:
                raise IntegrityError(f"blob {sha256}: damaged: {error}") from error

        self._bounded.write(path, stored_size, fill)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _failure(path: Path) -> Path:
    """Return where it is noted that a file could not be made."""
    return path.with_name(f"{path.name}.no")


def _raise_if_noted(path: Path) -> None:
    """Raise the IntegrityError with which making a file has failed lately."""
    note = _failure(path)
    try:
        if time.time() - note.stat().st_mtime < _FAILED_SECONDS:
            raise IntegrityError(note.read_text(errors="replace"))
    except FileNotFoundError:
        pass


def _note(signature: _Signature) -> bytes:
    return " ".join(map(str, signature)).encode()


def _signature(descriptor: int) -> _Signature:
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns
