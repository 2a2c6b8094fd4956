"""Lets another program send a body: nginx by an internal redirect, or the object store by a presigned URL.

Either only replaces the way that the bytes take: which content is sent, and every precondition and range, is decided
here as always. nginx gets the name of a file that has been decoded or proven before. A presigned URL is to the object
as it lies in the store, which this server has not read: zstd's own checksum and the client's check stand behind it.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from symcache.store import SigningStore, Store, blob_key
from symcache_server.config import ServerConfig
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.content import OffloadedBody
from symcache_server.http.limits import is_proxy
from symcache_server.http.plan import Transfer

__all__ = ["Offload"]

_URL_SECONDS = 3600.0
_REMEMBERED = 200_000
_PLAIN_RANGE = re.compile(r"bytes=[0-9]{0,15}-[0-9]{0,15}")
"""What nginx and `parse_range` understand alike."""
_CONDITIONS = (hdrs.IF_MATCH, hdrs.IF_UNMODIFIED_SINCE, hdrs.IF_MODIFIED_SINCE)
"""Have been dealt with, but whoever sends the body would deal with them again, by another validator."""


class Offload:
    """Decides who sends a body."""

    def __init__(self, config: ServerConfig, store: Store, decoded: DecodedCache) -> None:
        self._prefix, self._proxies = config.x_accel, frozenset(config.trusted_proxies)
        self._store = store if config.redirect_to_store and isinstance(store, SigningStore) else None
        self._decoded = decoded
        self._labelled: OrderedDict[str, bool] = OrderedDict()

    async def redirect(self, request: web.BaseRequest, transfer: Transfer) -> web.Response | None:
        """Return a redirect to the object that holds the stored form, or None."""
        sha256 = transfer.content.sha256
        if self._store is None or _has_conditions(request) or not await self._is_labelled(self._store, sha256):
            return None
        url = await asyncio.to_thread(self._store.presigned, blob_key(sha256), _URL_SECONDS)
        dropped = {"Content-Encoding", "Content-Type", "Accept-Ranges"}
        kept = {name: value for name, value in transfer.headers.items() if name not in dropped}
        elsewhere = {"Location": url, "X-Symcache-Redirect-Host": urlsplit(url).hostname or ""}
        return web.Response(status=307, headers=kept | elsewhere | {"Cache-Control": "no-store"})

    def handover(self, request: web.BaseRequest, transfer: Transfer) -> web.Response | None:
        """Return the response that names a file to nginx, or None."""
        if not self._prefix or _has_conditions(request):
            return None
        if not is_proxy(request.remote or "", self._proxies):
            return None  # others would get no body at all
        field, partial = request.headers.get(hdrs.RANGE), transfer.status == HTTPStatus.PARTIAL_CONTENT
        if field is not None and not (partial and _PLAIN_RANGE.fullmatch(field)):
            return None
        name = self._decoded.name(transfer.content.sha256, stored=transfer.zstd)
        return OffloadedBody(transfer.headers | {"X-Accel-Redirect": f"{self._prefix}/{name}"}, transfer.count)

    async def _is_labelled(self, store: SigningStore, sha256: str) -> bool:
        """Return whether the object says that it is zstd: older ones do not, and would be taken for the content."""
        known = self._labelled.get(sha256)
        if known is None:
            known = await asyncio.to_thread(store.encoding, blob_key(sha256)) == "zstd"
            self._labelled[sha256] = known
            if len(self._labelled) > _REMEMBERED:
                self._labelled.popitem(last=False)
        return known


def _has_conditions(request: web.BaseRequest) -> bool:
    return any(name in request.headers for name in _CONDITIONS)
