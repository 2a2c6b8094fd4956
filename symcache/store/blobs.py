"""Blobs in and out of a store: hashing, zstd, and the checks that no wrong byte passes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from symcache.errors import IntegrityError, StorageError
from symcache.files import atomic_write
from symcache.store.base import Store, blob_key

__all__ = ["COMPRESSION_LEVEL", "BlobReader", "decode_to", "decoded", "frame_sizes", "put_blob", "put_object"]

COMPRESSION_LEVEL = 3
"""The knee of the curve: 3.4 times smaller at 225 MB/s a core; level 9 gains 6 % for a quarter of the speed."""
_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
"""A file up to this size is read once; a larger one is read twice (hash, then compress) to bound memory."""
_SKIPPABLE = 0x184D_2A50
"""Magic number of skippable frames, of which the low four bits are free."""


def _never(sha256: str) -> bool:
    del sha256
    return False


def put_blob(
    store: Store,
    file: Path,
    offset: int = 0,
    size: int | None = None,
    *,
    start: bytes = b"",
    claimed: Callable[[str], bool] = _never,
    young: float = math.inf,
    frame_size: int | None = None,
    stopped: threading.Event | None = None,
    refreshed: Callable[[str], None] | None = None,
) -> tuple[str, int, bool]:
    """Store `size` bytes of `file` from `offset` on, unless the store has them.

    What is there already, but is not `claimed` by any live record, might be about to be collected: unless it was made
    after `young` (store's clock), it is made young again, and `refreshed` is told. With `frame_size`, every so many
    bytes become a frame of their own, so that a reader can begin at any of them. Returns (SHA-256 in hex, size, whether
    it is new). Ends early, with a StorageError, once `stopped` is set.
    Raises StorageError, or IntegrityError when the file is shorter than asked for, or does not begin with `start`, as
    it did when it was looked at.
    """

    def there(sha256: str) -> bool:
        key = blob_key(sha256)
        found = store.stat(key)
        if found is None:
            return False
        if found.modified >= young or claimed(sha256):
            return True
        if not store.refresh(key):
            return False  # collected at this moment
        if refreshed:
            refreshed(sha256)
        return True

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
            compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
            pieces = [data] if not frame_size else [data[n : n + frame_size] for n in range(0, size or 1, frame_size)]
            return sha256, size, put_object(store, blob_key(sha256), map(compressor.compress, pieces))

        sha256 = _hash(source, size, start, file, stopped)
        if there(sha256):
            return sha256, size, False
        source.seek(offset)
        again = hashlib.sha256()

        def frames() -> Iterator[bytes]:
            left = size
            while left:
                length = min(frame_size or left, left)
                compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
                chunker = compressor.compressobj(size=length)
                for chunk in _chunks(source, length, file, stopped):
                    again.update(chunk)
                    yield chunker.compress(chunk)
                yield chunker.flush()
                left -= length
            if again.hexdigest() != sha256:
                raise _changed(file)

        return sha256, size, put_object(store, blob_key(sha256), frames())


class BlobReader:
    """Decoded content of one blob, in chunks, checked: iterating past the last byte proves length and hash.

    Raises IntegrityError at the end (or earlier, when zstd's own check fails), so a consumer that publishes
    must do so only after the iteration has ended.
    """

    def __init__(self, store: Store, sha256: str, size: int | None) -> None:
        """Without `size`, only the hash is proven."""
        self._store, self._sha256, self._size = store, sha256, size

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks of at most 1 MiB."""
        name = f"{self._store.location}: blob {self._sha256}"
        digest, total = hashlib.sha256(), 0
        with self._store.open(blob_key(self._sha256)) as stored:
            try:
                for chunk in decoded(stored):
                    total += len(chunk)
                    if self._size is not None and total > self._size:
                        break
                    digest.update(chunk)
                    yield chunk
            except IntegrityError as error:
                raise IntegrityError(f"{name}: {error}", hint="run `symcache fsck --repair`") from error
        if (self._size is not None and total != self._size) or digest.hexdigest() != self._sha256:
            raise IntegrityError(
                f"{name}: {total} bytes where {self._size or 'others'} were stored, or another hash",
                hint="run `symcache fsck --repair`",
            )


def decoded(stored: BinaryIO) -> Iterator[bytes]:
    """Yield what the zstd frames of a blob decode to, in chunks of at most 1 MiB. Raises IntegrityError."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True, closefd=False) as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk
    except zstandard.ZstdError as error:
        raise IntegrityError(f"damaged: {error}") from error
    # A frame that lacks some of its checksum decodes here, but not with everybody who gets it as it lies.
    frame_sizes(stored)


def frame_sizes(stored: BinaryIO) -> tuple[int, int]:
    """Return (size of the content, bytes of frames) of the zstd frames that `stored` consists of, by their headers.

    Hops from block to block (RFC 8878, sections 3.1.1 and 3.1.2), so that a cut is seen without reading everything.
    Raises IntegrityError when it does not end with a whole frame.
    """
    length = stored.seek(0, os.SEEK_END)
    position = content = 0
    while position < length or not position:
        stored.seek(position)
        start = stored.read(18)  # the longest frame header
        if int.from_bytes(start[:4], "little") & 0xFFFF_FFF0 == _SKIPPABLE and len(start) >= 8:
            position += 8 + int.from_bytes(start[4:8], "little")
            continue
        try:
            parameters = zstandard.get_frame_parameters(start)
            position += zstandard.frame_header_size(start)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"no zstd frame at {position:#x}: {error}") from error
        if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN:
            raise IntegrityError(f"the zstd frame before {position:#x} does not say its size")
        content += parameters.content_size
        last = False
        while not last:
            stored.seek(position)
            header = stored.read(3)
            bits = int.from_bytes(header, "little")
            last, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
            if len(header) < 3 or kind == 3:
                raise IntegrityError(f"ends early, or no zstd block at {position:#x}")
            position += 3 + (1 if kind == 1 else size)
        position += 4 if parameters.has_checksum else 0
    if position > length:
        raise IntegrityError(f"ends {position - length} bytes early")
    return content, position


def decode_to(store: Store, sha256: str, size: int, target: Path) -> None:
    """Write the checked content of a blob to `target`, which appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as part, part.open("wb") as out:
        for chunk in BlobReader(store, sha256, size):
            out.write(chunk)


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
    with _temporary(store) as temporary:
        written = 0
        try:
            with temporary.open("wb") as out:
                for chunk in chunks:
                    written += out.write(chunk)
            short = temporary.stat().st_size != written
        except OSError as error:
            raise StorageError(
                f"{store.location}: {error.strerror or error}",
                hint="free space or mend permissions, then run the same command again",
            ) from error
        if short:
            raise StorageError(f"{temporary}: {written} bytes were written, but are not there", hint="check the disk")
        return store.create(key, temporary)


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
            Path(name).unlink(missing_ok=True)
        os.close(descriptor)
