"""Other servers, for what the library does not have: symcache or debuginfod servers, in their order.

Their responses are checked as any client of theirs would (length, hash, UUID in the file), and kept in a bounded cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from symcache.client import FetchedImage, Fetcher, LocalCache, http_session, split_tokens
from symcache.errors import IntegrityError, RemoteError
from symcache.images import ImageRequest
from symcache_server.files.checked import Proofs
from symcache_server.http.metrics import UPSTREAM

__all__ = ["Upstreams", "came_through", "station"]

_MOST_HOPS = 8
"""A request that came through so many servers is not passed on, as with debuginfod."""
_MISS_SECONDS = 600.0
_SECONDS = 80.0
"""LLDB gives up after 90."""
_REMEMBERED = 100_000
_AT_ONCE = 32
_ATTEMPTS = 2
_WRONG_SECONDS = 60.0
"""How long a response that failed its check is not fetched again."""
_DOWN_SECONDS = 30.0
"""How long a server that could not be reached is left out: a dump loader does not wait for it 900 times."""
_STATION = re.compile(r"symcache-[0-9a-f]{16}")

_Key = tuple[ImageRequest, frozenset[str]]
"""What is requested, and the symcache servers that the request came through.

Two servers that are upstream of each other would wait for each other for ever, if a request that came through the other
one joined one that is on its way there; nor would its response be the one to a request of our own.
"""


class Upstreams:
    """The servers at `urls`, behind one cache; `identity` is what this server is known by to them."""

    def __init__(self, urls: tuple[str, ...], folder: Path, limit: int, identity: str) -> None:
        self._urls, self._tokens = split_tokens(urls)
        self._identity = identity
        self._cache, self._proofs = LocalCache(folder, limit), Proofs(folder / "blobs", "upstream")
        self._session: aiohttp.ClientSession | None = None
        self._running: dict[_Key, asyncio.Task[FetchedImage | None]] = {}
        self._misses: OrderedDict[_Key, float] = OrderedDict()
        self._wrong: OrderedDict[_Key, tuple[float, RemoteError]] = OrderedDict()
        self._down: dict[str, tuple[float, str]] = {}
        """Servers that could not be reached: until when they are left out, and why."""
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """End the requests that are under way."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def fetch(self, image: ImageRequest, request: web.BaseRequest) -> FetchedImage | None:
        """Return what some server has, or None. Raises RemoteError when none of them could be reached."""
        if (cached := await asyncio.to_thread(self._cache.find, image)) and await self._is_intact(cached):
            UPSTREAM.labels("cached").inc()
            return cached
        stations = _stations(request)
        key = image, stations
        if self._misses.get(key, 0) > time.monotonic() or not self._may_pass_on(request):
            return None
        until, error = self._wrong.get(key, (0.0, None))
        if error is not None and until > time.monotonic():
            raise error.with_traceback(None)
        task = self._running.get(key)
        if task is None:
            # Only the first client's headers are passed on; others may join while the request is under way.
            task = asyncio.create_task(self._request(key, _passed_on(request, self._identity)))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def _is_intact(self, cached: FetchedImage) -> bool:
        """Return whether a cached file is what was fetched; what is not is put aside."""
        try:
            status = cached.path.stat()
        except FileNotFoundError:
            return False  # evicted
        if self._proofs.hold(str(cached.path), status):
            return True
        return await asyncio.to_thread(self._proofs.check, cached.path, cached.sha256)

    def _may_pass_on(self, request: web.BaseRequest) -> bool:
        """Return whether the request has not come through here already, nor through too many servers."""
        via = ",".join(request.headers.getall("Via", []))
        hops = max(via.count(",") + bool(via), len(",".join(request.headers.getall("X-Forwarded-For", [])).split(",")))
        return hops < _MOST_HOPS and not came_through(request, self._identity)

    def _finished(self, key: _Key, task: asyncio.Task[FetchedImage | None]) -> None:
        self._running.pop(key, None)
        if task.cancelled():
            return
        error = task.exception()  # seen: every waiter may have gone
        result = "error" if error else "hit" if task.result() else "miss"
        UPSTREAM.labels(result).inc()
        if result == "miss":
            self._misses[key] = time.monotonic() + _MISS_SECONDS
            if len(self._misses) > _REMEMBERED:
                self._misses.popitem(last=False)
        if isinstance(error, RemoteError) and isinstance(error.__cause__, IntegrityError):
            self._wrong[key] = time.monotonic() + _WRONG_SECONDS, error
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)

    async def _request(self, key: _Key, headers: Mapping[str, str]) -> FetchedImage | None:
        image, stations = key
        via = hashlib.sha256(" ".join(sorted(stations)).encode()).hexdigest()[:8] if stations else ""
        if self._session is None:
            self._session = http_session(connections=_AT_ONCE, connect_seconds=5, read_seconds=60)
        reasons, reached, wrong = [], False, None
        fetcher = Fetcher(
            self._session, self._cache, headers=headers, tokens=self._tokens, attempts=_ATTEMPTS, part_suffix=via
        )
        for url in self._urls:
            try:
                async with asyncio.timeout(_SECONDS / len(self._urls)), self._gate:
                    if reason := self._is_down(url):
                        reasons.append(reason)
                        continue
                    fetched = await fetcher.fetch(url, image, lambda *_: None)
            except (RemoteError, IntegrityError) as error:
                reasons.append(str(error))
                wrong = error if isinstance(error, IntegrityError) else wrong
                if _is_unreachable(error):
                    self._down[url] = time.monotonic() + _DOWN_SECONDS, str(error)
                continue
            except TimeoutError:
                reasons.append(f"{url}: no answer in time")
                continue
            reached = True
            if fetched is not None:
                await asyncio.to_thread(self._cache.evict)
                return fetched
        if reasons and not reached:
            raise RemoteError(
                f"no upstream server answers for {image}: {reasons[0]}", hint="ask again later"
            ) from wrong
        return None

    def states(self) -> list[dict[str, str]]:
        """Return `url` of each server, without its token, and `problem`: why it is left out at the moment."""
        return [{"url": url, "problem": self._is_down(url)} for url in self._urls]

    def _is_down(self, url: str) -> str:
        """Return why no request is sent to a server, or an empty string."""
        until, reason = self._down.get(url, (0.0, ""))
        return reason if until > time.monotonic() else ""


def station(identity: str) -> str:
    """Return the field Via (RFC 9110 7.6.3) of a request that the server of this identity passes on."""
    return f"1.1 symcache-{identity}"


def came_through(request: web.BaseRequest, identity: str) -> bool:
    """Return whether a request was passed on by the server of this identity: then it waits for the response."""
    return f"symcache-{identity}" in _stations(request)


def _stations(request: web.BaseRequest) -> frozenset[str]:
    """Return the symcache servers that a request came through."""
    return frozenset(_STATION.findall(",".join(request.headers.getall("Via", []))))


def _is_unreachable(error: BaseException | None) -> bool:
    """Return whether an error comes from a server that did not even take the connection, or from a proxy."""
    while error is not None:
        if isinstance(
            error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ClientHttpProxyError
        ):
            return True
        error = error.__cause__
    return False


def _passed_on(request: web.BaseRequest, identity: str) -> dict[str, str]:
    """Return the headers that tell an upstream server whose request it is (RFC 9110 7.6.3 for Via)."""
    via = [*request.headers.getall("Via", []), station(identity)]
    forwarded = [*request.headers.getall("X-Forwarded-For", []), request.remote or "unknown"]
    return {"Via": ", ".join(via), "X-Forwarded-For": ", ".join(forwarded)}
