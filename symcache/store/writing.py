"""Blobs into a store: hashed, compressed, and kept from being collected meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import zstandard

from symcache.errors import IntegrityError, StorageError
from symcache.store.base import Store, blob_key

__all__ = [
    "COMPRESSION_LEVEL",
    "compressor",
    "keep_blob",
    "new_object",
    "put_blob",
    "put_object",
    "put_pieces",
]

COMPRESSION_LEVEL = 3
"""The knee of the curve: 3.4 times smaller at 225 MB/s a core; level 9 gains 6 % for a quarter of the speed."""
_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
"""A file up to this size is read once; a larger one is read twice (hash, then compress) to bound memory."""


_compressors = threading.local()


def compressor() -> zstandard.ZstdCompressor:
    """Return this thread's compressor of blobs, for one frame at a time.

    Making one anew costs as much as a small file.
    """
    if not hasattr(_compressors, "own"):
        _compressors.own = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    own: zstandard.ZstdCompressor = _compressors.own
    return own


def keep_blob(
    store: Store,
    sha256: str,
    claimed: Callable[[str], bool] = lambda sha256: False,
    young: float = math.inf,
    refreshed: Callable[[str], None] | None = None,
) -> bool:
    """Return whether a blob is there, and will be for a while.

    What is there, but is not `claimed` by any live record, might be about to be collected: unless it was made after
    `young` (store's clock), it is made young again, and `refreshed` is told. Raises StorageError.
    """
    key = blob_key(sha256)
    found = store.stat(key)
    if found is None:
        return False
    if found.modified >= young or claimed(sha256):
        return True
    kept = store.refresh(key)  # else it was collected at this moment
    if kept and refreshed:
        refreshed(sha256)
    return kept


def put_pieces(store: Store, pieces: Sequence[bytes | memoryview]) -> tuple[str, int, bool]:
    """Store bytes in memory, given in order, unless they are there. Returns (SHA-256 in hex, size, whether it is new).

    What is not new may be about to be collected: see `keep_blob`. Raises StorageError.
    """
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    sha256 = digest.hexdigest()
    if store.stat(blob_key(sha256)) is not None:
        return sha256, size, False

    def chunks() -> Iterator[bytes]:
        frame = compressor().compressobj(size=size)
        yield from map(frame.compress, pieces)
        yield frame.flush()

    return sha256, size, put_object(store, blob_key(sha256), chunks())


def put_blob(
    store: Store,
    file: Path,
    offset: int = 0,
    size: int | None = None,
    *,
    start: bytes = b"",
    claimed: Callable[[str], bool] = lambda sha256: False,
    young: float = math.inf,
    frame_size: int | None = None,
    stopped: threading.Event | None = None,
    refreshed: Callable[[str], None] | None = None,
) -> tuple[str, int, bool]:
    """Store `size` bytes of `file` from `offset` on, unless the store has them.

    What is there already is kept there by `keep_blob`. With `frame_size`, every so many bytes become a frame of their
    own, so that a reader can begin at any of them. Returns (SHA-256 in hex, size, whether it is new). Ends early, with
    a StorageError, once `stopped` is set.
    Raises StorageError, or IntegrityError when the file is shorter than asked for, or does not begin with `start`, as
    it did when it was looked at.
    """

    there = partial(keep_blob, store, claimed=claimed, young=young, refreshed=refreshed)
    with file.open("rb") as source:
        if size is None:
            size = source.seek(0, os.SEEK_END) - offset
        source.seek(offset)
        if size <= _IN_MEMORY:
            data = source.read(size)
            if len(data) != size:
                raise IntegrityError(f"{file}: ends {size - len(data)} bytes early")
            if not data.startswith(start):
                raise _changed(file)
            sha256 = hashlib.sha256(data).hexdigest()
            if there(sha256):
                return sha256, size, False
            pieces = [data] if not frame_size else [data[n : n + frame_size] for n in range(0, size or 1, frame_size)]
            return sha256, size, put_object(store, blob_key(sha256), map(compressor().compress, pieces))

        sha256 = _hash(source, size, start, file, stopped)
        if there(sha256):
            return sha256, size, False
        source.seek(offset)
        again = hashlib.sha256()

        def frames() -> Iterator[bytes]:
            left = size
            while left:
                length = min(frame_size or left, left)
                chunker = compressor().compressobj(size=length)
                for chunk in _chunks(source, length, file, stopped):
                    again.update(chunk)
                    yield chunker.compress(chunk)
                yield chunker.flush()
                left -= length
            if again.hexdigest() != sha256:
                raise _changed(file)

        return sha256, size, put_object(store, blob_key(sha256), frames())


def _changed(file: Path) -> IntegrityError:
    return IntegrityError(f"{file}: changed while it was read", hint="run the same command again")


def _chunks(source: BinaryIO, size: int, file: Path, stopped: threading.Event | None) -> Iterator[bytes]:
    left = size
    while left:
        if stopped and stopped.is_set():
            raise StorageError(f"{file}: storing it was stopped", hint="run the same command again")
        chunk = source.read(min(_CHUNK, left))
        if not chunk:
            raise IntegrityError(f"{file}: ends {left} bytes early")
        left -= len(chunk)
        yield chunk


def _hash(source: BinaryIO, size: int, start: bytes, file: Path, stopped: threading.Event | None) -> str:
    digest = hashlib.sha256()
    for number, chunk in enumerate(_chunks(source, size, file, stopped)):
        if number == 0 and not chunk.startswith(start):
            raise _changed(file)
        digest.update(chunk)
    return digest.hexdigest()


def put_object(store: Store, key: str, chunks: Iterable[bytes]) -> bool:
    """Create `key` from chunks of bytes; return False if it is there already. Raises StorageError."""
    with new_object(store) as new:
        for chunk in chunks:
            new.write(chunk)
        return new.create(key)


class NewObject:
    """An object that is being written, under no name yet."""

    def __init__(self, store: Store, temporary: Path, out: BinaryIO) -> None:
        self._store, self._temporary, self._out, self._written = store, temporary, out, 0

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageError."""
        try:
            self._written += self._out.write(chunk)
        except OSError as error:
            raise _refused(self._store, error) from error

    def create(self, key: str) -> bool:
        """Give it its name; return False if that is taken. Raises StorageError."""
        try:
            self._out.close()
            short = self._temporary.stat().st_size != self._written
        except OSError as error:
            raise _refused(self._store, error) from error
        if short:
            raise StorageError(
                f"{self._temporary}: {self._written} bytes were written, but are not there", hint="check the disk"
            )
        return self._store.create(key, self._temporary)


@contextlib.contextmanager
def new_object(store: Store) -> Iterator[NewObject]:
    """Yield an object to write to; what has got no name at the end is gone. Raises StorageError."""
    with _temporary(store) as temporary:
        try:
            out = temporary.open("wb")
        except OSError as error:
            raise _refused(store, error) from error
        try:
            yield NewObject(store, temporary, out)
        finally:
            with contextlib.suppress(OSError):  # of a full disk, which was told already
                out.close()


def _refused(store: Store, error: OSError) -> StorageError:
    return StorageError(
        f"{store.location}: {error.strerror or error}",
        hint="free space or mend permissions, then run the same command again",
    )


@contextlib.contextmanager
def _temporary(store: Store) -> Iterator[Path]:
    try:
        descriptor, name = tempfile.mkstemp(prefix="part-", dir=store.scratch())
    except OSError as error:
        raise StorageError(
            f"{store.location}: {error.strerror or error}", hint="check space and permissions"
        ) from error
    try:
        with contextlib.suppress(OSError):  # where there are no locks, its age has to do
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        os.close(descriptor)
