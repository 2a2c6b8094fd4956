"""Bytes in and out of a store: hashing, zstd, and the checks that no wrong byte passes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard
from pydantic import ValidationError

from symcache.errors import IntegrityError, StorageError
from symcache.model import HarvestRecord
from symcache.store.base import RecordKey, Store, blob_key

__all__ = ["COMPRESSION_LEVEL", "BlobReader", "decode_to", "put_blob", "read_record", "write_record"]

COMPRESSION_LEVEL = 3
"""The knee of the curve: 3.4 times smaller at 225 MB/s a core; level 9 gains 6 % for a quarter of the speed."""
_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
"""A file up to this size is read once; a larger one is read twice (hash, then compress) to bound memory."""
_MAX_RECORD = 1 << 30
_MAX_WINDOW = 1 << 27


def put_blob(store: Store, file: Path, offset: int = 0, size: int | None = None) -> tuple[str, int, bool]:
    """Store `size` bytes of `file` from `offset` on, unless the store has them.

    Returns (SHA-256 in hex, size, whether it is new). Raises StorageError, or IntegrityError when the file is
    shorter than asked for.
    """
    with file.open("rb") as source:
        if size is None:
            size = source.seek(0, os.SEEK_END) - offset
        source.seek(offset)
        if size <= _IN_MEMORY:
            data = source.read(size)
            if len(data) != size:
                raise IntegrityError(f"{file}: ends {size - len(data)} bytes early")
            sha256 = hashlib.sha256(data).hexdigest()
            if store.stat(blob_key(sha256)) is not None:
                return sha256, size, False
            compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
            with _temporary(store) as temporary:
                _write(store, temporary, [compressor.compress(data)])
                return sha256, size, store.create(blob_key(sha256), temporary)

        sha256 = _hash(source, size, file)
        if store.stat(blob_key(sha256)) is not None:
            return sha256, size, False
        source.seek(offset)
        with _temporary(store) as temporary:
            again = hashlib.sha256()
            chunker = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True).compressobj(size=size)

            def frames() -> Iterator[bytes]:
                for chunk in _chunks(source, size, file):
                    again.update(chunk)
                    yield chunker.compress(chunk)
                yield chunker.flush()

            _write(store, temporary, frames())
            if again.hexdigest() != sha256:
                raise IntegrityError(f"{file}: changed while it was read", hint="run the same command again")
            return sha256, size, store.create(blob_key(sha256), temporary)


class BlobReader:
    """Decoded content of one blob, in chunks, checked: iterating past the last byte proves length and hash.

    Raises IntegrityError at the end (or earlier, when zstd's own check fails), so a consumer that publishes
    must do so only after the iteration has ended.
    """

    def __init__(self, store: Store, sha256: str, size: int) -> None:
        self._store, self._sha256, self._size = store, sha256, size

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks of at most 1 MiB."""
        name = f"{self._store.location}: blob {self._sha256}"
        digest, total = hashlib.sha256(), 0
        with self._store.open(blob_key(self._sha256)) as stored:
            try:
                with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(stored) as reader:
                    while chunk := reader.read(_CHUNK):
                        total += len(chunk)
                        if total > self._size:
                            break
                        digest.update(chunk)
                        yield chunk
            except zstandard.ZstdError as error:
                raise IntegrityError(f"{name}: damaged: {error}", hint="run `symcache verify`") from error
        if total != self._size or digest.hexdigest() != self._sha256:
            raise IntegrityError(
                f"{name}: {total} bytes where {self._size} were stored, or another hash", hint="run `symcache verify`"
            )


def decode_to(store: Store, sha256: str, size: int, target: Path) -> None:
    """Write the checked content of a blob to `target`, which appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            for chunk in BlobReader(store, sha256, size):
                out.write(chunk)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_record(store: Store, record: HarvestRecord, writer: str) -> tuple[RecordKey, str]:
    """Add a record as the next of `writer`; return its key and its id (SHA-256 of its JSON)."""
    data = record.model_dump_json(exclude_defaults=True).encode()
    identity = hashlib.sha256(data).hexdigest()
    taken = [k.sequence for key in store.list(f"records/{writer}/") if (k := RecordKey.parse(key))]
    sequence = max(taken, default=0) + 1
    compressed = zstandard.ZstdCompressor(level=9, write_checksum=True).compress(data)
    while True:
        key = RecordKey(writer, sequence)
        with _temporary(store) as temporary:
            _write(store, temporary, [compressed])
            if store.create(str(key), temporary):
                return key, identity
        sequence += 1  # another process of this writer was faster


def read_record(store: Store, key: RecordKey) -> tuple[str, HarvestRecord]:
    """Return (id, record). Raises IntegrityError for one that cannot be read or is newer than this program."""
    name = f"{store.location}: record {key}"
    data = bytearray()
    with store.open(str(key)) as stored:
        try:
            with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(stored) as reader:
                while chunk := reader.read(_CHUNK):
                    data += chunk
                    if len(data) > _MAX_RECORD:
                        raise IntegrityError(f"{name}: larger than {_MAX_RECORD} bytes")
        except zstandard.ZstdError as error:
            raise IntegrityError(f"{name}: damaged: {error}") from error
    try:
        record = HarvestRecord.model_validate_json(bytes(data))
    except ValidationError as error:
        raise IntegrityError(f"{name}: {error.error_count()} fields are not what they must be") from error
    if record.schema_version > HarvestRecord().schema_version:
        raise IntegrityError(
            f"{name}: schema {record.schema_version} is newer than this program", hint="update symcache"
        )
    return hashlib.sha256(data).hexdigest(), record


def _chunks(source: BinaryIO, size: int, file: Path) -> Iterator[bytes]:
    left = size
    while left:
        chunk = source.read(min(_CHUNK, left))
        if not chunk:
            raise IntegrityError(f"{file}: ends {left} bytes early")
        left -= len(chunk)
        yield chunk


def _hash(source: BinaryIO, size: int, file: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(source, size, file):
        digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _temporary(store: Store) -> Iterator[Path]:
    try:
        descriptor, name = tempfile.mkstemp(prefix="part-", dir=store.scratch())
    except OSError as error:
        raise StorageError(
            f"{store.location}: {error.strerror or error}", hint="check space and permissions"
        ) from error
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)


def _write(store: Store, target: Path, chunks: Iterator[bytes] | list[bytes]) -> None:
    try:
        with target.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
    except OSError as error:
        raise StorageError(
            f"{store.location}: {error.strerror or error}",
            hint="free space or mend permissions, then run the same command again",
        ) from error
