"""Extracting copied caches with our own extractor, while other files are still being copied."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

from symcache.dyld import ExtractReport, SharedCache, extract_all
from symcache_provisioning.progress import HarvestProgress

__all__ = ["Extraction", "Extractions"]

_POLL_SECONDS = 0.2


class _StoppedError(Exception):
    """The harvest has ended, so the result is not needed any more."""


class Extraction:
    """One cache that is being extracted, or is queued."""

    def __init__(self, cache: SharedCache, output: Path, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        self.cache = cache
        self._stop = stop
        self._done = 0
        self._future: Future[ExtractReport] = pool.submit(self._run, output)

    def _run(self, output: Path) -> ExtractReport:
        self._progressed(0, 0)
        return extract_all(self.cache, output, progress=self._progressed)

    def _progressed(self, done: int, total: int) -> None:
        del total
        if self._stop.is_set():
            raise _StoppedError
        self._done = done

    def result(self, progress: HarvestProgress) -> ExtractReport:
        """Wait for the end, and return the report. Raises what `extract_all` raises."""
        if not self._future.done():
            progress.step(f"extracting {self.cache.path.name}", unit="things", total=len(self.cache.images))
        while not wait([self._future], _POLL_SECONDS).done:
            progress.advance(self._done)
        return self._future.result()


class Extractions:
    """Extracts one cache after the other, each on all cores; a context manager, which stops them at its end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="extraction")
        self._caches: list[SharedCache] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for cache in self._caches:
            cache.close()

    def start(self, cache: SharedCache, output: Path) -> Extraction:
        """Queue a cache, which is closed when this context ends."""
        self._caches.append(cache)
        return Extraction(cache, output, self._pool, self._stop)
