"""Everything staged into the store, then one record that promises it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from symcache import __version__
from symcache.errors import StorageError, SymcacheError
from symcache.library.library import Library
from symcache.library.results import IngestResult
from symcache.library.resume import continue_partial, listed_image, object_order
from symcache.library.snapshots import write_if_due
from symcache.library.staged import Staged
from symcache.library.storing import SAFE_SECONDS, Progress, StoredAll, Storing
from symcache.library.tombstones import take_back
from symcache.library.user_dirs import now, operator
from symcache.model import HarvestRecord, encodable
from symcache.store import blob_key

__all__ = ["absent_blobs", "ingest", "seal"]


def ingest(
    library: Library, staged: Staged, progress: Progress | None = None, storing: Storing | None = None
) -> IngestResult:
    """Store everything staged, then one record. Can be stopped anywhere and run again at no loss.

    The record is sealed when nothing is wrong and every manifest entry has its object. One file that cannot be
    used is named in `problems`; a store that refuses ends the run. A harvest that continues partial ones of the
    same build and source takes over what they have and supersedes them. `storing` is what some of it was begun to be
    stored with.
    """
    started = staged.started or now()
    if storing:
        done = storing.finish(staged.objects, staged.cache_files, progress)
    else:
        library.refresh()
        with Storing(library) as run:
            done = run.finish(staged.objects, staged.cache_files, progress)
    manifest = [m if m.path.isascii() else m.model_copy(update={"path": encodable(m.path)}) for m in staged.manifest]
    problems = [encodable(p) for p in [*staged.problems, *done.problems]]
    while True:
        library.refresh()  # hours may have passed
        objects, cache_files = [*staged.stored, *done.objects], list(done.cache_files)
        carried, supersedes = continue_partial(library, staged, objects, cache_files)
        have = {listed_image(o) for o in objects}
        missing = [m for m in manifest if listed_image(m) not in have]
        record = HarvestRecord(
            trust=staged.trust,
            release=staged.release,
            source=encodable(staged.source),
            host=staged.host,
            archs=staged.archs,
            lacks=staged.lacks,
            extractor=staged.extractor,
            tool=f"symcache {__version__}",
            operator=operator(),
            started=started,
            sealed=staged.sealable and not problems and not missing and bool(objects),
            manifest=tuple(manifest),
            objects=tuple(objects),
            cache_files=tuple(cache_files),
            problems=tuple(problems),
            supersedes=supersedes,
        )
        sealed = seal(library, record, done)
        if sealed is None:
            continue  # somebody else has continued them meanwhile
        identity, record = sealed
        if not (staged.release and library.catalog.is_removed(supersedes, but=identity)):
            break
        # What it has of its own comes back, as by any harvest, but not what it took over.
        take_back(library, [identity], staged.release.build, "takes over what was removed meanwhile")
    with contextlib.suppress(StorageError):  # a convenience: what was stored is stored
        write_if_due(library.store, library.catalog)
    conflicts = [
        c
        for c in library.catalog.conflicts([u for u in done.new_uuids if u])
        if any(o.record == identity for o in c.contents)
    ]
    return IngestResult(
        identity,
        record.sealed,
        done.stored,
        done.skipped,
        missing,
        list(record.problems),
        carried,
        supersedes,
        conflicts,
    )


def seal(
    library: Library, record: HarvestRecord, done: StoredAll, *, finished: str = "", restores: bool = False
) -> tuple[str, HarvestRecord] | None:
    """Look once more at everything that `record` promises, write it, and fold it in. Returns (id, record).

    Returns None, and writes nothing, when a record that it supersedes does not count any more, unless it `restores` it.

    Blobs that no live record names may be collected at any time. Those that are not quite new are refreshed, which
    keeps a collection that starts later away; one that had already decided is waited for, and what it took is stored
    again. So it is with all of them when the store's clock has been turned since the start.
    """
    shas = {o.sha256 for o in record.objects} | {f.sha256 for f in record.cache_files}
    gone = absent_blobs(library, shas, done)
    for sha256 in list(gone):
        if _store_again(library, done, sha256):
            gone.discard(sha256)
    promised = [(o.path, o.sha256) for o in record.objects] + [(f.path, f.sha256) for f in record.cache_files]
    lost = [
        f"{path}: its blob {sha256} is gone: harvest or add it again" for path, sha256 in promised if sha256 in gone
    ]
    record = record.model_copy(
        update={
            "objects": tuple(sorted((o for o in record.objects if o.sha256 not in gone), key=object_order)),
            "cache_files": tuple(
                sorted((f for f in record.cache_files if f.sha256 not in gone), key=lambda f: (f.path, f.arch, f.name))
            ),
            "problems": (*record.problems, *lost),
            "sealed": record.sealed and not lost,
            # Whoever knows another record comes after it, whatever the clocks say: what was there first is served.
            "finished": finished or now(after=library.catalog.last_finished()),
        }
    )
    if record.supersedes and not restores:
        library.refresh()
        if not all(map(library.catalog.is_live_record, record.supersedes)):
            return None
    identity = library.write(record)
    if done.clock is not None and done.clock.was_turned():
        # A collection may have taken for old what has just been stored.
        done.refreshed |= dict.fromkeys(shas, time.monotonic())
    if done.refreshed:
        rest = max(done.refreshed.values()) + library.store.settle - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        for sha256 in absent_blobs(library, done.refreshed):
            _store_again(library, done, sha256)
    library.refresh()
    return identity, record


def absent_blobs(library: Library, shas: Iterable[str], refresh: StoredAll | None = None) -> set[str]:
    """Return those whose blobs are not there. With `refresh`, unclaimed old ones are made young, and noted there.

    One that was refreshed is there for certain only if it is so `Store.settle` seconds later.
    """
    store = library.store
    limit = store.now() - SAFE_SECONDS if refresh else 0.0

    def look(sha256: str) -> bool:
        found = store.stat(blob_key(sha256))
        if found is None:
            return True
        if refresh is None or found.modified >= limit or library.catalog.is_live(sha256):
            return False
        lost = not store.refresh(blob_key(sha256))
        refresh.refreshed[sha256] = time.monotonic()  # when it was done: that may have taken long
        return lost

    with ThreadPoolExecutor(8, thread_name_prefix="recheck") as pool:
        ordered = sorted(shas)
        return {sha256 for sha256, lost in zip(ordered, pool.map(look, ordered), strict=True) if lost}


def _store_again(library: Library, done: StoredAll, sha256: str) -> bool:
    origin = done.origins.get(sha256)
    if origin is None:
        return False
    try:
        return origin(library.store) == sha256
    except StorageError:
        raise
    except (OSError, SymcacheError):
        return False
