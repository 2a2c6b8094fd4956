"""One download: resumed where it was cut, and checked in length, hash and UUID before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import aiohttp
import tenacity

from symcache.client.body import (
    CONTENT_RANGE,
    Count,
    Sink,
    check,
    content_headers,
    promised_hash,
    promised_size,
    read_body,
    save,
    unpacked,
)
from symcache.client.jobs import RequestFailedError
from symcache.client.local_cache import IndexEntry, LocalCache
from symcache.client.model import FetchedImage
from symcache.client.session import RedirectError, refused
from symcache.client.urls import retry_after
from symcache.errors import IntegrityError, RemoteError
from symcache.images import ImageRequest
from symcache.kinds import uuid_text

__all__ = ["Fetcher"]

MAX_SIZE = 16 << 30
"""No Mach-O is larger; a server that says otherwise is not believed."""
_SMALL = 1 << 20
"""A file of up to so many bytes is kept in memory until it has been checked, and never resumed."""
_OVERHEAD = 1 << 14
"""What a compressed body may be longer than its content: nothing that compresses badly is much longer."""
_ATTEMPTS = 4
_LOCKED_SECONDS = 0.05
_BUILD = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Retry(Exception):
    """Worth another attempt at the same server."""


class _Failed(_Retry):
    """The same, of a server that may have no trouble with other files."""


class Fetcher:
    """Downloads over one session into one local cache."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        cache: LocalCache,
        *,
        backoff: float = 0.2,
        headers: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        attempts: int = _ATTEMPTS,
        part_suffix: str = "",
    ) -> None:
        """Fetchers with different `part_suffix` do not wait for each other's downloads of the same file."""
        self._session, self._cache, self._backoff = session, cache, backoff
        self._attempts, self._part_suffix = attempts, part_suffix
        self._headers, self._tokens = dict(headers or {}), tokens or {}
        self._silent: set[str] = set()
        """Servers of a version that redirects who accepts zstd, and does not announce where."""

    async def fetch(self, url: str, request: ImageRequest, count: Count) -> FetchedImage | None:
        """Return the image from the server at `url`, or None if it does not have it.

        Raises RemoteError when it cannot be reached or breaks off, IntegrityError when what it sends is not what
        was requested, StorageError when the cache cannot be written.
        """
        try:
            return await self._fetch(url, request, count)
        except OSError as error:  # those of the network are RemoteError by now
            raise self._cache.refusal(error) from error

    async def _fetch(self, url: str, request: ImageRequest, count: Count) -> FetchedImage | None:
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    path, file = stack.enter_context(self._cache.part(request, self._part_suffix))
                    break
                except BlockingIOError:
                    # Not in a thread: two processes that wait for each other's downloads would block all threads that
                    # they need to end their own.
                    await asyncio.sleep(_LOCKED_SECONDS)
            if cached := self._cache.find(request):
                path.unlink(missing_ok=True)
                return cached
            retrying = tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(self._attempts),
                wait=tenacity.wait_random_exponential(self._backoff, max=10),
                retry=tenacity.retry_if_exception_type(_Retry),
                reraise=True,
            )
            try:
                return await retrying(self._attempt, url, request, path, file, count)
            except Exception as error:
                if not self._cache.part_note(path):
                    _restart(file)  # nobody could continue it
                if isinstance(error, _Failed):
                    raise RequestFailedError(f"{url}: {error}", hint="tell whoever runs the server") from error
                if isinstance(error, _Retry):
                    raise RemoteError(f"{url}: {error}", hint="run the same command again: it continues") from error
                raise
            finally:
                if file.tell() == 0:
                    path.unlink(missing_ok=True)
                    self._cache.write_part_note(path, None)

    async def _attempt(
        self, url: str, request: ImageRequest, path: Path, file: BinaryIO, count: Count
    ) -> FetchedImage | None:
        for target in _targets(url, request):
            encoding = "identity" if url in self._silent else "zstd"
            try:
                headers = {"Accept-Encoding": encoding, **self._headers}
                if url in self._tokens:
                    headers["Authorization"] = f"Bearer {self._tokens[url]}"
                start = file.seek(0, 2)
                note = self._cache.part_note(path) if start else {}
                if start and note.get("etag") and note.get("url") == target:
                    headers |= {"Accept-Encoding": "identity", "Range": f"bytes={start}-", "If-Range": note["etag"]}
                elif start:
                    start = _restart(file)
                async with self._session.get(target, headers=headers) as response:
                    ours = "X-Symcache-Version" in response.headers
                    if response.status == 416 and start:
                        _restart(file)
                        self._cache.write_part_note(path, None)
                        raise _Retry("the file has changed on the server")
                    if response.status in {404, 410}:
                        if ours:
                            return None
                        continue  # a server of another kind knows no pins: ask it without
                    if response.status == 429:
                        await asyncio.sleep(retry_after(response.headers.get("Retry-After")))
                    if response.status >= 500 or response.status in {408, 429}:
                        failed = _Failed if response.status == 500 else _Retry
                        raise failed(f"answers {response.status} {response.reason} for {request}")
                    if response.status in {401, 403}:
                        raise refused(url, response)
                    if response.status not in {200, 206}:
                        raise RemoteError(f"{url}: answers {response.status} {response.reason} for {request}")
                    try:
                        return await self._receive(url, target, request, response, path, file, start, count)
                    except IntegrityError as error:
                        _restart(file)
                        self._cache.write_part_note(path, None)
                        if start:  # the fault may be in what an earlier run left
                            raise _Retry(str(error)) from error
                        raise
            except RedirectError as error:
                if error.announces or encoding == "identity":
                    raise
                self._silent.add(url)
                return await self._attempt(url, request, path, file, count)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                raise _Retry(f"{error or type(error).__name__} while fetching {request}") from error
        return None

    async def _receive(
        self,
        url: str,
        target: str,
        request: ImageRequest,
        response: aiohttp.ClientResponse,
        path: Path,
        file: BinaryIO,
        start: int,
        count: Count,
    ) -> FetchedImage:
        if response.status == 200:
            if start:
                start = _restart(file)
                self._cache.write_part_note(path, None)
        elif not (m := CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))) or int(m[1]) != start:
            raise IntegrityError(f"{url}: answers another range than was asked for {request}")
        described = content_headers(response)
        promised = promised_hash(described)
        size = promised_size(response, described, start)
        if size is not None and size > MAX_SIZE:
            raise IntegrityError(f"{url}: offers {size} bytes for {request}: no binary is so large")
        if size is not None and size - start > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count(start, size or 0)
        if not start and size is not None and size <= _SMALL:
            # Not worth a note for a later run, and nothing is written before it has been checked.
            body = await read_body(response, size + _OVERHEAD, f"{url}: {request}")
            fetched = await asyncio.to_thread(self._keep_small, url, request, response, described, body, path, file)
            count(size, 0)
            return fetched
        # Only what has a strong validator can be continued later.
        self._cache.write_part_note(path, {"etag": f'"{promised}"', "url": target} if promised else None)
        try:
            await save(response, Sink(file, path.parent, size, count, f"{url}: {request}"))
        finally:
            file.flush()
        got = file.tell()
        if size is not None and got < size:
            raise _Retry(f"{got} of {size} bytes came for {request}")
        sha256 = await asyncio.to_thread(check, url, request, path, size, promised)
        self._cache.write_part_note(path, None)
        return self._cache.publish(request, path, _entry(url, described, sha256, got))

    def _keep_small(
        self,
        url: str,
        request: ImageRequest,
        response: aiohttp.ClientResponse,
        described: Mapping[str, str],
        body: bytes,
        path: Path,
        file: BinaryIO,
    ) -> FetchedImage:
        """Unpack, check and publish a body that is in memory."""
        size = promised_size(response, described, 0) or 0
        data = unpacked(response, body, size + 1)
        if len(data) > size:
            raise IntegrityError(f"{url}: {request}: more than {size} bytes come")
        if len(data) < size:
            raise _Retry(f"{len(data)} of {size} bytes came for {request}")
        sha256 = check(url, request, data, size, promised_hash(described))
        file.write(data)
        file.flush()
        return self._cache.publish(request, path, _entry(url, described, sha256, size))


def _entry(url: str, described: Mapping[str, str], sha256: str, size: int) -> IndexEntry:
    build = described.get("X-Symcache-Build", "")
    return IndexEntry(
        sha256=sha256,
        size=size,
        build=build if _BUILD.fullmatch(build) else None,
        cache_uuid=_uuid_or_none(described.get("X-Symcache-Cache", "")),
        server=url,
    )


def _targets(url: str, request: ImageRequest) -> list[str]:
    plain = f"/buildid/{request.uuid.hex}/{request.kind}"
    if request.cache is not None:
        return [f"{url}/cache/{uuid_text(request.cache)}{plain}", url + plain]
    if request.build is not None:
        return [f"{url}/build/{request.build}{plain}", url + plain]
    return [url + plain]


def _restart(file: BinaryIO) -> int:
    file.seek(0)
    file.truncate()
    return 0


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
