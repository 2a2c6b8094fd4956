"""From a look-up to the content that is sent: what the library has, or else another server."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from aiohttp import web

from symcache.client import FetchedImage
from symcache.images import ImageRequest
from symcache.library import Found, Library
from symcache.store import LocalStore
from symcache_server.lookup.upstreams import Upstreams
from symcache_server.lookup.uses import UseLog

__all__ = ["Resolver"]

_REMEMBERED = 200_000
"""Results kept in memory, until the catalog changes."""


class Resolver:
    """Look-ups in one library, and in `upstreams`."""

    def __init__(self, library: Library, upstreams: Upstreams | None = None, uses: UseLog | None = None) -> None:
        """`uses` is told which builds are served."""
        self._library, self._upstreams, self._uses = library, upstreams, uses
        self._results: OrderedDict[ImageRequest, Found | None] = OrderedDict()
        self._age = 0
        """How often `forget` was called."""
        self._remote = not isinstance(library.store, LocalStore)

    @property
    def has_upstreams(self) -> bool:
        """Whether there are other servers to request from."""
        return self._upstreams is not None

    async def close(self) -> None:
        """End the requests to other servers."""
        if self._upstreams is not None:
            await self._upstreams.close()

    async def resolve(self, image: ImageRequest) -> Found | None:
        """Return the content of the library that is requested, from memory if the catalog has not changed since.

        A pin chooses among the contents that shared caches or releases give a UUID. What lies in no shared cache, or
        belongs to no release, is the same under every pin: a debugger that is pinned by its base URL still finds its
        own program.
        """
        result = await self._remembered(image)
        if result is not None and self._uses is not None:
            self._uses.add([result.occurrence.build])
        return result

    async def _remembered(self, image: ImageRequest) -> Found | None:
        try:
            return self._results[image]
        except KeyError:
            pass
        # A look-up in SQLite takes less time than reaching a thread; a store on the network takes longer.
        while True:
            age = self._age
            result = await asyncio.to_thread(self._resolve, image) if self._remote else self._resolve(image)
            if age == self._age:  # else the library has changed meanwhile
                break
        self._results[image] = result
        if len(self._results) > _REMEMBERED:
            self._results.popitem(last=False)
        return result

    def _resolve(self, image: ImageRequest) -> Found | None:
        return self._library.resolve(image, or_unbound=True)

    async def fetch(self, image: ImageRequest, request: web.BaseRequest) -> FetchedImage | None:
        """Return what another server has, or None. Raises RemoteError when it may be there and none can be reached.

        Other servers are trusted least: no request is sent to them where the library itself has a say about the UUID.
        Where it knows it from other caches or releases only, what they have counts if it is of the requested one.
        """
        if self._upstreams is None or self._library.has_a_say(image):
            return None
        fetched = await self._upstreams.fetch(image, request)
        if fetched is None or not self._library.variants(image.uuid):
            return fetched
        bound = image.cache in {None, fetched.cache_uuid} and image.build in {None, fetched.build}
        return fetched if bound else None

    def upstream_states(self) -> list[dict[str, str]]:
        """Return `url` of each other server, without its token, and `problem`: why it is left out at the moment."""
        return self._upstreams.states() if self._upstreams is not None else []

    def forget(self) -> None:
        """Drop remembered results: the library has changed."""
        self._age += 1
        self._results.clear()
