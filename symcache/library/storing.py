"""What a run brings into the store: checked, hashed and compressed in parallel, while more of it still comes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self
from uuid import UUID

from symcache.errors import StorageError, SymcacheError
from symcache.library.clock import StoreClock
from symcache.library.growing import FRAME, GrowingFile
from symcache.library.image_facts import HEAD, check_image, code_facts
from symcache.library.library import Library
from symcache.library.staged import StagedCacheFile, StagedObject
from symcache.macho import fileset_entries, mach_header
from symcache.model import CacheFile, CollectionEntry, ObjectEntry, encodable
from symcache.store import Store, keep_blob, put_blob

__all__ = ["SAFE_SECONDS", "Progress", "StoredAll", "Storing"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
SAFE_SECONDS = 1800.0
"""Blobs younger than this are not collected for as long again: a collection's grace is an hour or more."""
_FILES = 4
"""Raw cache files that are stored at a time: of each, some frames are in memory."""
_LONGEST_HEAD = 1 << 20
"""With the load commands of a kernel collection, which has one for each of its images."""


@dataclass
class StoredAll:
    """What became of what was staged."""

    clock: StoreClock | None = None
    """Read at the start."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the run ends early: what is being stored is given up."""
    objects: list[ObjectEntry] = field(default_factory=list)
    cache_files: list[CacheFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stored: int = 0
    skipped: int = 0
    new_uuids: set[UUID | None] = field(default_factory=set)
    origins: dict[str, Callable[[Store], str]] = field(default_factory=dict)
    """By SHA-256: stores the bytes once more, and returns the hash of what was. Raises SymcacheError, OSError."""
    refreshed: dict[str, float] = field(default_factory=dict)
    """Blobs that nobody claimed and that were made young again: SHA-256 to monotonic time."""


class Storing:
    """Stores what one run has, while the rest still comes; a context, at whose end what still runs is given up."""

    def __init__(self, library: Library, framed: Callable[[int], None] = lambda size: None) -> None:
        """`framed` is told how many bytes more of raw cache files are hashed and compressed, in any thread."""
        self._library, self.store = library, library.store
        self._framed = framed
        clock = StoreClock(library.store)
        self.done = StoredAll(clock)
        self._young = clock.start - SAFE_SECONDS
        # zstd and SHA-256 run without the interpreter's lock; twice the cores, since each also waits for the disk.
        self._pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="storing")
        self._frames = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="frames")
        self._jobs: dict[StagedObject | StagedCacheFile, Future[tuple[ObjectEntry | CacheFile, bool]]] = {}
        self._growing: dict[Path, GrowingFile] = {}
        self._turns = threading.Semaphore(max(2, min(os.cpu_count() or 1, _FILES)))
        self._refusal: StorageError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.done.stopped.set()
        for growing in self._growing.values():
            growing.wait()
        self._pool.shutdown(cancel_futures=True)
        self._frames.shutdown(cancel_futures=True)

    def begin(self, staged: StagedObject | StagedCacheFile) -> None:
        """Begin to store something: `finish` says what became of it. Raises StorageError once the store has refused."""
        self._raise_refusal()
        if staged not in self._jobs:
            self._jobs[staged] = job = self._pool.submit(self._put_staged, staged)
            job.add_done_callback(self._note_refusal)

    def follow(self, growing: Path, size: int, file: Path) -> None:
        """Begin to store a raw cache file of `size` bytes, which will be `file`, while it is written to `growing`.

        Then say `be_whole`, or `give_up`. Raises StorageError as `begin`.
        """
        self.give_up(file)  # the copy that this one replaces
        self._raise_refusal()
        self._growing[file] = GrowingFile(
            growing,
            size,
            self.store,
            self._frames,
            self.done.stopped,
            self._turns,
            keep=self.keep,
            likely=self._likely(file.name),
            framed=self._framed,
        )

    def be_whole(self, file: Path) -> None:
        """Say that all of a file is there that `follow` was told of."""
        self._growing[file].be_whole()

    def give_up(self, file: Path) -> None:
        """Store no more of a file that `follow` was told of, if any."""
        if growing := self._growing.pop(file, None):
            growing.give_up()

    def refuse(self, error: StorageError) -> None:
        """Note that the store has refused what somebody else brought into it."""
        self._refusal = self._refusal or error

    def _raise_refusal(self) -> None:
        if error := self._refusal or next((g.refusal for g in self._growing.values() if g.refusal), None):
            raise error

    def finish(
        self,
        objects: Sequence[StagedObject],
        cache_files: Sequence[StagedCacheFile],
        progress: Progress | None = None,
    ) -> StoredAll:
        """Store these, those begun included, and say what became of them.

        A file that cannot be used becomes a problem; a store that refuses ends the run.
        """
        done = self.done
        # Large ones first: the last to end should not be the longest.
        everything: list[StagedObject | StagedCacheFile] = [*cache_files, *sorted(objects, key=lambda o: -o.size)]
        for staged in everything:
            self.begin(staged)
        jobs = {self._jobs[staged]: staged for staged in everything}
        stored = 0
        total = sum(o.size for o in objects) + sum(_size(f.file) for f in cache_files)
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
                    done.problems.append(f"{error}: {hint}")
                    continue
                stored += entry.size
                done.stored, done.skipped = done.stored + new, done.skipped + (not new)
                done.origins[entry.sha256] = partial(_put_again, staged=jobs[job])
                if isinstance(entry, ObjectEntry):
                    done.objects.append(entry)
                    if new:
                        done.new_uuids.add(entry.uuid)
                else:
                    done.cache_files.append(entry)
            if progress:
                progress(stored, total)
        done.problems.sort()
        return done

    def _note_refusal(self, job: Future[tuple[ObjectEntry | CacheFile, bool]]) -> None:
        if not job.cancelled() and isinstance(error := job.exception(), StorageError):
            self.refuse(error)

    def keep(self, sha256: str) -> bool:
        """Return whether a blob is there, and will be until this run's record names it; see `keep_blob`."""
        return keep_blob(self.store, sha256, self._library.catalog.is_live, self._young, self._note_refreshed)

    def _note_refreshed(self, sha256: str) -> None:
        self.done.refreshed[sha256] = time.monotonic()

    def _likely(self, name: str) -> Callable[[bytes, int], str]:
        """Return what tells, by the beginning of a cache file and its size, the blob that is there of such a one."""

        def likely(start: bytes, size: int) -> str:
            from symcache.dyld import parse_header  # noqa: PLC0415

            with contextlib.suppress(SymcacheError):
                uuid = parse_header(start, name).uuid
                for row in self._library.catalog.cache_files_of(uuid) if uuid else ():
                    if (row.name, row.size) == (name, size) and not row.partial and self.keep(row.sha256):
                        return row.sha256
            return ""

        return likely

    def _put(self, file: Path, *place: int, start: bytes = b"", frame_size: int | None = None) -> tuple[str, int, bool]:
        return put_blob(
            self.store,
            file,
            *place,
            start=start,
            claimed=self._library.catalog.is_live,
            young=self._young,
            frame_size=frame_size,
            stopped=self.done.stopped,
            refreshed=self._note_refreshed,
        )

    def _put_staged(self, staged: StagedObject | StagedCacheFile) -> tuple[ObjectEntry | CacheFile, bool]:
        return self._put_file(staged) if isinstance(staged, StagedCacheFile) else self._put_object(staged)

    def _put_file(self, staged: StagedCacheFile) -> tuple[CacheFile, bool]:
        growing = self._growing.get(staged.file)
        stored = growing.finish() if growing else None
        sha256, size, new = stored or self._put(staged.file, frame_size=FRAME)
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

    def _put_object(self, staged: StagedObject) -> tuple[ObjectEntry, bool]:
        """Check that the bytes are the image they are said to be, and store them."""
        with staged.file.open("rb") as file:
            file.seek(staged.offset)
            head = file.read(min(HEAD, staged.size))
            if (header := mach_header(head)) and len(head) < header.commands_end <= min(staged.size, _LONGEST_HEAD):
                head += file.read(header.commands_end - len(head))
            found = check_image(head, staged.size, staged.path, staged.arch, staged.kind, staged.uuid)

            def read(offset: int, size: int) -> list[bytes]:
                file.seek(staged.offset + offset)
                return [file.read(size)]

            symbols, code = code_facts(head, staged.size, read)
        at = found._replace(offset=staged.offset)
        entries = [CollectionEntry(name=encodable(e.name), uuid=e.uuid) for e in fileset_entries(staged.file, at)]
        sha256, size, new = self._put(staged.file, staged.offset, staged.size, start=head)
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
            symbols=symbols,
            code=code,
            sources=staged.sources,
            entries=tuple(entries),
        )
        return entry, new


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it is gone, which becomes its problem
        return 0


def _put_again(store: Store, staged: StagedObject | StagedCacheFile) -> str:
    place = (staged.offset, staged.size) if isinstance(staged, StagedObject) else (0, None)
    return put_blob(store, staged.file, *place)[0]
