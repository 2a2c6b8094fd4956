"""Blobs out of a store: decoded, and the checks that no wrong byte passes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from symcache.errors import IntegrityError
from symcache.files import atomic_write
from symcache.store.base import Store, blob_key

__all__ = ["BlobReader", "decode_to", "decoded", "frame_sizes", "unreadable_is_damaged"]

_CHUNK = 1 << 20
_SKIPPABLE = 0x184D_2A50
"""Magic number of skippable frames, of which the low four bits are free."""


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
                raise IntegrityError(f"{name}: {error}", hint="run `symcache fsck --read-data --repair`") from error
        if (self._size is not None and total != self._size) or digest.hexdigest() != self._sha256:
            raise IntegrityError(
                f"{name}: {total} bytes where {self._size or 'others'} were stored, or another hash",
                hint="run `symcache fsck --read-data --repair`",
            )


@contextlib.contextmanager
def unreadable_is_damaged() -> Iterator[None]:
    """Raise IntegrityError where the disk cannot read what it holds (EIO); any other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise IntegrityError(f"cannot be read: {error.strerror}") from error


def decoded(stored: BinaryIO) -> Iterator[bytes]:
    """Yield what the zstd frames of a blob decode to, in chunks of at most 1 MiB. Raises IntegrityError."""
    decompressor = zstandard.ZstdDecompressor()
    try:
        with (
            unreadable_is_damaged(),
            decompressor.stream_reader(stored, read_across_frames=True, closefd=False) as reader,
        ):
            while chunk := reader.read(_CHUNK):
                yield chunk
    except zstandard.ZstdError as error:
        raise IntegrityError(f"damaged: {error}") from error
    # A frame that lacks some of its checksum decodes here, but not with everybody who gets it as it lies.
    frame_sizes(stored)


@unreadable_is_damaged()
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
