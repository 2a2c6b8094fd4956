"""Files of servers that are no symbol servers: a document read whole, a large file continued where it was cut."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp

from symcache.client.body import CONTENT_RANGE, chunks, read_body
from symcache.client.session import http_session
from symcache.client.urls import without_password
from symcache.errors import IntegrityError, RemoteError, StorageError
from symcache.text import excerpt

__all__ = ["download", "read_url"]

_SECONDS = 600
_ATTEMPTS = 5
"""In a row that bring nothing."""
_WAIT = 2.0
_HINT = "run the same command again: it continues where it stopped"


class _CutError(Exception):
    """Worth another attempt."""


def read_url(url: str, limit: int) -> bytes:
    """Return what lies at a URL as it is sent, of at most `limit` bytes. Raises RemoteError that names no password."""
    shown = without_password(url)

    async def fetch() -> bytes:
        async with http_session(total_seconds=_SECONDS) as session, session.get(url) as response:
            if response.status != 200:
                raise RemoteError(f"{shown}: answers {response.status} {response.reason}", hint="check the URL")
            return await read_body(response, limit, shown)

    try:
        return asyncio.run(fetch())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RemoteError(
            f"{shown}: {excerpt(without_password(str(error))) or type(error).__name__}",
            hint="check the URL and the network",
        ) from error
    except IntegrityError as error:
        raise RemoteError(str(error), hint="check the URL") from error


def download(
    url: str, part: Path, size: int, progress: Callable[[int, int], None] | None = None, *, reserve: int = 0
) -> None:
    """Have the `size` bytes at a URL in the file `part`, continuing what is there. Its content is not checked.

    `reserve`: bytes that are left free on the disk. Raises RemoteError, IntegrityError for another size than this, and
    StorageError, also while another process writes to the file.
    """
    try:
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(f"{part}: another process downloads to it", hint="wait until it ends") from error
            if file.seek(0, os.SEEK_END) > size:
                file.truncate(0)
            needed = size - file.seek(0, os.SEEK_END) + reserve
            if (free := shutil.disk_usage(part.parent).free) < needed:
                raise StorageError(
                    f"{part.parent}: {free >> 20} MiB are free where {(needed >> 20) + 1} MiB are needed for {url}",
                    hint="free some space, or name a folder on another disk (`symcache sync --staging DIR`)",
                )
            asyncio.run(_download(url, file, size, progress or (lambda _done, _total: None)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{part}: {error.strerror or error}", hint="check the disk, and who may write there"
        ) from error


async def _download(url: str, file: BinaryIO, size: int, progress: Callable[[int, int], None]) -> None:
    futile = 0
    async with http_session() as session:
        while (start := file.seek(0, os.SEEK_END)) < size:
            try:
                await _attempt(session, url, file, size, progress)
            except (_CutError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                futile = 0 if file.seek(0, os.SEEK_END) > start else futile + 1
                if futile >= _ATTEMPTS:
                    raise RemoteError(f"{url}: {error or type(error).__name__}", hint=_HINT) from error
                await asyncio.sleep(_WAIT * futile)


async def _attempt(
    session: aiohttp.ClientSession, url: str, file: BinaryIO, size: int, progress: Callable[[int, int], None]
) -> None:
    start = file.seek(0, os.SEEK_END)
    async with session.get(url, headers={"Range": f"bytes={start}-"} if start else {}) as response:
        if response.status >= 500 or response.status in {408, 429}:
            raise _CutError(f"answers {response.status} {response.reason}")
        if response.status not in {200, 206}:
            raise RemoteError(f"{url}: answers {response.status} {response.reason}", hint="is it still published?")
        if response.status == 200:
            file.truncate(0)
            start = 0
        total = start + response.content_length if response.content_length is not None else size
        if match := CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")):
            total = int(match[3])
            if int(match[1]) != start:
                raise _CutError(f"sends from byte {match[1]} on where {start} was requested")
        if total != size or response.headers.get("Content-Encoding", "identity") != "identity":
            raise IntegrityError(f"{url}: has {total} bytes where {size} were published", hint="is it the same file?")
        async for chunk in chunks(response):
            start += len(chunk)
            if start > size:
                raise IntegrityError(f"{url}: more than {size} bytes come")
            file.write(chunk)
            progress(start, size)
    if start < size:
        raise _CutError(f"ends at {start} of {size} bytes")
