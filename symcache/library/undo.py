"""Bringing back what was removed: a tombstone stays, and a new record says what the old one said.

So every version that follows the library understands it: a record that supersedes another is nothing new.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from symcache import __version__
from symcache.catalog import Removal
from symcache.errors import IncompleteError, IntegrityError, NotFoundError, UsageError
from symcache.library.clock import StoreClock
from symcache.library.ingest import absent_blobs, seal
from symcache.library.library import Library, several_releases
from symcache.library.storing import StoredAll
from symcache.library.user_dirs import operator
from symcache.model import HarvestRecord
from symcache.store import RecordKey, read_record

__all__ = ["RestoredRecord", "removals", "undo_removal"]

_LISTED = 10


@dataclass(frozen=True, slots=True)
class RestoredRecord:
    """A harvest that counts again."""

    build: str
    product: str
    record: str
    """Id of the new record."""
    removed: str
    """Id of the one that had been removed."""
    sealed: bool
    stored: int
    """Contents that are served again."""
    lost: list[str]
    """What `gc` has deleted meanwhile, one sentence each: of this record, and harvests that are gone altogether."""


def removals(library: Library) -> list[Removal]:
    """Return the harvests that were removed and are not back; the ones that were removed last come last."""
    library.refresh()
    return library.catalog.removals()


def undo_removal(library: Library, what: str) -> list[RestoredRecord]:
    """Have the removed harvests of a build or `PRODUCT:BUILD` count again, or the one whose id starts with `what`.

    Raises NotFoundError where there is none, or nothing of it is left in the store, and UsageError where several
    removals could be meant.
    """
    known = removals(library)
    chosen = [r for r in known if r.release.is_meant_by(what)]
    if not chosen and re.fullmatch(r"[0-9a-f]{8,64}", what.lower()):
        chosen = [r for r in known if r.record.startswith(what.lower())]
    if not chosen:
        raise NotFoundError(
            f"{what}: nothing of this name is removed", hint="`symcache remove --undo` lists what was removed"
        )
    releases = sorted({r.release for r in chosen})
    if len(releases) > 1:
        raise several_releases(what, releases)
    if len({r.tombstone for r in chosen}) > 1:
        several = ", ".join(f"{r.record[:12]} (removed {r.removed[:19]})" for r in chosen[-_LISTED:])
        raise UsageError(f"{what}: was removed more than once", hint=f"name the record that is meant: {several}")
    restored: list[RestoredRecord] = []
    gone: list[tuple[Removal, NotFoundError]] = []
    for removal in chosen:
        try:
            restored.append(_restore(library, removal))
        except NotFoundError as error:
            gone.append((removal, error))
    if not restored:
        raise gone[0][1]
    restored[-1].lost.extend(f"the harvest of {removal.source}: {error}" for removal, error in gone)
    return restored


def _restore(library: Library, removal: Removal) -> RestoredRecord:
    place = RecordKey.parse(removal.key)
    found, record = read_record(library.store, place) if place else ("", None)
    if found != removal.record or not isinstance(record, HarvestRecord):
        raise IntegrityError(f"{removal.key}: not the record of a harvest", hint="run `symcache fsck --read-data`")
    # Before anything is promised: a collection that goes on now may have decided to delete what is refreshed here.
    contents, done = {o.sha256 for o in record.objects}, StoredAll()
    gone = absent_blobs(library, contents | {f.sha256 for f in record.cache_files}, done)
    if done.refreshed:
        time.sleep(library.store.settle)
        gone |= absent_blobs(library, done.refreshed)
    if contents and contents <= gone:
        raise NotFoundError(
            f"{removal.build}: `symcache gc` has deleted what was removed", hint="harvest it again to have it back"
        )
    restored = record.model_copy(
        update={"supersedes": (removal.record,), "tool": f"symcache {__version__}", "operator": operator()}
    )
    # With its own time: among contents that contradict each other it stands where it stood.
    sealed = seal(library, restored, StoredAll(StoreClock(library.store)), finished=record.finished, restores=True)
    if sealed is None or not library.catalog.is_live_record(sealed[0]):
        raise IncompleteError(f"{removal.build}: was removed again meanwhile", hint="run the same command again")
    identity, restored = sealed
    lost = list(restored.problems[len(record.problems) :])
    product, build = removal.release
    return RestoredRecord(build, product, identity, removal.record, restored.sealed, len(restored.objects), lost)
