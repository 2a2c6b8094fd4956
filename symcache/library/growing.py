"""A file that is still being written, into the store right behind whoever writes it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import BinaryIO

from symcache.errors import IntegrityError, StorageError
from symcache.store import Store, blob_key, compressor, new_object

__all__ = ["FRAME", "GrowingFile"]

FRAME = 8 << 20
"""Bytes in each zstd frame of a raw cache file: it is read in parts."""
_AHEAD = 4
"""Frames that are being compressed."""
_POLL_SECONDS = 0.05


class GrowingFile:
    """Hashes and compresses a file of `size` bytes, which grows at its end only, while it is written."""

    def __init__(
        self,
        path: Path,
        size: int,
        store: Store,
        pool: Executor,
        stopped: threading.Event,
        turns: threading.Semaphore,
        *,
        keep: Callable[[str], bool],
        likely: Callable[[bytes, int], str],
        framed: Callable[[int], None],
    ) -> None:
        """`path` is opened at once, so it may get another name. `pool` compresses; `turns` bounds the files at a time.

        `keep` returns whether a blob is there and will be. `likely` returns, by the first frame and the size, the hash
        of one that is there and most likely the same, or nothing; then nothing is compressed. `framed` is told how many
        bytes more are done with. Raises StorageError.
        """
        self._size, self._store, self._pool, self._stopped = size, store, pool, stopped
        self._keep, self._likely, self._framed = keep, likely, framed
        self._whole, self._given_up, self._turns = threading.Event(), threading.Event(), turns
        self._result: tuple[str, int, bool] | None = None
        self._error: Exception | None = None
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
        self._name = str(path)
        self._thread = threading.Thread(target=self._run, name="growing", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is stored, or given up."""
        self._thread.join()

    def give_up(self) -> None:
        """Store no more of it: it will not become whole, or is not wanted."""
        self._given_up.set()
        self.wait()

    def be_whole(self) -> None:
        """Say that nothing more will be written to it."""
        self._whole.set()

    @property
    def refusal(self) -> StorageError | None:
        """What the store has said when it refused."""
        return self._error if isinstance(self._error, StorageError) else None

    def finish(self) -> tuple[str, int, bool] | None:
        """Say that the file is whole, and return (SHA-256 in hex, size, whether it is new).

        None if it was given up, or is not the blob that it was taken for, and has to be stored by itself. Raises
        StorageError, and IntegrityError if it is shorter.
        """
        self.be_whole()
        self.wait()
        if self._given_up.is_set():
            return None
        if self._error:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            with self._file, self._turn():
                self._result = self._store_frames()
        except Exception as error:
            self._error = error

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        while not self._turns.acquire(timeout=_POLL_SECONDS):
            self._check()
        try:
            yield
        finally:
            self._turns.release()

    def _check(self) -> None:
        if self._stopped.is_set() or self._given_up.is_set():
            raise StorageError(f"{self._name}: storing it was stopped", hint="run the same command again")

    def _store_frames(self) -> tuple[str, int, bool] | None:
        digest, likely = hashlib.sha256(), ""
        frames: deque[Future[bytes]] = deque()
        with new_object(self._store) as new:
            for start in range(0, max(1, self._size), FRAME):  # what is empty has one frame, too
                data = self._read(min(FRAME, self._size - start))
                if not start:
                    likely = self._likely(data, self._size)
                if not likely:
                    frames.append(self._pool.submit(_compress, data))
                digest.update(data)
                self._framed(len(data))
                while len(frames) > _AHEAD:
                    new.write(frames.popleft().result())
            for frame in frames:
                new.write(frame.result())
            sha256 = digest.hexdigest()
            if likely:
                return (sha256, self._size, False) if likely == sha256 else None
            return sha256, self._size, not self._keep(sha256) and new.create(blob_key(sha256))

    def _read(self, size: int) -> bytes:
        """Return so many bytes more, once they are there."""
        data = bytearray()
        self._check()
        while len(data) < size:
            whole = self._whole.is_set()  # asked first: what is read after it is all there is
            if chunk := self._file.read(size - len(data)):
                data += chunk
            elif whole:
                raise IntegrityError(f"{self._name}: ends {self._size - self._file.tell()} bytes early")
            else:
                self._check()
                self._whole.wait(_POLL_SECONDS)
        return bytes(data)


def _compress(data: bytes) -> bytes:
    return compressor().compress(data)
