"""Other servers, asked on a miss: symcache or debuginfod servers, in their order.

What they answer is checked as any client of theirs would (length, hash, UUID in the file), kept in a bounded cache,
and never shadows what the library has: it is asked first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from server.metrics import UPSTREAM
from symcache import __version__
from symcache.client import FetchedSymbol, Fetcher, LocalCache, SymbolRequest, split_tokens
from symcache.errors import IntegrityError, RemoteError

__all__ = ["Upstreams"]

_MOST_HOPS = 8
"""As debuginfod: a question that came through so many servers is not passed on."""
_MISS_SECONDS = 600.0
_SECONDS = 80.0
"""LLDB gives up after 90."""
_REMEMBERED = 100_000
_AT_ONCE = 32


class Upstreams:
    """The servers at `urls`, behind one cache; `identity` is what this server is known by to them."""

    def __init__(self, urls: tuple[str, ...], folder: Path, limit: int, identity: str) -> None:
        self._urls, self._tokens = split_tokens(urls)
        self._identity = identity
        self._cache = LocalCache(folder, limit)
        self._session: aiohttp.ClientSession | None = None
        self._asking: dict[SymbolRequest, asyncio.Task[FetchedSymbol | None]] = {}
        self._misses: OrderedDict[SymbolRequest, float] = OrderedDict()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """End what is being asked."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def fetch(self, wanted: SymbolRequest, asker: web.BaseRequest) -> FetchedSymbol | None:
        """Return what some server has, or None. Raises RemoteError when none of them could be asked."""
        if found := self._cache.find(wanted):
            UPSTREAM.labels("cached").inc()
            return found
        if self._misses.get(wanted, 0) > time.monotonic() or not self._may_ask(asker):
            return None
        task = self._asking.get(wanted)
        if task is None:
            # The addresses of everybody who waits are not known; the first one stands for them.
            task = asyncio.create_task(self._ask(wanted, _passed_on(asker, self._identity)))
            self._asking[wanted] = task
            task.add_done_callback(lambda done: self._finished(wanted, done))
        return await asyncio.shield(task)

    def _may_ask(self, asker: web.BaseRequest) -> bool:
        """Return whether the question has not come through here already, nor through too many servers."""
        via = ",".join(asker.headers.getall("Via", []))
        hops = max(via.count(",") + bool(via), len(",".join(asker.headers.getall("X-Forwarded-For", [])).split(",")))
        return hops < _MOST_HOPS and f"symcache-{self._identity}" not in via

    def _finished(self, wanted: SymbolRequest, task: asyncio.Task[FetchedSymbol | None]) -> None:
        self._asking.pop(wanted, None)
        if task.cancelled():
            return
        error = task.exception()  # seen: every waiter may have gone
        result = "error" if error else "hit" if task.result() else "miss"
        UPSTREAM.labels(result).inc()
        if result == "miss":
            self._misses[wanted] = time.monotonic() + _MISS_SECONDS
            if len(self._misses) > _REMEMBERED:
                self._misses.popitem(last=False)

    async def _ask(self, wanted: SymbolRequest, headers: Mapping[str, str]) -> FetchedSymbol | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
                headers={"User-Agent": f"symcache/{__version__}"},
                connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            )
        reasons, answered = [], False
        for url in self._urls:
            try:
                async with self._gate, asyncio.timeout(_SECONDS / len(self._urls)):
                    fetcher = Fetcher(self._session, self._cache, headers=headers, tokens=self._tokens)
                    found = await fetcher.fetch(url, wanted, lambda *_: None)
            except (RemoteError, IntegrityError) as error:
                reasons.append(str(error))
                continue
            except TimeoutError:
                reasons.append(f"{url}: no answer in time")
                continue
            answered = True
            if found is not None:
                await asyncio.to_thread(self._cache.evict)
                return found
        if reasons and not answered:
            raise RemoteError(f"no upstream server answers for {wanted}: {reasons[0]}", hint="ask again later")
        return None


def _passed_on(asker: web.BaseRequest, identity: str) -> dict[str, str]:
    """Return the headers that tell an upstream server who asks (RFC 9110 7.6.3 for Via)."""
    via = [*asker.headers.getall("Via", []), f"1.1 symcache-{identity}"]
    forwarded = [*asker.headers.getall("X-Forwarded-For", []), asker.remote or "unknown"]
    return {"Via": ", ".join(via), "X-Forwarded-For": ", ".join(forwarded)}
