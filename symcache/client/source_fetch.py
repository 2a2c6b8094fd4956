"""Downloading one source file of an own binary (debuginfod's `/source/`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import tenacity
from yarl import URL

from symcache.client.body import read_body
from symcache.client.jobs import RequestFailedError
from symcache.client.local_cache import LocalCache
from symcache.client.session import refused
from symcache.client.sources import write_source
from symcache.client.urls import whole_number
from symcache.errors import IntegrityError, RemoteError
from symcache.images import SourceRequest

__all__ = ["SourceFetcher"]

MAX_SOURCE = 16 << 20
"""Bytes; what is longer is not taken."""
_ATTEMPTS = 3


class SourceFetcher:
    """Downloads over one session into one local cache."""

    def __init__(self, session: aiohttp.ClientSession, cache: LocalCache, tokens: Mapping[str, str]) -> None:
        self._session, self._cache, self._tokens = session, cache, tokens

    async def fetch(self, url: str, request: SourceRequest) -> Path | None:
        """Return a copy of the file from the server at `url`, or None if it does not have it.

        Raises RemoteError, IntegrityError for a response that is not what the server promised, StorageError.
        """
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(0.2, max=5),
            retry=tenacity.retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
            reraise=True,
        )
        try:
            data: bytes | None = await retrying(self._attempt, url, request)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RemoteError(f"{url}: {error or 'no answer'}") from error
        return None if data is None else await asyncio.to_thread(write_source, self._cache, request, data, url)

    async def _attempt(self, url: str, request: SourceRequest) -> bytes | None:
        target = URL(f"{url}/buildid/{request.uuid.hex}/source{quote(request.path)}", encoded=True)
        headers = {"Authorization": f"Bearer {self._tokens[url]}"} if url in self._tokens else {}
        async with self._session.get(target, headers=headers) as response:
            if response.status in {401, 403}:
                raise refused(url, response)
            if response.status >= 500 or response.status in {408, 429}:
                failed = RequestFailedError if response.status == 500 else RemoteError
                raise failed(f"{url}: answers {response.status} {response.reason} for {request}")
            if response.status != 200:
                return None
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise IntegrityError(f"{url}: answers in an encoding that was not asked for")
            data = await read_body(response, MAX_SOURCE, f"{url}: {request}")
            _check(data, response.headers, f"{url}: what came for {request}")
            return data


def _check(data: bytes, headers: Mapping[str, str], what: str) -> None:
    """Compare the content with what the server promised. Raises IntegrityError."""
    for name in ("X-Symcache-Size", "X-DEBUGINFOD-SIZE"):
        if (size := whole_number(headers.get(name))) is not None and size != len(data):
            raise IntegrityError(f"{what} has {len(data)} bytes where {size} were promised")
    tag = headers.get("ETag", "").strip('"')
    if "X-Symcache-Version" in headers and len(tag) == 64 and hashlib.sha256(data).hexdigest() != tag:
        raise IntegrityError(f"{what} has another SHA-256 than was promised")
