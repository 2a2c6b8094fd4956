"""Deleting what no live record names any more.

Safe beside harvests that run at the same time: a blob goes only when nothing has named, made or refreshed it during the
grace, counted on the store's own clock from the later of the blob and the record that took it back; and records are
read again just before anything is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from symcache.catalog import SCHEMA_VERSION
from symcache.library.library import Library
from symcache.library.snapshots import SNAPSHOT_KEY
from symcache.store import BLOB_KEY

__all__ = ["DEFAULT_GRACE", "MINIMUM_GRACE", "GcReport", "gc"]

DEFAULT_GRACE = 14 * 86400.0
"""Seconds: longer than any harvest takes."""
MINIMUM_GRACE = 3600.0
"""Seconds: harvests take for granted that younger blobs stay."""
_FRESH = 5.0
"""Seconds for which the records that were read count as all there are; well below every `Store.settle`."""
_KEPT_SNAPSHOTS = 2


@dataclass
class GcReport:
    """What was deleted, or would be. Sizes as stored, in bytes."""

    dry_run: bool
    deleted: int = 0
    deleted_bytes: int = 0
    young: int = 0
    """Blobs that no live record names, but whose grace is not over."""
    live: int = 0
    leftovers: int = 0
    """Temporary and quarantined files, and superseded catalog snapshots."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def gc(
    library: Library,
    *,
    grace: float = DEFAULT_GRACE,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> GcReport:
    """Delete unnamed blobs older than `grace` seconds. Raises IncompleteError while a record cannot be read."""
    library.require_whole("collecting")
    store, report = library.store, GcReport(dry_run)
    before = store.now() - grace
    retired = _retired_at(library)
    condemned: list[tuple[str, str, int]] = []
    for key, found in store.scan("blobs/"):
        match = BLOB_KEY.fullmatch(key)
        if match is None:
            continue  # not ours: fsck names it
        if library.catalog.is_live(match[2]):
            report.live += 1
        elif max(found.modified, retired.get(match[2], 0.0)) >= before:
            report.young += 1
        else:
            condemned.append((key, match[2], found.stored_size))
    looked = 0.0
    for number, (key, sha256, size) in enumerate(condemned):
        if not dry_run:
            if time.monotonic() - looked > _FRESH:
                library.require_whole("collecting")
                retired = _retired_at(library)
                looked = time.monotonic()
            if library.catalog.is_live(sha256) or retired.get(sha256, 0.0) >= before:
                report.live += 1
                continue
            if not store.delete_older(key, before):
                report.young += 1
                continue
        report.deleted += 1
        report.deleted_bytes += size
        if progress:
            progress(number + 1, len(condemned))
    for key in [*_old_snapshots(library), *(k for k, _ in store.scan("quarantine/"))]:
        found_again = store.stat(key)
        if found_again and found_again.modified < before:
            report.leftovers += 1
            if not dry_run:
                store.delete_older(key, before)
    if not dry_run:
        report.leftovers += store.clean_scratch(before)
    return report


def _retired_at(library: Library) -> dict[str, float]:
    """Return for every blob of superseded or removed records when the last of them was taken back."""
    times: dict[int, float] = {}
    for record, key in library.catalog.retirements():
        found = library.store.stat(key)
        # Of a record that cannot be looked at, the safe answer is: just now.
        times[record] = max(times.get(record, 0.0), found.modified if found else float("inf"))
    result: dict[str, float] = {}
    for record, moment in times.items():
        for sha256 in library.catalog.blobs_of(record):
            result[sha256] = max(moment, result.get(sha256, 0.0))
    return result


def _old_snapshots(library: Library) -> list[str]:
    """Return the snapshots that no new machine would start from; those of newer programs are left to them."""
    known = sorted(
        ((int(m[1]), int(m[2]), key) for key in library.store.list("snapshots/") if (m := SNAPSHOT_KEY.fullmatch(key))),
        reverse=True,
    )
    ours = [key for schema, _, key in known if schema == SCHEMA_VERSION]
    older = [key for schema, _, key in known if schema < SCHEMA_VERSION]
    return [*ours[_KEPT_SNAPSHOTS:], *older]
