"""Headers that say which content a response holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from aiohttp import web

from symcache.client import FetchedImage
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.model import uuid_text
from symcache_server.http.content import MISSING, REVALIDATE, header_text

__all__ = ["fetched_headers", "image_headers", "not_found", "size_headers"]


def size_headers(size: int) -> dict[str, str]:
    """Return the headers that say the size of a decoded content in bytes; debuginfod's clients show it."""
    return {"X-Symcache-Size": str(size), "X-DEBUGINFOD-SIZE": str(size)}


@lru_cache(1 << 14)
def image_headers(image: Found) -> Mapping[str, str]:
    """Return the headers of an image of the library."""
    headers = {
        "X-Symcache-Uuid": uuid_text(image.uuid) if image.uuid else "",
        "X-Symcache-Kind": image.kind.value,
        "X-Symcache-Arch": header_text(image.arch),
        "X-Symcache-Size": str(image.size),
        "X-Symcache-Path": header_text(image.path),
        "X-DEBUGINFOD-SIZE": str(image.size),
        "X-DEBUGINFOD-FILE": header_text(image.name),
    }
    if image.build:
        headers["X-Symcache-Build"] = image.build
    if image.cache_uuid:
        headers["X-Symcache-Cache"] = uuid_text(image.cache_uuid)
    return headers


def fetched_headers(image: ImageRequest, fetched: FetchedImage) -> dict[str, str]:
    """Return the headers of an image that an upstream server has."""
    headers = {
        "X-Symcache-Uuid": uuid_text(image.uuid),
        "X-Symcache-Kind": image.kind.value,
        "X-Symcache-Size": str(fetched.size),
        "X-Symcache-Upstream": header_text(fetched.origin),
        "X-DEBUGINFOD-SIZE": str(fetched.size),
        "Cache-Control": REVALIDATE,
    }
    if fetched.build:
        headers["X-Symcache-Build"] = fetched.build
    if fetched.cache_uuid:
        headers["X-Symcache-Cache"] = uuid_text(fetched.cache_uuid)
    return headers


def not_found(reason: str) -> web.Response:
    """Return a 404 that caches may keep for a minute."""
    return web.Response(status=404, text=reason + "\n", headers={"Cache-Control": MISSING})
