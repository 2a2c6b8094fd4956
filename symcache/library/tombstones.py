"""Taking records back: a tombstone is a record like any other, and names those that count no longer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from symcache import __version__
from symcache.library.library import Library
from symcache.library.user_dirs import now, operator
from symcache.model import ReleaseId, TombstoneRecord
from symcache.store import blob_key

__all__ = ["RemovalPlan", "plan_removal", "remove_build", "take_back"]

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What removing a release would do."""

    release: ReleaseId
    records: list[str]
    images: int
    """As `ReleaseRow` counts them."""
    blobs: int
    """Files in the store that nothing else names."""
    bytes: int
    """What they take there."""

    @property
    def build(self) -> str:
        """Of the release."""
        return self.release.build


def plan_removal(library: Library, names: Sequence[str]) -> list[RemovalPlan]:
    """Return what removing these releases, one after the other, would do. Raises as `Library.release_id`."""
    library.refresh()
    images = {r.id: r.listed for r in library.releases()}
    plans: list[RemovalPlan] = []
    numbers: list[int] = []
    freed: set[str] = set()
    for release in map(library.release_id, names):
        rows = library.catalog.records_of(release)
        numbers += [row.id for row in rows]
        blobs = [sha256 for sha256 in library.catalog.blobs_of_only(numbers) if sha256 not in freed]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="stat") as pool:
            stats = list(pool.map(lambda sha256: library.store.stat(blob_key(sha256)), blobs))
        size = sum(stat.stored_size for stat in stats if stat)
        plans.append(RemovalPlan(release, sorted(r.sha256 for r in rows), images[release], len(blobs), size))
        freed.update(blobs)
    return plans


def remove_build(library: Library, name: str, *, reason: str = "") -> list[str]:
    """Take back every record of a release: a tombstone. Returns their ids. Raises as `Library.release_id`."""
    library.refresh()
    release = library.release_id(name)
    build = release.build
    ids = sorted(row.sha256 for row in library.catalog.records_of(release))
    take_back(library, ids, build, reason)
    # What was made of these records meanwhile could not be named: its maker looks for the tombstone, and this for it.
    while made := library.catalog.superseding(ids):
        take_back(library, made, build, reason)
        ids += made
    return ids


def take_back(library: Library, ids: Sequence[str], build: str, reason: str) -> None:
    """Write a tombstone for the records of these ids, and fold in what has come since."""
    tombstone = TombstoneRecord(
        removes=tuple(ids),
        build=build,
        reason=reason,
        tool=f"symcache {__version__}",
        operator=operator(),
        finished=now(),
    )
    library.write(tombstone)
    library.refresh()
