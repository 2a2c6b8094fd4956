"""Finds the shared caches whose layout is exactly that of a process.

An unchanged image has the same UUID in the shared caches of many builds, but each cache lays it out at addresses of its
own, and dyld moves a whole cache by one slide. So the load addresses of a few dozen images tell caches apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from symcache.catalog import Occurrence
from symcache.library import Library
from symcache.macho import text_address
from symcache.model import Kind
from symcache_server.lookup.heads import read_head

__all__ = ["CacheMatch", "CacheMatcher"]

_HEAD = 32 << 10
_PAGE = 1 << 12
"""dyld slides by whole pages, of 4 KiB at least."""
_REMEMBERED = 500_000


@dataclass(frozen=True, slots=True)
class CacheMatch:
    """The caches that fit, sorted; `slide` in bytes where exactly one does."""

    caches: tuple[UUID, ...]
    slide: int | None


class CacheMatcher:
    """Compares load addresses with the unslid addresses of a library's images, read from their headers on demand."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._addresses: OrderedDict[str, int | None] = OrderedDict()
        self._lock = Lock()

    def match(self, loads: Mapping[UUID, int], contents: Mapping[UUID, Sequence[Occurrence]]) -> CacheMatch:
        """Return the caches in which every image of `loads` that lies in any cache lies, all of them moved alike.

        `loads` are the addresses of the images' headers in the process, `contents` what the library has of them. Images
        that lie in no cache, such as the program itself, say nothing and are passed over.
        """
        slides: dict[UUID, set[int | None]] = {}
        known = 0
        for uuid, load in loads.items():
            images: dict[UUID, Occurrence] = {}
            for o in contents.get(uuid, ()):
                if o.cache_uuid is not None and o.kind is Kind.EXECUTABLE:
                    images.setdefault(o.cache_uuid, o)
            if not images:
                continue
            if not known:
                slides = {cache: set() for cache in images}
            known += 1
            # A missing image or a second slide rules a cache out; its other images need not be read.
            slides = {cache: seen for cache, seen in slides.items() if cache in images}
            for cache, seen in list(slides.items()):
                address = self._address(images[cache])
                seen.add(None if address is None else load - address)
                if len(seen) > 1 or None in seen or any(s is None or s < 0 or s % _PAGE for s in seen):
                    del slides[cache]
        fitting = sorted(slides)
        slide = next(iter(slides[fitting[0]]), None) if len(fitting) == 1 else None
        return CacheMatch(tuple(fitting), slide)

    def _address(self, image: Occurrence) -> int | None:
        with self._lock:
            if image.sha256 in self._addresses:
                return self._addresses[image.sha256]
        address = text_address(read_head(self._library, image.sha256, _HEAD))
        with self._lock:
            self._addresses[image.sha256] = address
            if len(self._addresses) > _REMEMBERED:
                self._addresses.popitem(last=False)
        return address
