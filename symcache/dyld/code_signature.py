"""The code signature that a cache file carries, and whether the file's pages are those that were signed.

Source: CS_SuperBlob, CS_BlobIndex, CS_CodeDirectory (<kern/cs_blobs.h>); all numbers are big-endian. Nobody's signature
over the directory is checked: this tells damage, not forgery.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from symcache.dyld.header import MAX_HEADER, parse_header
from symcache.errors import SharedCacheError

__all__ = ["SignedPages", "check_pages", "platform_identifier"]

_SUPER_BLOB, _DIRECTORY = 0xFADE0CC0, 0xFADE0C02
_DIRECTORY_SLOTS = (0, *range(0x1000, 0x1005))
"""The code directory, and alternate ones with other hashes."""
_MAX_BLOBS = 64
_MAX_SIGNATURE = 256 << 20
_HASHES: dict[int, tuple[Callable[[memoryview], Any], int]] = {
    4: (hashlib.sha384, 48),
    2: (hashlib.sha256, 32),
    3: (hashlib.sha256, 20),
    1: (hashlib.sha1, 20),
}
"""By hash type, strongest first: the function, and how many of its bytes are kept."""
_FIXED = struct.Struct(">9I4BI")
"""magic, length, version, flags, hashOffset, identOffset, nSpecialSlots, nCodeSlots, codeLimit, hashSize, hashType,
platform, pageSize (as a power of 2), spare2."""
_WITH_LIMIT_64, _LIMIT_64_AT = 0x20300, 56
_BLOCK = 4 << 20
_LISTED = 4


@dataclass(frozen=True, slots=True)
class SignedPages:
    """Which pages of a file are not those that were signed."""

    damaged: tuple[int, ...]
    """Their numbers, ascending."""
    count: int
    """Pages that were signed."""
    page_size: int
    """In bytes."""

    def __str__(self) -> str:
        """Return e.g. `pages 3, 7 of 152 (of 16384 bytes, the first at 0xc000)`."""
        some = ", ".join(map(str, self.damaged[:_LISTED]))
        more = f" and {len(self.damaged) - _LISTED} more" if len(self.damaged) > _LISTED else ""
        word = "page" if len(self.damaged) == 1 else "pages"
        first = self.damaged[0] * self.page_size if self.damaged else 0
        return f"{word} {some}{more} of {self.count} (of {self.page_size} bytes, the first at {first:#x})"


def check_pages(path: Path) -> SignedPages | None:
    """Hold every page of a cache file against its code signature; None where the file carries none.

    Memory is bounded by the signature's size and one block. Raises SharedCacheError for a signature that is cut or
    contradicts itself, OSError.
    """
    with path.open("rb") as file:
        header = parse_header(file.read(MAX_HEADER), str(path))
        at, size = header.code_signature_offset, header.code_signature_size
        if not size:
            return None
        if size > _MAX_SIGNATURE:
            raise SharedCacheError(f"{path}: a code signature of {size} bytes, where {_MAX_SIGNATURE} are too many")
        if at + size > file.seek(0, os.SEEK_END):
            raise SharedCacheError(
                f"{path}: its code signature at {at:#x}, {size:#x} bytes, lies beyond the end of the file",
                hint="the copy is cut: copy the file again",
            )
        file.seek(at)
        return _compare(file, at, _directories(file.read(size), str(path)), str(path))


def platform_identifier(signature: bytes, name: str) -> int:
    """Return the platform that a code signature says its code is a part of; 0 for all code that comes with no system.

    Raises SharedCacheError for what is no signature.
    """
    try:
        return max(int(_FIXED.unpack_from(directory)[11]) for directory in _directories(signature, name).values())
    except struct.error:
        raise SharedCacheError(f"{name}: the code directory in its signature is cut") from None


def _directories(signature: bytes, name: str) -> dict[int, bytes]:
    """Return the code directories of a signature by hash type. Raises SharedCacheError."""
    found: dict[int, bytes] = {}
    try:
        magic, _, count = struct.unpack_from(">3I", signature)
        if magic != _SUPER_BLOB or count > _MAX_BLOBS:
            raise SharedCacheError(f"{name}: its code signature begins with {signature[:12].hex()}, which is none")
        for number in range(count):
            kind, offset = struct.unpack_from(">2I", signature, 12 + 8 * number)
            if kind in _DIRECTORY_SLOTS:
                fields = _FIXED.unpack_from(signature, offset)
                if fields[0] == _DIRECTORY and fields[10] in _HASHES:
                    found.setdefault(fields[10], signature[offset : offset + fields[1]])
    except struct.error:
        raise SharedCacheError(f"{name}: its code signature ends within its tables") from None
    if not found:
        raise SharedCacheError(f"{name}: its code signature has no directory of hashes that are known here")
    return found


def _compare(file: BinaryIO, end: int, directories: dict[int, bytes], name: str) -> SignedPages:
    kind = next(k for k in _HASHES if k in directories)
    directory, (function, kept) = directories[kind], _HASHES[kind]
    try:
        _, _, version, _, hashes_at, _, _, slots, limit, hash_size, _, _, shift, _ = _FIXED.unpack_from(directory)
        if version >= _WITH_LIMIT_64:
            limit = struct.unpack_from(">Q", directory, _LIMIT_64_AT)[0] or limit
    except struct.error:
        raise SharedCacheError(f"{name}: the code directory in its signature is cut") from None
    if not 12 <= shift <= 20 or hash_size != kept or limit != end or slots != -(-limit >> shift):
        raise SharedCacheError(
            f"{name}: its code signature is over {limit:#x} bytes in {slots} pages, where {end:#x} bytes lie before it"
        )
    signed = directory[hashes_at : hashes_at + slots * kept]
    if len(signed) != slots * kept:
        raise SharedCacheError(f"{name}: the code directory in its signature ends within its hashes")
    page, damaged = 1 << shift, []
    for start in range(0, limit, _BLOCK):
        file.seek(start)
        block = memoryview(file.read(min(_BLOCK, limit - start)))
        first = start >> shift
        found = b"".join(function(block[i : i + page]).digest()[:kept] for i in range(0, len(block), page))
        wanted = signed[first * kept : (first + -(-min(_BLOCK, limit - start) >> shift)) * kept]
        if found != wanted:
            found = found.ljust(len(wanted), b"\0")
            differ = np.frombuffer(found, np.uint8).reshape(-1, kept) != np.frombuffer(wanted, np.uint8).reshape(
                -1, kept
            )
            damaged += (first + np.flatnonzero(differ.any(axis=1))).tolist()
    return SignedPages(tuple(damaged), slots, page)
