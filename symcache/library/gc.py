"""Deleting what no live record names any more.

Safe beside harvests that run at the same time: a blob goes only when nothing has named, made or refreshed it during the
grace, counted on the store's own clock from the later of the blob and the record that took it back. That is decided
just before it is deleted, while the records that the catalog knows are exactly those that the store lists.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from symcache.catalog import SCHEMA_VERSION
from symcache.errors import IncompleteError
from symcache.library.clock import StoreClock
from symcache.library.library import Library
from symcache.library.snapshots import SNAPSHOT_KEY
from symcache.library.user_dirs import utc
from symcache.store import BLOB_KEY
from symcache.text import counted

__all__ = ["DEFAULT_GRACE", "MINIMUM_GRACE", "GcReport", "gc"]

DEFAULT_GRACE = 14 * 86400.0
"""Seconds: longer than any harvest takes."""
MINIMUM_GRACE = 3600.0
"""Seconds: harvests take for granted that younger blobs stay."""
_FRESH = 5.0
"""Seconds for which the records that were read count as all there are; well below every `Store.settle`."""
_AT_ONCE = 10_000
"""Blobs that are decided on at one moment; more than can be deleted while that holds."""
_KEPT_SNAPSHOTS = 2


@dataclass
class GcReport:
    """What was deleted, or would be. Sizes as stored, in bytes."""

    dry_run: bool
    deleted: int = 0
    deleted_bytes: int = 0
    young: int = 0
    """Blobs that no live record names, but whose grace is not over."""
    young_bytes: int = 0
    first_expires: str | None = None
    last_expires: str | None = None
    """When the grace of the first and of the last of these is over, unless they are named again: UTC, ISO 8601."""
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
    """Delete unnamed blobs older than `grace` seconds.

    Raises IncompleteError where the catalog may not know all, or a clock is wrong.
    """
    store, report = library.store, GcReport(dry_run)
    with _every_record(library):
        retired = _retired_at(library)
    clock = StoreClock(store)
    if abs(clock.start - time.time()) > MINIMUM_GRACE:
        raise IncompleteError(
            f"{store.location}: its clock says {utc(clock.start)}, this machine's {utc(time.time())}:"
            " nobody can tell what is old enough to be collected",
            hint="set the one that is wrong, then run the same command again",
        )
    before = clock.start - grace
    condemned: list[tuple[str, str, int]] = []
    expiries: list[float] = []

    def keep(size: int, since: float) -> None:
        report.young, report.young_bytes = report.young + 1, report.young_bytes + size
        expiries.append(since + grace)

    for key, found in store.scan("blobs/"):
        match = BLOB_KEY.fullmatch(key)
        if match is None:
            continue  # not ours: fsck names it
        if library.catalog.is_live(match[2]):
            report.live += 1
        elif (since := max(found.modified, retired.get(match[2], 0.0))) >= before:
            keep(found.stored_size, since)
        else:
            condemned.append((key, match[2], found.stored_size))
    total = len(condemned)
    while condemned and not dry_run:
        with _every_record(library):
            retired = _retired_at(library)
            live = {
                s for _, s, _ in condemned[:_AT_ONCE] if library.catalog.is_live(s) or retired.get(s, 0.0) >= before
            }
        if clock.was_turned():
            raise IncompleteError(
                f"{store.location}: its clock was turned, or this machine slept, while this ran:"
                f" {report.deleted} of {counted(total, 'blob')} are deleted",
                hint="see that the clock is right, then run the same command again",
            )
        looked = time.monotonic()
        for done, (key, sha256, size) in enumerate(condemned[:_AT_ONCE], 1):
            if sha256 in live:
                report.live += 1
            elif not store.delete_older(key, before):
                keep(size, before + grace)  # it was refreshed just now
            else:
                report.deleted += 1
                report.deleted_bytes += size
                if progress:
                    progress(total - len(condemned) + done, total)
            if time.monotonic() - looked > _FRESH:
                break
        del condemned[:done]
    report.deleted += len(condemned)
    report.deleted_bytes += sum(size for _, _, size in condemned)
    for key in [*_old_snapshots(library), *(k for k, _ in store.scan("quarantine/"))]:
        found_again = store.stat(key)
        if found_again and found_again.modified < before:
            report.leftovers += 1
            if not dry_run:
                store.delete_older(key, before)
    if not dry_run:
        report.leftovers += store.clean_scratch(before)
    if known := [moment for moment in expiries if math.isfinite(moment)]:
        report.first_expires, report.last_expires = utc(min(known)), utc(max(known))
    return report


@contextlib.contextmanager
def _every_record(library: Library) -> Iterator[None]:
    """Keep the catalog as it is at a moment at which its records are those that the store lists.

    Raises IncompleteError where they are not: a record that is not known may name what would be deleted.
    """
    listed = set(library.store.list("records/"))
    library.refresh(whole=True)
    needed = f"{library.store.location}: collecting needs every record, but"
    if library.unreadable:
        raise IncompleteError(
            f"{needed} {len(library.unreadable)} cannot be read: {next(iter(library.unreadable))}",
            hint="run `symcache fsck`; if the record is newer than this program, update symcache",
        )
    if lost := library.lost():
        raise IncompleteError(
            f"{needed} {len(lost)} that there were are gone: {next(iter(lost))}",
            hint="`symcache fsck` names them, `fsck --repair --from LIBRARY` may bring them back; if the library"
            " was emptied or restored on purpose, `symcache rebuild` takes what is there for all there is",
        )
    with library.catalog.one_moment():
        known = library.catalog.known_keys()
        if strangers := listed - known:
            raise IncompleteError(
                f"{needed} {min(strangers)} is none that this machine's catalog knows",
                hint="run `symcache fsck`: what is no record has to be moved away",
            )
        # What came since is there.
        if gone := [key for key in known - listed if library.store.stat(key) is None]:
            raise IncompleteError(f"{needed} {min(gone)} is gone", hint="run the same command again")
        yield


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
