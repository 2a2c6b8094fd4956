"""Everything staged into the store, then one record that promises it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symcache import __version__
from symcache.errors import IntegrityError, StorageError, SymcacheError
from symcache.library.library import Library
from symcache.library.results import IngestResult
from symcache.library.resume import continue_partial, listed_image, object_order
from symcache.library.snapshots import write_if_due
from symcache.library.staged import Staged, StagedCacheFile, StagedObject
from symcache.library.tombstones import take_back
from symcache.library.user_dirs import now, operator, writer_id
from symcache.macho import code_fingerprint, identify_bytes
from symcache.model import CacheFile, HarvestRecord, ObjectEntry, encodable, uuid_text
from symcache.store import blob_key, put_blob, write_record

__all__ = ["Progress", "StoredAll", "ingest", "seal", "store_all"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
_HEAD = 32 << 10
_CODE_LIMIT = 64 << 20
_FRAME = 8 << 20
"""Raw cache files are read in parts."""
_SAFE = 1800.0
"""Blobs younger than this are not collected for as long again: a collection's grace is an hour or more."""


@dataclass
class StoredAll:
    """What became of the staged files."""

    clock: float = 0.0
    """The store's time at the start."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the run ends early: what is being stored is given up."""
    objects: list[ObjectEntry] = field(default_factory=list)
    cache_files: list[CacheFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stored: int = 0
    skipped: int = 0
    new_uuids: set[Any] = field(default_factory=set)
    origins: dict[str, StagedObject | StagedCacheFile] = field(default_factory=dict)
    """By SHA-256: where the bytes can be had once more."""
    refreshed: dict[str, float] = field(default_factory=dict)
    """Blobs that nobody claimed and that were made young again: SHA-256 to monotonic time."""


def ingest(library: Library, staged: Staged, progress: Progress | None = None) -> IngestResult:
    """Store everything staged, then one record. Can be stopped anywhere and run again at no loss.

    The record is sealed when nothing is wrong and every manifest entry has its object. One file that cannot be
    used is named in `problems`; a store that refuses ends the run. A harvest that continues partial ones of the
    same build and source takes over what they have and supersedes them.
    """
    started = staged.started or now()
    library.refresh()
    done = store_all(library, staged.objects, staged.cache_files, progress)
    manifest = [m if m.path.isascii() else m.model_copy(update={"path": encodable(m.path)}) for m in staged.manifest]
    problems = [encodable(p) for p in [*staged.problems, *done.problems]]
    while True:
        library.refresh()  # hours may have passed
        objects, cache_files = list(done.objects), list(done.cache_files)
        carried, supersedes = continue_partial(library, staged, objects, cache_files)
        have = {listed_image(o) for o in objects}
        missing = [m for m in manifest if listed_image(m) not in have]
        record = HarvestRecord(
            trust=staged.trust,
            release=staged.release,
            source=encodable(staged.source),
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
        identity, record = seal(library, record, done)
        if not (staged.release and library.catalog.is_removed(supersedes)):
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


def store_all(
    library: Library,
    objects: Sequence[StagedObject],
    cache_files: Sequence[StagedCacheFile],
    progress: Progress | None = None,
) -> StoredAll:
    """Hash, compress and store in parallel.

    A file that cannot be used becomes a problem; a store that refuses ends the run.
    """
    result = StoredAll(clock=library.store.now())
    done = 0
    total = sum(o.size for o in objects) + sum(f.file.stat().st_size for f in cache_files)
    # zstd and SHA-256 run without the interpreter's lock; twice the cores, since each also waits for the disk.
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="ingest")
    try:
        # Large ones first: the last to end should not be the longest.
        jobs: dict[Future[Any], StagedObject | StagedCacheFile] = {}
        for f in cache_files:
            jobs[pool.submit(_put_file, library, f, result)] = f
        for o in sorted(objects, key=lambda o: -o.size):
            jobs[pool.submit(_put_object, library, o, result)] = o
        pending = set(jobs)
        while pending:
            finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
            for job in finished:
                try:
                    entry, new = job.result()
                except StorageError:
                    raise  # the store refuses: nothing further can succeed
                except (SymcacheError, OSError) as error:
                    result.problems.append(str(error))
                    continue
                done += entry.size
                result.stored, result.skipped = result.stored + new, result.skipped + (not new)
                result.origins[entry.sha256] = jobs[job]
                if isinstance(entry, ObjectEntry):
                    result.objects.append(entry)
                    if new:
                        result.new_uuids.add(entry.uuid)
                else:
                    result.cache_files.append(entry)
            if progress:
                progress(done, total)
    except BaseException:
        result.stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    result.problems.sort()
    return result


def seal(library: Library, record: HarvestRecord, done: StoredAll) -> tuple[str, HarvestRecord]:
    """Look once more at everything that `record` promises, write it, and fold it in. Returns (id, record).

    Blobs that no live record names may be collected at any time. Those that are not quite new are refreshed, which
    keeps a collection that starts later away; one that had already decided is waited for, and what it took is stored
    again.
    """
    shas = {o.sha256 for o in record.objects} | {f.sha256 for f in record.cache_files}
    gone = _gone(library, shas, done)
    for sha256 in list(gone):
        if _store_again(library, done, sha256):
            gone.discard(sha256)
    promised = [(o.path, o.sha256) for o in record.objects] + [(f.path, f.sha256) for f in record.cache_files]
    lost = [f"{path}: its blob {sha256} is gone" for path, sha256 in promised if sha256 in gone]
    record = record.model_copy(
        update={
            "objects": tuple(sorted((o for o in record.objects if o.sha256 not in gone), key=object_order)),
            "cache_files": tuple(
                sorted((f for f in record.cache_files if f.sha256 not in gone), key=lambda f: (f.path, f.arch, f.name))
            ),
            "problems": (*record.problems, *lost),
            "sealed": record.sealed and not lost,
            "finished": now(),
        }
    )
    _, identity = write_record(library.store, record, writer_id())
    if done.refreshed:
        rest = max(done.refreshed.values()) + library.store.settle - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        for sha256 in _gone(library, done.refreshed):
            _store_again(library, done, sha256)
    library.refresh()
    return identity, record


def _gone(library: Library, shas: Iterable[str], refresh: StoredAll | None = None) -> set[str]:
    """Return those whose blobs are not there. With `refresh`, unclaimed old ones are made young, and noted there."""
    store = library.store
    limit = store.now() - _SAFE if refresh else 0.0

    def look(sha256: str) -> bool:
        found = store.stat(blob_key(sha256))
        if found is None:
            return True
        if refresh is None or found.modified >= limit or library.catalog.is_live(sha256):
            return False
        refresh.refreshed[sha256] = time.monotonic()
        return not store.refresh(blob_key(sha256))

    with ThreadPoolExecutor(8, thread_name_prefix="recheck") as pool:
        ordered = sorted(shas)
        return {sha256 for sha256, lost in zip(ordered, pool.map(look, ordered), strict=True) if lost}


def _store_again(library: Library, done: StoredAll, sha256: str) -> bool:
    origin = done.origins.get(sha256)
    if origin is None:
        return False
    place = (origin.offset, origin.size) if isinstance(origin, StagedObject) else (0, None)
    try:
        return put_blob(library.store, origin.file, *place)[0] == sha256
    except (OSError, IntegrityError):
        return False


def _put(
    library: Library, result: StoredAll, file: Path, *place: int, frame_size: int | None = None
) -> tuple[str, int, bool]:
    def note(sha256: str) -> None:
        result.refreshed[sha256] = time.monotonic()

    return put_blob(
        library.store,
        file,
        *place,
        claimed=library.catalog.is_live,
        young=result.clock - _SAFE,
        frame_size=frame_size,
        stopped=result.stopped,
        refreshed=note,
    )


def _put_file(library: Library, staged: StagedCacheFile, result: StoredAll) -> tuple[CacheFile, bool]:
    sha256, size, new = _put(library, result, staged.file, frame_size=_FRAME)
    entry = CacheFile(
        name=encodable(staged.name),
        cache_uuid=staged.cache_uuid,
        arch=staged.arch,
        path=encodable(staged.path),
        sha256=sha256,
        size=size,
        partial=staged.partial,
    )
    return entry, new


def _put_object(library: Library, staged: StagedObject, result: StoredAll) -> tuple[ObjectEntry, bool]:
    """Check that the bytes are the image they are said to be, and store them."""
    with staged.file.open("rb") as file:
        file.seek(staged.offset)
        head = file.read(min(_HEAD, staged.size))
        slices = identify_bytes(head, staged.size)
        if len(slices) != 1:
            raise IntegrityError(f"{staged.path}: is {len(slices)} images where one Mach-O was expected")
        found = slices[0]
        if found.uuid != staged.uuid or found.kind is not staged.kind or found.arch != staged.arch:
            want = f"{staged.arch} {staged.kind} {uuid_text(staged.uuid) if staged.uuid else 'without UUID'}"
            got = f"{found.arch} {found.kind} {uuid_text(found.uuid) if found.uuid else 'without UUID'}"
            raise IntegrityError(f"{staged.path}: holds {got} where {want} was expected")
        fingerprint = code_fingerprint(head, staged.size)
        code = ""
        if fingerprint.text_size:
            file.seek(staged.offset + fingerprint.text_offset)
            code = hashlib.sha256(file.read(min(fingerprint.text_size, _CODE_LIMIT))).hexdigest()[:16]
    sha256, size, new = _put(library, result, staged.file, staged.offset, staged.size)
    entry = ObjectEntry(
        path=encodable(staged.path),
        arch=staged.arch,
        uuid=staged.uuid,
        kind=staged.kind,
        origin=staged.origin,
        cache_uuid=staged.cache_uuid,
        extractor=staged.extractor,
        revision=staged.revision,
        sha256=sha256,
        size=size,
        symbols=fingerprint.symbols,
        code=code,
        sources=staged.sources,
    )
    return entry, new
