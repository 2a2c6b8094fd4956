"""Reads cache files as Apple's tool does: it looks at little, and believes what it sees."""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.dyld import HEAD_SIZE, Header, Mapping, parse_header, parse_mappings, parse_subcaches
from symcache.errors import SharedCacheError

__all__ = ["CacheFile", "ListedImage", "ToolError", "check_signature", "open_cache"]

_SMALLEST = 4096
_MAX_IMAGES = 100_000
_MAX_PATH = 4096
_SUPERBLOB_HEADER = 12
"""sizeof(CS_SuperBlob) without its index."""
_SUPERBLOB, _CODE_DIRECTORY = 0xFADE0CC0, 0xFADE0C02
_HASHES = {1: (hashlib.sha1, 20), 2: (hashlib.sha256, 32)}


class ToolError(Exception):
    """What the tool says behind `Error: `, and the status that it exits with."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One record of the image table with what the text table says of its address. `text_size` in bytes."""

    path: str
    address: int
    uuid: UUID | None
    text_size: int


@dataclass(frozen=True, slots=True)
class CacheFile:
    """One mapped file. `path` is as the command line spells it."""

    path: str
    data: mmap.mmap
    header: Header
    mappings: tuple[Mapping, ...]

    def images(self) -> list[ListedImage]:
        """Return the images of this file's own tables, each once; wherever their addresses lie."""
        header, data = self.header, self.data
        offset, count = header.images_table
        if count > _MAX_IMAGES or offset + count * 32 > len(data):
            raise ToolError(f"image table of {self.path} is out of bounds")
        text: dict[int, tuple[bytes, int]] = {}
        end = header.images_text_offset + header.images_text_count * 32
        if header.images_text_count <= _MAX_IMAGES and end <= len(data):
            for uuid, address, size, _ in struct.iter_unpack("<16sQ2I", data[header.images_text_offset : end]):
                text[address] = (uuid, size)
        found: dict[int, ListedImage] = {}
        for address, _, _, path, _ in struct.iter_unpack("<3Q2I", data[offset : offset + count * 32]):
            uuid, size = text.get(address, (b"", 0))
            name = data[path : path + _MAX_PATH].partition(b"\0")[0].decode("utf-8", "surrogateescape")
            found.setdefault(address, ListedImage(name, address, UUID(bytes=uuid) if any(uuid) else None, size))
        return list(found.values())


def open_cache(path: str, place: Callable[[str], Path]) -> list[CacheFile]:
    """Map the main file and the sub-caches it names, checked no further than the tool does.

    Raises ToolError in the tool's words.
    """
    main = _open(path, place)
    files = [main]
    try:
        entries = parse_subcaches(main.data[:HEAD_SIZE], main.header, path)
    except SharedCacheError as error:
        raise ToolError(str(error)) from error
    for number, entry in enumerate(entries):
        file = _open(path.removesuffix(".development") + entry.suffix, place)
        if file.header.uuid != entry.uuid:
            got = str(file.header.uuid or UUID(int=0)).upper()
            raise ToolError(f"SubCache[{number}] UUID mismatch.  Expected {str(entry.uuid).upper()}, got {got}")
        files.append(file)
    return files


def _open(path: str, place: Callable[[str], Path]) -> CacheFile:
    local = place(path) if path else Path("/nonexistent")
    try:
        local.stat()
    except (OSError, ValueError):
        raise ToolError(f"stat failed for dyld shared cache at {path}") from None
    if local.is_dir():
        raise ToolError(f"failed to read shared cache file at {path}")
    try:
        opened = local.open("rb")
    except OSError:
        raise ToolError(f"failed to open shared cache file at {path}") from None
    with opened:
        if local.stat().st_size < _SMALLEST:
            raise ToolError(f"failed to read shared cache file at {path}")
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:7] != b"dyld_v1":
        raise ToolError(f"Expected cache file magic to be 'dyld_v1...' in {path}")
    if data[0x14:0x18] == bytes(4):
        raise ToolError(f"No mapping in shared cache file at {path}")
    try:
        header = parse_header(data[:0x400], path)
        return CacheFile(path, data, header, parse_mappings(data[:HEAD_SIZE], header, path))
    except SharedCacheError as error:
        raise ToolError(str(error)) from error


def check_signature(file: CacheFile) -> str:
    """Return what is wrong with a file's ad-hoc code signature, or an empty string.

    Source: <kern/cs_blobs.h>. A cache without any signature, as only other builders make it, is let pass.
    """
    data, start = file.data, file.header.code_signature_offset
    if not start:
        return ""
    if start + _SUPERBLOB_HEADER > len(data):
        return (
            f"dyld shared cache size 0x{len(data):08x} is less than required size of 0x{start + _SUPERBLOB_HEADER:08x}."
        )
    magic, length, count = struct.unpack_from(">3I", data, start)
    if magic == 0:
        return ""
    if magic != _SUPERBLOB:
        return "dyld shared cache code signature magic is incorrect."
    blob = data[start : start + length]
    try:
        offset = next(o for kind, o in struct.iter_unpack(">2I", blob[12 : 12 + 8 * min(count, 16)]) if kind == 0)
        magic, _, _, _, hashes, _, _, slots, limit = struct.unpack_from(">9I", blob, offset)
        _, hash_type, _, page_log = struct.unpack_from(">4B", blob, offset + 36)
    except (StopIteration, struct.error):
        return "dyld shared cache code signature directory is missing."
    if magic != _CODE_DIRECTORY:
        return "dyld shared cache code signature directory magic is incorrect."
    page = 1 << min(page_log, 20)
    if slots != -(-limit // page) or hash_type not in _HASHES or limit > len(data):
        return "dyld shared cache code signature directory num slots is incorrect."
    make, size = _HASHES[hash_type]
    first = offset + hashes
    for slot in range(slots):
        expected = blob[first + slot * size : first + (slot + 1) * size]
        if make(data[slot * page : min((slot + 1) * page, limit)], usedforsecurity=False).digest() != expected:
            return f"dyld shared cache code signature for page {slot} is incorrect."
    return ""
