"""How much a library holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from symcache.library.library import Library
from symcache.store import BLOB_KEY

__all__ = ["Stats", "stats"]


@dataclass
class Stats:
    """Counts, and sizes in bytes. *content* is what was put in, *stored* what it takes as zstd."""

    releases: int
    sealed: int
    """Releases with at least one sealed harvest."""
    records: int
    listed: int
    """Images of all releases, as `ReleaseRow` counts them."""
    images: int
    """Different (UUID, kind)."""
    occurrences: int
    """Stored contents, once for each record and path."""
    image_blobs: int
    image_content: int
    image_stored: int
    cache_blobs: int
    """Raw shared-cache files."""
    cache_content: int
    cache_stored: int
    unnamed_blobs: int
    """No live record names them."""
    unnamed_stored: int
    conflicts: int
    undecided: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def stats(library: Library) -> Stats:
    """Count what live records name, and weigh what lies in the store."""
    counts = library.catalog.counts()
    images, caches = library.catalog.live_blobs()
    weights = [0, 0, 0]
    unnamed = 0
    for key, found in library.store.scan("blobs/"):
        if match := BLOB_KEY.fullmatch(key):
            place = 0 if match[2] in images else 1 if match[2] in caches else 2
            unnamed += place == 2
            weights[place] += found.stored_size
    releases = library.releases()
    conflicts = library.conflicts()
    return Stats(
        releases=len(releases),
        sealed=sum(r.sealed for r in releases),
        records=counts.records,
        listed=sum(r.listed for r in releases),
        images=counts.images,
        occurrences=counts.occurrences,
        image_blobs=len(images),
        image_content=sum(images.values()),
        image_stored=weights[0],
        cache_blobs=len(caches),
        cache_content=sum(caches.values()),
        cache_stored=weights[1],
        unnamed_blobs=unnamed,
        unnamed_stored=weights[2],
        conflicts=len(conflicts),
        undecided=sum(not c.decided for c in conflicts),
    )
