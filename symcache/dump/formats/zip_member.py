"""The members of a zip file as streams of bounded memory, whatever they are packed with and whatever follows the file.

Sources: PKWARE's APPNOTE, 4.3.16 (end of the central directory) and 5.8 (LZMA); the .lzma format's header.
"""

from __future__ import annotations

import bz2
import copy
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

__all__ = ["archives", "open_member"]

_END = b"PK\5\6"
_END_SIZE = 22
_MAX_BEHIND = 1 << 20
"""Bytes of a comment, or of whatever else stands behind the file."""
_MAX_ENDS = 16
_CHUNK = 64 << 10
_LZMA_HEADER, _LZMA_PROPERTIES = 4, 5
"""Sizes of the header (packer version, size of the properties) and of the properties."""
_LZMA_HAS_END = 2
"""General purpose bit 1: a mark tells where the data ends."""
_MAX_DICTIONARY = 256 << 20


def archives(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Yield the zip file that a file is, first as its end tells; a comment may hold what looks like another end.

    Raises BadZipFile if it is none.
    """
    problem = None
    try:
        yield zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        problem = error
    start = max(0, file.seek(0, io.SEEK_END) - _MAX_BEHIND)
    file.seek(start)
    tail = file.read()
    place = len(tail)
    for _ in range(_MAX_ENDS):
        place = tail.rfind(_END, 0, place)
        if place < 0:
            break
        try:
            yield zipfile.ZipFile(io.BufferedReader(_Beginning(file, start + place + _END_SIZE)))
        except zipfile.BadZipFile:
            continue
        problem = None
    if problem:
        raise problem


class _Beginning(io.RawIOBase):
    """The first `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        if at < 0:
            raise OSError("before the beginning of the file")
        self._at = at
        return at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # (the type of buffers is newer)
        self._file.seek(self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """Return the content of a member: stored, or packed by deflate, bzip2 or LZMA. The caller closes it.

    Reading raises BadZipFile, zlib.error, EOFError.
    """
    if member.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return archive.open(member)
    packed = copy.copy(member)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
    del packed.CRC
    return io.BufferedReader(_Unpacked(archive.open(packed), member))


class _Unpacked(io.RawIOBase):
    """What bzip2 or LZMA has packed: zipfile itself would unpack as much as the packed bytes happen to hold."""

    def __init__(self, packed: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._packed, self._member = packed, member
        self._unpacker: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
        self._left, self._crc = member.file_size, 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._packed.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # (the type of buffers is newer)
        data = self._unpack(min(len(buffer), self._left)) if self._left and len(buffer) else b""
        buffer[: len(data)] = data
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if not self._left and self._crc != self._member.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._member.filename!r}")
        return len(data)

    def _unpack(self, size: int) -> bytes:
        self._unpacker = self._unpacker or self._start()
        while not self._unpacker.eof:
            more = self._packed.read(_CHUNK) if self._unpacker.needs_input else b""
            if self._unpacker.needs_input and not more:
                break
            try:
                data = self._unpacker.decompress(more, size)
            except (OSError, ValueError, lzma.LZMAError) as error:  # bz2 raises OSError
                raise zlib.error(str(error)) from error
            if data:
                return data
        raise EOFError("it ends early")

    def _start(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        if self._member.compress_type == zipfile.ZIP_BZIP2:
            return bz2.BZ2Decompressor()
        head, properties = self._packed.read(_LZMA_HEADER), self._packed.read(_LZMA_PROPERTIES)
        if head[2:] != _LZMA_PROPERTIES.to_bytes(2, "little") or len(properties) < _LZMA_PROPERTIES:
            raise zlib.error("its LZMA properties are damaged")
        size = (1 << 64) - 1 if self._member.flag_bits & _LZMA_HAS_END else self._member.file_size
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY)
        try:
            unpacker.decompress(properties + struct.pack("<Q", size), 0)  # the header of a .lzma file
        except lzma.LZMAError as error:
            raise zlib.error(str(error)) from error
        return unpacker
