"""What every minidump is made of: a directory of streams, lists of entries of one size, texts.

What is not there is left out, and noted: `is_odd`.

Sources: MINIDUMP_HEADER, MINIDUMP_DIRECTORY, MINIDUMP_STRING (minidumpapiset.h).
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from symcache.errors import DumpError

__all__ = ["DIRECTORY", "EXCEPTION", "SIGNATURE", "MinidumpStreams"]

SIGNATURE, _VERSION = b"MDMP", 0xA793
HEADER = struct.Struct("<4s3I")
DIRECTORY = struct.Struct("<3I")
"""Type, size, place."""
EXCEPTION = 6
"""The type of the streams of which there may be several."""
_MAX_STREAMS = 4096
_MAX_TEXT = 4096


class MinidumpStreams:
    """The streams of a minidump. Raises DumpError where it is none, or has no directory."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.size = file.seek(0, os.SEEK_END)
        self._texts: dict[int, str] = {}
        self.places: dict[int, tuple[int, int]] = {}
        """Place and size by type, of each the first that is there whole."""
        self.exceptions: list[int] = []
        """Places of the exceptions."""
        self.is_odd = False
        """Something of it is not there, or twice."""
        self._read_directory()

    def _read_directory(self) -> None:
        raw = self.at(0, HEADER.size)
        signature, version, count, offset = HEADER.unpack(raw.ljust(HEADER.size, b"\0"))
        if signature != SIGNATURE or version & 0xFFFF != _VERSION:
            raise DumpError(f"{self._name}: is no minidump: {signature!r}, version {version & 0xFFFF:#x}")
        if count > _MAX_STREAMS:
            raise DumpError(f"{self._name}: {count} streams where at most {_MAX_STREAMS} were expected")
        table = self.at(offset, count * DIRECTORY.size)
        if count and len(table) < DIRECTORY.size:
            raise DumpError(
                f"{self._name}: the directory of {count} streams at {offset:#x} lies outside the minidump of"
                f" {self.size} bytes",
                hint="it is cut or damaged: copy it again",
            )
        self.is_odd |= len(table) < count * DIRECTORY.size
        for kind, size, place in DIRECTORY.iter_unpack(table[: len(table) // DIRECTORY.size * DIRECTORY.size]):
            if kind == EXCEPTION:
                self.exceptions.append(place)
            elif kind or size:
                self.is_odd |= kind in self.places
                if kind not in self.places or sum(self.places[kind]) > self.size:
                    self.places[kind] = (place, size)
            self.is_odd |= place + size > self.size

    def entries(self, kind: int, size: int, most: int) -> list[bytes]:
        """Return the entries of a list, `size` bytes each, as far as they are in its stream and in the file."""
        if kind not in self.places:
            return []
        offset, length = self.places[kind]
        head = self.at(offset, min(length, 4))
        count = int.from_bytes(head, "little")
        # Some writers align the entries to 8 bytes; the length of the stream tells.
        start = 8 if length == 8 + count * size else 4
        table = self.at(offset + start, min(count, most) * size) if length >= start else b""
        table = table[: min(len(table), length - start) // size * size]
        self.is_odd |= len(table) != count * size or length != start + count * size
        return [table[n : n + size] for n in range(0, len(table), size)]

    def text(self, place: int) -> str:
        """Return a MINIDUMP_STRING: its length in bytes, then UTF-16. Empty where it is not in the file."""
        if place not in self._texts:
            length = int.from_bytes(self.at(place, 4), "little") if place else 0
            raw = self.at(place + 4, min(length, _MAX_TEXT))
            self._texts[place] = raw[: len(raw) & ~1].decode("utf-16-le", "replace").partition("\0")[0]
        return self._texts[place]

    def at(self, offset: int, size: int) -> bytes:
        """Return the bytes that are there."""
        if offset >= self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(size)
