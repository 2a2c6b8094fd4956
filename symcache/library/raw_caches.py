"""Raw shared caches out of the store again, so that images can be taken from them anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from symcache.dyld import is_main_name
from symcache.errors import NotFoundError, SharedCacheError
from symcache.library.library import Library

if TYPE_CHECKING:
    from symcache.dyld import SharedCache

__all__ = ["open_raw_cache", "write_raw_cache"]


def write_raw_cache(library: Library, cache_uuid: UUID, folder: Path) -> Path:
    """Write the kept files of a shared cache into `folder` and return its main file.

    Raises NotFoundError when none are kept, IntegrityError when one is damaged.
    """
    rows = [row for row in library.catalog.cache_files_of(cache_uuid) if not row.partial]
    names: dict[str, Path] = {}
    for row in rows:
        # Names come from records; only the last part counts, so none leads out of the folder.
        name = Path(row.name).name
        if name not in {"", ".."} and name not in names:
            names[name] = folder / name
            library.materialize(row.sha256, row.size, names[name])
    if not names:
        raise NotFoundError(
            f"shared cache {str(cache_uuid).upper()}: its raw files are not kept",
            hint="harvest the release again without --no-keep-caches",
        )
    # Of a development cache the names of companions, to which it adds a suffix of its own, may be shorter.
    return names[min(filter(is_main_name, names), key=len, default=min(names, key=len))]


@contextlib.contextmanager
def open_raw_cache(library: Library, cache_uuid: UUID, folder: Path) -> Iterator[SharedCache]:
    """As `write_raw_cache`, opened. Raises SharedCacheError also when the files are of another cache."""
    from symcache.dyld import SharedCache  # noqa: PLC0415 (takes its time to import)

    with SharedCache.open(write_raw_cache(library, cache_uuid, folder)) as cache:
        if cache.uuid != cache_uuid:
            raise SharedCacheError(f"{cache.path.name}: is cache {cache.uuid} where {cache_uuid} was expected")
        yield cache
