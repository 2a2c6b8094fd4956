"""One response: what its headers promise, its body without encoding, and whether it is what was requested."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import aiohttp
import zstandard

from symcache.client.urls import whole_number
from symcache.errors import IntegrityError, MachOError
from symcache.images import ImageRequest
from symcache.kinds import uuid_text
from symcache.macho import file_end, identify, identify_bytes

__all__ = [
    "CONTENT_RANGE",
    "Count",
    "Sink",
    "check",
    "content_headers",
    "promised_hash",
    "promised_size",
    "read_body",
    "save",
    "unpacked",
]

CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
"""First byte, last byte and size of the whole. Python refuses to read numbers of thousands of digits."""
_CHUNK = 1 << 20
_LEAST, _WINDOW_SECONDS = 60_000, 60.0
"""Bytes that come within so many seconds, or the server is given up."""
_MOST_UNTOLD = 4 << 30
"""Bytes of a file whose size the server does not tell."""
_LOOK_AT_DISK = 32 << 20
"""Bytes of such a file between looks at how much is free."""
_MAX_HEAD = 1 << 20
_ETAG = re.compile(r'"([0-9a-f]{64})(?:-zstd)?"')

Count = Callable[[int, int], None]
"""Called with (bytes arrived, bytes expected), both as differences."""


def content_headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Return the headers that describe the content: those of the redirect, where it led to an object store."""
    first = response.history[0].headers if response.history else response.headers
    return first if "X-Symcache-Version" in first else response.headers


def promised_hash(headers: Mapping[str, str]) -> str | None:
    """Return the SHA-256 that a strong ETag of ours is, or None."""
    match = _ETAG.fullmatch(headers.get("ETag", ""))
    return match[1] if match else None


def promised_size(response: aiohttp.ClientResponse, described: Mapping[str, str], start: int) -> int | None:
    """Return the size of the whole decoded file that the server promises, or None."""
    headers = response.headers
    if match := CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")):
        return int(match[3])
    for name in ("X-Symcache-Size", "X-DEBUGINFOD-SIZE"):
        if (size := whole_number(described.get(name))) is not None:
            return size
    if not headers.get("Content-Encoding") and response.content_length is not None:
        return start + response.content_length
    return None


class Sink:
    """Takes the decoded body piece by piece, so that a few bytes that unpack to gigabytes cost no memory."""

    def __init__(self, file: BinaryIO, folder: Path, size: int | None, count: Count, name: str) -> None:
        """`size` is that of the whole file; where it is unknown, at most half of the free disk of `folder` is used."""
        self._file, self._folder, self._size, self._count, self._name = file, folder, size, count, name
        self._looked = 0

    def write(self, data: bytes) -> int:
        """Write one piece. Raises IntegrityError for more than there may be."""
        size = self._file.tell() + len(data)
        limit = _MOST_UNTOLD if self._size is None else self._size
        if size > limit:
            raise IntegrityError(f"{self._name}: more than {limit} bytes come")
        if self._size is None and size - self._looked > _LOOK_AT_DISK:
            self._looked = size
            if shutil.disk_usage(self._folder).free < size:
                raise IntegrityError(f"{self._name}: {size} bytes come, no size is told, and less is left on the disk")
        self._file.write(data)
        self._count(len(data), 0)
        return len(data)


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises TimeoutError where next to nothing does."""
    clock = asyncio.get_running_loop().time
    received, left = 0, _WINDOW_SECONDS
    while True:
        began = clock()
        try:
            async with asyncio.timeout(left):
                chunk = await response.content.read(_CHUNK)
        except TimeoutError as error:
            raise TimeoutError(f"sends too slowly ({received} bytes in {_WINDOW_SECONDS:g} seconds)") from error
        if not chunk:
            return
        received, left = received + len(chunk), left - (clock() - began)
        yield chunk
        if received >= _LEAST:
            received, left = 0, _WINDOW_SECONDS


async def save(response: aiohttp.ClientResponse, sink: Sink) -> None:
    """Write the body into `sink`, without its content encoding."""
    if not _is_packed(response):
        async for chunk in chunks(response):
            sink.write(chunk)
        return
    decoder = zstandard.ZstdDecompressor()
    writer = decoder.stream_writer(sink, write_size=_CHUNK, closefd=False)  # type: ignore[arg-type] # needs only write
    try:
        async for chunk in chunks(response):
            writer.write(chunk)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{response.url}: the body is no zstd: {error}") from error


async def read_body(response: aiohttp.ClientResponse, limit: int, name: str) -> bytes:
    """Return the body as it is sent. Raises IntegrityError for more than `limit` bytes, TimeoutError as `chunks`."""
    body = bytearray()
    async for chunk in chunks(response):
        body += chunk
        if len(body) > limit:
            raise IntegrityError(f"{name}: more than {limit} bytes come")
    return bytes(body)


def unpacked(response: aiohttp.ClientResponse, body: bytes, limit: int) -> bytes:
    """Return up to `limit` bytes of a whole body without its content encoding."""
    if not _is_packed(response):
        return body[:limit]
    decoder = zstandard.ZstdDecompressor()
    try:
        return decoder.stream_reader(body, read_across_frames=True).read(limit)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{response.url}: the body is no zstd: {error}") from error


def _is_packed(response: aiohttp.ClientResponse) -> bool:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"identity", "zstd"}:
        raise IntegrityError(f"{response.url}: answers in the encoding {encoding[:40]!r}, which was not asked for")
    return encoding == "zstd"


def check(url: str, request: ImageRequest, content: Path | bytes, size: int | None, promised: str | None) -> str:
    """Return the SHA-256 of a downloaded file that is what was requested. Raises IntegrityError otherwise."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        got = file.seek(0, os.SEEK_END)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if size is not None and got != size:
            raise IntegrityError(f"{url}: {got} bytes came for {request} where {size} were promised")
        if promised is not None and sha256 != promised:
            raise IntegrityError(f"{url}: what came for {request} has SHA-256 {sha256} where {promised} was promised")
        try:
            slices = identify_bytes(content, got) if isinstance(content, bytes) else identify(content)
        except MachOError as error:
            raise IntegrityError(f"{url}: what came for {request} is damaged: {error}") from error
        image = next((s for s in slices if s.uuid == request.uuid and s.kind is request.kind), None)
        if image is None:
            kinds = [f"{s.kind} {uuid_text(s.uuid) if s.uuid else 'without UUID'}" for s in slices]
            raise IntegrityError(f"{url}: what came for {request} is {', '.join(kinds) or 'no Mach-O'}")
        if promised is None:
            # Nobody vouches for the content, and a file cut at its source still has its header and UUID.
            file.seek(image.offset)
            end = file_end(file.read(min(image.size, _MAX_HEAD)))
            if end > image.size:
                raise IntegrityError(f"{url}: what came for {request} ends at {image.size} of {end} bytes")
    return sha256
