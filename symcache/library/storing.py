"""Staged files into the store: checked, hashed and compressed in parallel."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symcache.errors import IntegrityError, StorageError, SymcacheError
from symcache.library.clock import StoreClock
from symcache.library.library import Library
from symcache.library.staged import StagedCacheFile, StagedObject
from symcache.macho import code_fingerprint, fileset_entries, identify_bytes, mach_header
from symcache.model import CacheFile, CollectionEntry, ObjectEntry, encodable, uuid_text
from symcache.store import put_blob

__all__ = ["SAFE_SECONDS", "Progress", "StoredAll", "store_all"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
SAFE_SECONDS = 1800.0
"""Blobs younger than this are not collected for as long again: a collection's grace is an hour or more."""
_HEAD = 32 << 10
_LONGEST_HEAD = 1 << 20
"""With the load commands of a kernel collection, which has one for each of its images."""
_CODE_LIMIT = 64 << 20
_FRAME = 8 << 20
"""Raw cache files are read in parts."""


@dataclass
class StoredAll:
    """What became of the staged files."""

    clock: StoreClock | None = None
    """Read at the start."""
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


def store_all(
    library: Library,
    objects: Sequence[StagedObject],
    cache_files: Sequence[StagedCacheFile],
    progress: Progress | None = None,
) -> StoredAll:
    """Hash, compress and store in parallel.

    A file that cannot be used becomes a problem; a store that refuses ends the run.
    """
    clock = StoreClock(library.store)
    result = StoredAll(clock)
    young = clock.start - SAFE_SECONDS
    done = 0
    total = sum(o.size for o in objects) + sum(f.file.stat().st_size for f in cache_files)
    # zstd and SHA-256 run without the interpreter's lock; twice the cores, since each also waits for the disk.
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="ingest")
    try:
        # Large ones first: the last to end should not be the longest.
        jobs: dict[Future[Any], StagedObject | StagedCacheFile] = {}
        for f in cache_files:
            jobs[pool.submit(_put_file, library, f, result, young)] = f
        for o in sorted(objects, key=lambda o: -o.size):
            jobs[pool.submit(_put_object, library, o, result, young)] = o
        pending = set(jobs)
        while pending:
            finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
            for job in finished:
                try:
                    entry, new = job.result()
                except StorageError:
                    raise  # the store refuses: nothing further can succeed
                except (SymcacheError, OSError) as error:
                    hint = getattr(error, "hint", "") or "harvest or add it again"
                    result.problems.append(f"{error}: {hint}")
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


def _put(
    library: Library,
    result: StoredAll,
    young: float,
    file: Path,
    *place: int,
    start: bytes = b"",
    frame_size: int | None = None,
) -> tuple[str, int, bool]:
    def note(sha256: str) -> None:
        result.refreshed[sha256] = time.monotonic()

    return put_blob(
        library.store,
        file,
        *place,
        start=start,
        claimed=library.catalog.is_live,
        young=young,
        frame_size=frame_size,
        stopped=result.stopped,
        refreshed=note,
    )


def _put_file(library: Library, staged: StagedCacheFile, result: StoredAll, young: float) -> tuple[CacheFile, bool]:
    sha256, size, new = _put(library, result, young, staged.file, frame_size=_FRAME)
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


def _put_object(library: Library, staged: StagedObject, result: StoredAll, young: float) -> tuple[ObjectEntry, bool]:
    """Check that the bytes are the image they are said to be, and store them."""
    with staged.file.open("rb") as file:
        file.seek(staged.offset)
        head = file.read(min(_HEAD, staged.size))
        if (header := mach_header(head)) and len(head) < header.commands_end <= min(staged.size, _LONGEST_HEAD):
            head += file.read(header.commands_end - len(head))
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
    at = found._replace(offset=staged.offset)
    entries = [CollectionEntry(name=encodable(e.name), uuid=e.uuid) for e in fileset_entries(staged.file, at)]
    sha256, size, new = _put(library, result, young, staged.file, staged.offset, staged.size, start=head)
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
        entries=tuple(entries),
    )
    return entry, new
