"""Source files of own binaries, by the binary's UUID and the path that the compiler recorded (debuginfod's `/source/`).

In the local cache a source file is a blob as binaries are, indexed under the key `source-<sha256 of the path>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from symcache.client.local_cache import IndexEntry, LocalCache
from symcache.errors import IntegrityError, RemoteError
from symcache.files import atomic_write
from symcache.images import SourceRequest

if TYPE_CHECKING:
    import aiohttp

__all__ = ["SourceJob", "find_source", "is_source_path"]

MAX_SOURCE = 16 << 20
"""Bytes; what is longer is not taken."""
_MAX_PATH = 4096
_CHUNK = 1 << 16
_AT_ONCE = 8
_ATTEMPTS = 3


def is_source_path(path: str) -> bool:
    """Return whether a path out of debug info can be asked for."""
    return path.startswith("/") and len(path) <= _MAX_PATH and path.isprintable() and not path.endswith("/")


def find_source(cache: LocalCache, wanted: SourceRequest) -> Path | None:
    """Return the cached file, or None. Never asks anybody."""
    entry = cache.entry(wanted.uuid, _key(wanted))
    return cache.blob(entry.sha256) if entry else None


def _publish(cache: LocalCache, wanted: SourceRequest, data: bytes, server: str) -> Path:
    entry = IndexEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data), server=server)
    blob = cache.blob(entry.sha256)
    try:
        blob.parent.mkdir(exist_ok=True)
        with atomic_write(blob, mode=0o444) as part:
            part.write_bytes(data)
        cache.write_entry(wanted.uuid, _key(wanted), entry)
    except OSError as error:
        raise cache.refusal(error) from error
    return blob


def _key(wanted: SourceRequest) -> str:
    return f"source-{hashlib.sha256(wanted.path.encode()).hexdigest()}"


class SourceJob:
    """Downloads of one call. Servers are asked in their order, first answer wins; one that is down is asked once."""

    def __init__(self, urls: Sequence[str], tokens: Mapping[str, str], wanted: Sequence[SourceRequest]) -> None:
        self._urls, self._tokens, self._wanted = urls, tokens, wanted
        self.found: dict[SourceRequest, Path] = {}
        self.problems: dict[str, str] = {}
        """What went wrong, by server."""
        self.answered = False
        self._down: set[str] = set()

    async def run(self, cache: LocalCache, session: Callable[[], aiohttp.ClientSession]) -> None:
        """Fetch everything. Raises StorageError."""
        import asyncio  # noqa: PLC0415 - see symcache.client

        from symcache.client.tasks import all_done  # noqa: PLC0415

        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(wanted: SourceRequest) -> None:
            async with gate:
                for url in self._urls:
                    if url not in self._down and (data := await self._ask(session(), url, wanted)) is not None:
                        self.found[wanted] = await asyncio.to_thread(_publish, cache, wanted, data, url)
                        return

        await all_done(one(wanted) for wanted in self._wanted)

    async def _ask(self, session: aiohttp.ClientSession, url: str, wanted: SourceRequest) -> bytes | None:
        import aiohttp  # noqa: PLC0415 - see symcache.client
        import tenacity  # noqa: PLC0415

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(0.2, max=5),
            retry=tenacity.retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
            reraise=True,
        )
        try:
            data: bytes | None = await retrying(self._attempt, session, url, wanted)
        except IntegrityError as error:
            self.problems[url], self.answered = str(error), True
            return None
        except (aiohttp.ClientError, TimeoutError, RemoteError) as error:
            self._down.add(url)
            self.problems[url] = str(error) if isinstance(error, RemoteError) else f"{url}: {error or 'no answer'}"
            return None
        self.answered = True
        return data

    async def _attempt(self, session: aiohttp.ClientSession, url: str, wanted: SourceRequest) -> bytes | None:
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        target = URL(f"{url}/buildid/{wanted.uuid.hex}/source{quote(wanted.path)}", encoded=True)
        headers = {"Accept-Encoding": "identity"}
        if url in self._tokens:
            headers["Authorization"] = f"Bearer {self._tokens[url]}"
        async with session.get(target, headers=headers) as response:
            if response.status in {401, 403}:
                raise RemoteError(
                    f"{url}: does not let us read: {response.status} {response.reason}",
                    hint="put a token into the URL: https://any:TOKEN@host",
                )
            if response.status >= 500 or response.status in {408, 429}:
                raise RemoteError(f"{url}: answers {response.status} {response.reason} for {wanted}")
            if response.status != 200:
                return None
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise IntegrityError(f"{url}: answers in an encoding that was not asked for")
            data = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                data += chunk
                if len(data) > MAX_SOURCE:
                    raise IntegrityError(f"{url}: more than {MAX_SOURCE} bytes come for {wanted}")
            _check(bytes(data), response.headers, f"{url}: what came for {wanted}")
            return bytes(data)


def _check(data: bytes, headers: Mapping[str, str], what: str) -> None:
    """Hold the content against what the server promised. Raises IntegrityError."""
    for name in ("X-Symcache-Size", "X-DEBUGINFOD-SIZE"):
        if (text := headers.get(name, "")).isdigit() and text != str(len(data)):
            raise IntegrityError(f"{what} has {len(data)} bytes where {text[:20]} were promised")
    tag = headers.get("ETag", "").strip('"')
    if "X-Symcache-Version" in headers and len(tag) == 64 and hashlib.sha256(data).hexdigest() != tag:
        raise IntegrityError(f"{what} has another SHA-256 than was promised")
