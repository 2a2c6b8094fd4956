"""The library as a source of binaries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from symcache.client import LocalCache
from symcache.images import ImageFile, ImageRequest
from symcache.kinds import Kind
from symcache.library import Library
from symcache.resolve.model import CacheGuess, Progress

__all__ = ["LibraryResolver"]


class LibraryResolver:
    """Finds modules in a library; contents are unpacked once, into the local cache and under its limit."""

    def __init__(self, library: Library, cache: LocalCache, *, only_unpacked: bool = False) -> None:
        """`only_unpacked`: nothing is read out of the library but what it holds."""
        self._library, self._cache, self._only_unpacked = library, cache, only_unpacked
        self._unpacked = False

    def resolve(
        self, requests: Sequence[ImageRequest], progress: Progress | None = None
    ) -> dict[ImageRequest, ImageFile]:
        """See `ModuleResolver.resolve`."""
        occurrences = self._library.holdings(list({r.uuid for r in requests}))
        known = [r for r in requests if any(o.kind is r.kind for o in occurrences.get(r.uuid, ()))]
        files: dict[ImageRequest, ImageFile] = {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 2), thread_name_prefix="unpack") as pool:
            for done, (request, file) in enumerate(zip(known, pool.map(self._unpack, known), strict=True), 1):
                if file:
                    files[request] = file
                if progress:
                    progress(done, len(requests))
        if self._unpacked:
            self._cache.evict()
            self._unpacked = False
        return files

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        """See `ModuleResolver.guess_caches`."""
        images: Counter[UUID] = Counter()
        builds: dict[UUID, str | None] = {}
        for occurrences in self._library.holdings(list(loads)).values():
            for cache in {o.cache_uuid for o in occurrences if o.cache_uuid and o.kind is Kind.EXECUTABLE}:
                images[cache] += 1
            for o in occurrences:
                if o.cache_uuid and o.build:
                    builds.setdefault(o.cache_uuid, o.build)
        ranked = sorted(images.items(), key=lambda item: (-item[1], item[0].hex))
        return [CacheGuess(cache, builds.get(cache), count) for cache, count in ranked]

    def _unpack(self, request: ImageRequest) -> ImageFile | None:
        """Return the image, unpacked in the local cache, or None if the library does not have it."""
        image = self._library.resolve(request)
        if image is None:
            return None
        target = self._cache.stored(image.sha256, image.size)
        if target is None:
            if self._only_unpacked:
                return None
            target = self._cache.blob(image.sha256)
            self._library.materialize(image.sha256, image.size, target)
            target.chmod(0o444)
            self._unpacked = True
        origin = f"library {self._library.store.location}"
        return ImageFile(target, origin, image.build, image.cache_uuid, sha256=image.sha256)
