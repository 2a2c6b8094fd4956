"""Images out of a cache into files: one, or all of them over processes."""

from __future__ import annotations

import fnmatch
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.image_writer import Extractor, NewImage
from symcache.dyld.output import safe_parts, write_file
from symcache.errors import StorageError, SymcacheError

__all__ = ["EXTRACTOR", "REVISION", "ExtractReport", "Extracted", "Failed", "extract_all", "extract_image"]

EXTRACTOR = "symcache"
"""What records name as the maker of these files."""
REVISION = 1
"""Counts changes of the output: a later revision supersedes an earlier one."""
_BATCH = 48
"""Images that a worker takes at a time: enough pages to decode side by side, few enough to share the work evenly."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """One file that was written. `size` in bytes."""

    path: str
    uuid: UUID | None
    arch: str
    file: Path
    size: int
    unbacked: int = 0
    """Bytes of its segments that no file of the cache backs: they are zero here."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One image that could not be extracted, and why."""

    path: str
    uuid: UUID | None
    reason: str


@dataclass
class ExtractReport:
    """What became of every image that was asked for."""

    extracted: list[Extracted] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes written."""
        return sum(e.size for e in self.extracted)


def extract_image(cache: SharedCache, image: Image, target: Path) -> Extracted:
    """Extract one image to the file `target`. Raises SharedCacheError, StorageError."""
    made = Extractor(cache).one(image)
    return _write(made, target.parent, [target.name])


def extract_all(
    cache: SharedCache,
    output: Path,
    *,
    image: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Extract every image, or those whose path or name matches the glob `image`, to their paths below `output`.

    One bad image is named in `failed`; the others go on. Raises StorageError when the output cannot be written.
    `progress` is called with (images done, images in all). Without `jobs`, one process a core is used.
    """
    chosen = [
        i
        for i in cache.images
        if image is None or fnmatch.fnmatchcase(i.path, image) or fnmatch.fnmatchcase(i.path.rpartition("/")[2], image)
    ]
    report = ExtractReport()
    # By address: neighbours share pages and the window of the file that is in memory.
    ordered = sorted(chosen, key=lambda i: i.address)
    batches = [[i.index for i in ordered[n : n + _BATCH]] for n in range(0, len(ordered), _BATCH)]
    workers = min(jobs or os.cpu_count() or 1, len(batches))
    for extracted, failed in _run(cache, output, batches, workers):
        report.extracted += extracted
        report.failed += failed
        if progress:
            progress(len(report.extracted) + len(report.failed), len(chosen))
    order = {i.path: i.index for i in chosen}
    report.extracted.sort(key=lambda e: order[e.path])
    report.failed.sort(key=lambda f: order[f.path])
    return report


_Outcome = tuple[list[Extracted], list[Failed]]


def _run(cache: SharedCache, output: Path, batches: Sequence[list[int]], workers: int) -> Iterator[_Outcome]:
    if workers <= 1:
        extractor = Extractor(cache)
        for batch in batches:
            yield _batch(cache, extractor, output, batch)
        return
    context = multiprocessing.get_context("spawn")  # safe with the caller's threads, the same everywhere
    with ProcessPoolExecutor(workers, context, _start, (str(cache.path), str(output))) as pool:
        jobs = [pool.submit(_work, batch) for batch in batches]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class _Worker:
    cache: SharedCache
    extractor: Extractor
    output: Path


_worker: list[_Worker] = []


def _start(cache: str, output: str) -> None:
    opened = SharedCache.open(Path(cache))
    _worker.append(_Worker(opened, Extractor(opened), Path(output)))


def _work(batch: list[int]) -> _Outcome:
    worker = _worker[0]
    return _batch(worker.cache, worker.extractor, worker.output, batch)


def _batch(cache: SharedCache, extractor: Extractor, output: Path, batch: Sequence[int]) -> _Outcome:
    extracted: list[Extracted] = []
    failed: list[Failed] = []
    for image, made in extractor.many([cache.images[i] for i in batch]):
        try:
            if isinstance(made, SymcacheError):
                raise made
            extracted.append(_write(made, output, safe_parts(image.path)))
        except StorageError:
            raise
        except SymcacheError as error:
            failed.append(Failed(image.path, image.uuid, str(error)))
    return extracted, failed


def _write(made: NewImage, root: Path, parts: Sequence[str]) -> Extracted:
    file = write_file(root, parts, made.pieces)
    return Extracted(made.image.path, made.image.uuid, made.arch, file, made.size, made.unbacked)
