"""Extracting copied caches with our own extractor, while other files are still being copied."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from symcache.dyld import ExtractReport, SharedCache, extract_all
from symcache_provisioning.progress import HarvestProgress

__all__ = ["Extraction", "Extractions"]

_POLL_SECONDS = 0.2


class _StoppedError(Exception):
    """The harvest has ended, so the result is not needed any more."""


class Extraction:
    """One cache that is being extracted, or is queued."""

    def __init__(self, cache: SharedCache, output: Path, stop: threading.Event) -> None:
        self.cache, self.output = cache, output
        self.done = 0
        self._stop = stop
        self._future: Future[ExtractReport] | None = None

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Queue it."""
        self._future = pool.submit(self._run)

    def _run(self) -> ExtractReport:
        self._progressed(0, 0)
        return extract_all(self.cache, self.output, progress=self._progressed)

    def _progressed(self, done: int, total: int) -> None:
        del total
        if self._stop.is_set():
            raise _StoppedError
        self.done = done

    def result(self, progress: HarvestProgress) -> ExtractReport:
        """Wait for the end, and return the report. Raises what `extract_all` raises."""
        if self._future is None:
            raise RuntimeError("the extraction was never started")
        if not self._future.done():
            progress.step(f"extracting {self.cache.path.name}", unit="things", total=len(self.cache.images))
        while not wait([self._future], _POLL_SECONDS).done:
            progress.advance(self.done)
        return self._future.result()


class Extractions:
    """Extracts one cache after the other, each on all cores; a context manager, which stops them at its end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="extraction")
        self._caches: list[SharedCache] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for cache in self._caches:
            cache.close()

    def start(self, cache: SharedCache, output: Path) -> Extraction:
        """Queue a cache, which is closed when this context ends."""
        self._caches.append(cache)
        extraction = Extraction(cache, output, self._stop)
        extraction.start(self._pool)
        return extraction
