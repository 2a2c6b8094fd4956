"""Images of copied caches into the store by our own extractor, while other files are still being copied."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Self

from symcache.dyld import SharedCache
from symcache.errors import StorageError
from symcache.library import CacheImages, Storing, store_images
from symcache_provisioning.progress import Whole
from symcache_provisioning.staging import Journal

__all__ = ["Extraction", "Extractions"]

_POLL_SECONDS = 0.2


class _StoppedError(Exception):
    """The harvest has ended, so the result is not needed any more."""


class Extraction:
    """One cache whose images are being stored, or that is queued."""

    def __init__(self, cache: SharedCache, future: Future[CacheImages], progress: Whole) -> None:
        self.cache = cache
        self._future, self._progress = future, progress

    def result(self) -> CacheImages:
        """Wait for the end, and return what became of the images. Raises what `store_images` raises."""
        if not self._future.done():
            self._progress.step(f"extracting {self.cache.path.name}")
        while not wait([self._future], _POLL_SECONDS).done:
            self._progress.report()
        return self._future.result()


class Extractions:
    """Stores the images of one cache after the other, each on all cores; a context, which stops them at its end."""

    def __init__(self, storing: Storing, progress: Whole) -> None:
        self._storing, self._progress = storing, progress
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="extraction")
        self._caches: list[SharedCache] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            self._storing.done.stopped.set()  # processes end in the middle of a batch
        self._pool.shutdown(cancel_futures=True)
        for cache in self._caches:
            cache.close()

    def start(
        self, cache: SharedCache, indexes: Sequence[int], journal: Journal, *, size: int, whole: bool
    ) -> Extraction:
        """Queue images of a cache of `size` bytes, closed when this context ends. `whole`: see `store_images`."""
        self._caches.append(cache)
        future = self._pool.submit(self._store, cache, indexes, journal, size / max(1, len(indexes)), whole)
        return Extraction(cache, future, self._progress)

    def _store(
        self, cache: SharedCache, indexes: Sequence[int], journal: Journal, share: float, whole: bool
    ) -> CacheImages:
        found = CacheImages()
        made = store_images(self._storing, cache, indexes, whole=whole, known=journal.rows, note=journal.note)
        try:
            with closing(made):  # at once: an error that is raised keeps it, and its processes would go on
                for some in made:
                    if self._storing.done.stopped.is_set():
                        raise _StoppedError
                    found.stored |= some.stored
                    found.failed |= some.failed
                    done = len(some.stored) + len(some.failed)
                    self._progress.made(done, done * share)
        except StorageError as error:
            self._storing.refuse(error)  # nothing more needs to be copied
            raise
        return found
