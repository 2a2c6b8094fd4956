"""Blobs as they lie in the store, read once: every byte checked, and the file held to be one whole zstd frame.

A decoder is content when it has all of the content; but a server hands out the file as it lies, and a client's decoder
wants the frame's end, too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from symcache.errors import IntegrityError
from symcache.store import Store, blob_key

__all__ = ["MAX_WINDOW", "Frame", "checked_chunks", "write_checked"]

MAX_WINDOW = 1 << 27
_CHUNK = 1 << 20
_MAGIC = 0xFD2FB528


class Frame:
    """A file that is read through it, and the structure of the frame that passes by.

    Source: RFC 8878, 3.1.1: magic, frame header, blocks with 3-byte headers, and 4 bytes of checksum if announced.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._seen = 0
        self._next = 0
        """Where the next header begins; past the last one the frame's end."""
        self._carry = b""
        self._checksum = 0
        self._started = self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._source.read(size)
        self._follow(data)
        return data

    def is_whole(self) -> bool:
        """Return whether the file is exactly one frame; to be asked when all of the content was decoded."""
        while not self._ended and self.read(_CHUNK):
            pass
        return self._ended and self._seen == self._next and not self._source.read(1)

    def _follow(self, data: bytes) -> None:
        data = self._carry + data
        start = self._seen - len(self._carry)
        self._seen = start + len(data)
        while not self._ended:
            at = self._next - start
            if not self._started:
                if len(data) < 5:
                    break
                self._header(data)
            elif at + 3 > len(data):
                break
            else:
                header = int.from_bytes(data[at : at + 3], "little")
                last, kind, size = header & 1, header >> 1 & 3, header >> 3
                self._next += 3 + (1 if kind == 1 else size)
                if last:
                    self._next += self._checksum
                    self._ended = True
        # What is left of a header that goes on in the next piece.
        self._carry = b"" if self._ended else data[max(0, self._next - start) :]

    def _header(self, data: bytes) -> None:
        if int.from_bytes(data[:4], "little") != _MAGIC:
            self._ended = True  # not a frame: `is_whole` says so, since nothing ends at 0
            self._next = -1
            return
        descriptor = data[4]
        single = descriptor >> 5 & 1
        size = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
        size += ((1 if single else 0), 2, 4, 8)[descriptor >> 6]
        self._checksum = 4 if descriptor & 4 else 0
        self._next, self._started = size, True


def checked_chunks(store: Store, sha256: str, size: int) -> Iterator[bytes]:
    """Yield the content of a blob, at most 1 MiB at a time; its end without IntegrityError proves every byte right."""
    name = f"its blob {sha256}"
    digest, total = hashlib.sha256(), 0
    with store.open(blob_key(sha256)) as stored:
        frame = Frame(stored)
        try:
            with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(cast(BinaryIO, frame)) as reader:
                while total <= size and (chunk := reader.read(_CHUNK)):
                    total += len(chunk)
                    digest.update(chunk)
                    yield chunk
        except zstandard.ZstdError as error:
            raise IntegrityError(f"{name} cannot be decoded: {error}") from error
        if total != size:
            raise IntegrityError(f"{name} holds {total} bytes where {size} were stored")
        if digest.hexdigest() != sha256:
            raise IntegrityError(f"{name} has another hash")
        if not frame.is_whole():
            raise IntegrityError(f"{name} is not one whole zstd frame: it is cut, or something follows it")


def write_checked(store: Store, sha256: str, size: int, target: Path) -> None:
    """Write the content of a blob to `target`, which appears whole and right or not at all. Raises IntegrityError."""
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            for chunk in checked_chunks(store, sha256, size):
                out.write(chunk)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
