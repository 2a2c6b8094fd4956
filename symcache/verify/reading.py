"""Blobs as they lie in the store, read once: every byte checked, and the file held to be whole zstd frames.

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

__all__ = ["MAX_WINDOW", "Frames", "checked_chunks", "write_checked"]

MAX_WINDOW = 1 << 27
_CHUNK = 1 << 20
_MAGIC, _SKIPPABLE = 0xFD2FB528, 0x184D2A50


class Frames:
    """A file that is read through it, and the structure of the zstd frames that pass by.

    Source: RFC 8878, 3.1: magic, frame header, blocks with 3-byte headers, and 4 bytes of checksum if announced; or a
    skippable frame, of which only the size is looked at.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._seen = 0
        self._next = 0
        """Where the next header begins, of a block or of a frame."""
        self._carry = b""
        self._checksum = 0
        self._inside = False
        """Whether the next header is that of a block."""
        self._broken = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._source.read(size)
        if not self._broken:
            self._follow(data)
        return data

    def are_whole(self) -> bool:
        """Return whether the file is frames and nothing else; to be asked when all of the content was decoded."""
        while not self._broken and self.read(_CHUNK):
            pass
        return not self._broken and not self._inside and 0 < self._next == self._seen

    def _follow(self, data: bytes) -> None:
        data = self._carry + data
        start = self._seen - len(self._carry)
        self._seen = start + len(data)
        while not self._broken and (length := self._header(data, self._next - start)):
            self._next += length
        # What is left of a header that goes on in the next piece.
        self._carry = data[max(0, self._next - start) :]

    def _header(self, data: bytes, at: int) -> int:
        """Return the length of what the header at `at` begins, or 0 when it is not all there yet."""
        if self._inside:
            if at + 3 > len(data):
                return 0
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            self._inside = not last
            return 3 + (1 if kind == 1 else size) + (self._checksum if last else 0)
        if at + 8 > len(data):
            return 0
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFF_FFF0 == _SKIPPABLE:
            return 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        self._broken = magic != _MAGIC
        descriptor = data[at + 4]
        single = descriptor >> 5 & 1
        self._checksum = 4 if descriptor & 4 else 0
        self._inside = True
        return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + ((1 if single else 0), 2, 4, 8)[descriptor >> 6]


def checked_chunks(store: Store, sha256: str, size: int) -> Iterator[bytes]:
    """Yield the content of a blob, at most 1 MiB at a time; its end without IntegrityError proves every byte right."""
    name = f"its blob {sha256}"
    digest, total = hashlib.sha256(), 0
    with store.open(blob_key(sha256)) as stored:
        frames = Frames(stored)
        source = cast(BinaryIO, frames)
        try:
            with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
                source, read_across_frames=True
            ) as reader:
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
        if not frames.are_whole():
            raise IntegrityError(f"{name} ends within a zstd frame, or something follows it")


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
