"""Other servers, asked on a miss: symcache or debuginfod servers, in their order.

What they answer is checked as any client of theirs would (length, hash, UUID in the file), kept in a bounded cache,
and never shadows what the library has: it is asked first.
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

from symcache import __version__
from symcache.client import FetchedImage, Fetcher, LocalCache, split_tokens
from symcache.errors import IntegrityError, RemoteError
from symcache.images import ImageRequest
from symcache_server.http.metrics import UPSTREAM

__all__ = ["Upstreams"]

_MOST_HOPS = 8
"""As debuginfod: a question that came through so many servers is not passed on."""
_MISS_SECONDS = 600.0
_SECONDS = 80.0
"""LLDB gives up after 90."""
_REMEMBERED = 100_000
_AT_ONCE = 32
_ATTEMPTS = 2
_WRONG_SECONDS = 60.0
"""How long what was not what it should be is not fetched again, to find the same."""
_DOWN_SECONDS = 30.0
"""How long a server that could not be reached is not asked: a dump loader does not wait for it 900 times."""
_STATION = re.compile(r"symcache-[0-9a-f]{16}")

_Question = tuple[ImageRequest, frozenset[str]]
"""What is wanted, and the symcache servers that the question came through.

Two servers that ask each other would wait for each other for ever, if a question that came through the other one were
answered by what this one asks it; nor says its answer what it would tell us if we asked by ourselves.
"""


class Upstreams:
    """The servers at `urls`, behind one cache; `identity` is what this server is known by to them."""

    def __init__(self, urls: tuple[str, ...], folder: Path, limit: int, identity: str) -> None:
        self._urls, self._tokens = split_tokens(urls)
        self._identity = identity
        self._cache = LocalCache(folder, limit)
        self._session: aiohttp.ClientSession | None = None
        self._asking: dict[_Question, asyncio.Task[FetchedImage | None]] = {}
        self._misses: OrderedDict[_Question, float] = OrderedDict()
        self._wrong: OrderedDict[_Question, tuple[float, RemoteError]] = OrderedDict()
        self._down: dict[str, tuple[float, str]] = {}
        """Servers that could not be reached: until when they are not asked, and why."""
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """End what is being asked."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def fetch(self, wanted: ImageRequest, asker: web.BaseRequest) -> FetchedImage | None:
        """Return what some server has, or None. Raises RemoteError when none of them could be asked."""
        if found := self._cache.find(wanted):
            UPSTREAM.labels("cached").inc()
            return found
        stations = frozenset(_STATION.findall(",".join(asker.headers.getall("Via", []))))
        question = wanted, stations
        if self._misses.get(question, 0) > time.monotonic() or not self._may_ask(asker, stations):
            return None
        until, error = self._wrong.get(question, (0.0, None))
        if error is not None and until > time.monotonic():
            raise error.with_traceback(None)
        task = self._asking.get(question)
        if task is None:
            # The addresses of everybody who waits are not known; the first one stands for them.
            task = asyncio.create_task(self._ask(question, _passed_on(asker, self._identity)))
            self._asking[question] = task
            task.add_done_callback(lambda done: self._finished(question, done))
        return await asyncio.shield(task)

    def _may_ask(self, asker: web.BaseRequest, stations: frozenset[str]) -> bool:
        """Return whether the question has not come through here already, nor through too many servers."""
        via = ",".join(asker.headers.getall("Via", []))
        hops = max(via.count(",") + bool(via), len(",".join(asker.headers.getall("X-Forwarded-For", [])).split(",")))
        return hops < _MOST_HOPS and f"symcache-{self._identity}" not in stations

    def _finished(self, question: _Question, task: asyncio.Task[FetchedImage | None]) -> None:
        self._asking.pop(question, None)
        if task.cancelled():
            return
        error = task.exception()  # seen: every waiter may have gone
        result = "error" if error else "hit" if task.result() else "miss"
        UPSTREAM.labels(result).inc()
        if result == "miss":
            self._misses[question] = time.monotonic() + _MISS_SECONDS
            if len(self._misses) > _REMEMBERED:
                self._misses.popitem(last=False)
        if isinstance(error, RemoteError) and isinstance(error.__cause__, IntegrityError):
            self._wrong[question] = time.monotonic() + _WRONG_SECONDS, error
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)

    async def _ask(self, question: _Question, headers: Mapping[str, str]) -> FetchedImage | None:
        wanted, stations = question
        suffix = hashlib.sha256(" ".join(sorted(stations)).encode()).hexdigest()[:8] if stations else ""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
                headers={"User-Agent": f"symcache/{__version__}"},
                connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            )
        reasons, answered, wrong = [], False, None
        fetcher = Fetcher(
            self._session, self._cache, headers=headers, tokens=self._tokens, attempts=_ATTEMPTS, part_suffix=suffix
        )
        for url in self._urls:
            try:
                async with asyncio.timeout(_SECONDS / len(self._urls)), self._gate:
                    if reason := self._is_down(url):
                        reasons.append(reason)
                        continue
                    found = await fetcher.fetch(url, wanted, lambda *_: None)
            except (RemoteError, IntegrityError) as error:
                reasons.append(str(error))
                wrong = error if isinstance(error, IntegrityError) else wrong
                if _is_unreachable(error):
                    self._down[url] = time.monotonic() + _DOWN_SECONDS, str(error)
                continue
            except TimeoutError:
                reasons.append(f"{url}: no answer in time")
                continue
            answered = True
            if found is not None:
                await asyncio.to_thread(self._cache.evict)
                return found
        if reasons and not answered:
            raise RemoteError(
                f"no upstream server answers for {wanted}: {reasons[0]}", hint="ask again later"
            ) from wrong
        return None

    def _is_down(self, url: str) -> str:
        """Return why a server is not asked, or nothing if it is."""
        until, reason = self._down.get(url, (0.0, ""))
        return reason if until > time.monotonic() else ""


def _is_unreachable(error: BaseException | None) -> bool:
    """Return whether an error comes from a server that did not even take the connection."""
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return True
        error = error.__cause__
    return False


def _passed_on(asker: web.BaseRequest, identity: str) -> dict[str, str]:
    """Return the headers that tell an upstream server who asks (RFC 9110 7.6.3 for Via)."""
    via = [*asker.headers.getall("Via", []), f"1.1 symcache-{identity}"]
    forwarded = [*asker.headers.getall("X-Forwarded-For", []), asker.remote or "unknown"]
    return {"Via": ", ".join(via), "X-Forwarded-For": ", ".join(forwarded)}
