"""Having contents again from servers, for `symcache.library.repair`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from symcache.catalog import Occurrence
from symcache.client.client import SymbolClient
from symcache.images import ImageRequest
from symcache.library import Fetch

__all__ = ["fetch_from"]


def fetch_from(urls: Sequence[str], headers: Mapping[str, str] | None = None) -> Fetch:
    """Return what fetches an image from the first of these servers that has it; `headers` go with each request."""

    def fetch(wanted: Occurrence, folder: Path) -> Path | None:
        if wanted.uuid is None:
            return None
        request = ImageRequest(wanted.uuid, wanted.kind, cache=wanted.cache_uuid)
        with SymbolClient(urls, folder, headers=headers) as client:
            found = client.fetch_many([request]).get(request)
        return found.path if found else None

    return fetch
