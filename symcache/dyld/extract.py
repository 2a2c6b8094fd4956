"""Images out of a cache into files: one, or all of them over processes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from symcache.dyld.batch import Extracted, Failed, Row, ToFiles, write_image
from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.image_writer import Extractor
from symcache.dyld.output import file_names, folds_case
from symcache.dyld.processes import run_in_processes

__all__ = ["ExtractReport", "Extracted", "Failed", "extract_all", "extract_image"]


@dataclass
class ExtractReport:
    """What became of every image that was asked for, in the order of the cache's table."""

    extracted: list[Extracted] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes written."""
        return sum(e.size for e in self.extracted)


def extract_image(cache: SharedCache, image: Image, target: Path) -> Extracted:
    """Extract one image to the file `target`. Raises SharedCacheError, StorageError."""
    return write_image(Extractor(cache).one(image), target.parent, [target.name])


def extract_all(
    cache: SharedCache,
    output: Path,
    *,
    image: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Extract every image, or those whose path, alias or name matches the glob `image`, to their paths below `output`.

    Where two images claim one path, the later is written with `~2` appended. One bad image is named in `failed`; the
    others go on. Raises StorageError when the output cannot be written. `progress` is called with (images done, images
    in all). Without `jobs`, one process a core is used, but not more than 8.
    """
    chosen = cache.images if image is None else _chosen(cache, image)
    names = file_names(cache.images, fold_case=folds_case(output))
    results: list[tuple[int, Extracted | Failed]] = []
    for rows in run_in_processes(cache, ToFiles(output), [(i.index, names[i.index]) for i in chosen], jobs):
        results += [(row["index"], _result(cache.images[row["index"]], row)) for row in rows]
        if progress:
            progress(len(results), len(chosen))
    results.sort(key=itemgetter(0))
    return ExtractReport(
        [result for _, result in results if isinstance(result, Extracted)],
        [result for _, result in results if isinstance(result, Failed)],
    )


def _result(image: Image, row: Row) -> Extracted | Failed:
    if "reason" in row:
        return Failed(image.path, image.uuid, row["reason"])
    return Extracted(image.path, image.uuid, row["arch"], Path(row["file"]), row["size"], row["unbacked"])


def _chosen(cache: SharedCache, pattern: str) -> list[Image]:
    found = {i.index for i in cache.images if _matches(i.path, pattern)}
    found.update(index for path, index in cache.aliases.items() if _matches(path, pattern))
    return [cache.images[index] for index in sorted(found)]


def _matches(path: str, pattern: str) -> bool:
    # Brackets in a name are no pattern to whom copies it from a list.
    if pattern in {path, path.rpartition("/")[2]}:
        return True
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)
