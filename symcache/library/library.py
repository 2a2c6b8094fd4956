"""The facade over one store and this machine's catalog of it."""

from __future__ import annotations

import getpass
import hashlib
import os
import uuid as uuid_module
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID

import platformdirs

from symcache import __version__
from symcache.catalog import Catalog, Occurrence, ReleaseRow
from symcache.errors import IntegrityError, NotFoundError, StorageError, SymcacheError
from symcache.library.staged import Staged, StagedObject
from symcache.macho import identify_bytes
from symcache.model import CacheFile, HarvestRecord, Kind, ManifestEntry, ObjectEntry, uuid_text
from symcache.store import (
    BlobReader,
    LocalStore,
    RecordKey,
    Store,
    blob_key,
    decode_to,
    open_store,
    put_blob,
    read_record,
    write_record,
)

__all__ = ["CacheFileFound", "Found", "IngestResult", "Library"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
_HEAD = 32 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """The content that answers a question, and how large it lies in the store (zstd, `stored_size`)."""

    occurrence: Occurrence
    stored_size: int

    @property
    def uuid(self) -> UUID | None:
        """LC_UUID."""
        return self.occurrence.uuid

    @property
    def kind(self) -> Kind:
        """Executable or debug info."""
        return self.occurrence.kind

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, lower-case hex: the name of its blob."""
        return self.occurrence.sha256

    @property
    def size(self) -> int:
        """Size of the content in bytes."""
        return self.occurrence.size

    @property
    def arch(self) -> str:
        """Apple's name of the architecture."""
        return self.occurrence.arch

    @property
    def path(self) -> str:
        """Where the source has it."""
        return self.occurrence.path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.occurrence.path.rpartition("/")[2]

    @property
    def cache_uuid(self) -> UUID | None:
        """The shared cache whose layout this content has."""
        return self.occurrence.cache_uuid

    @property
    def build(self) -> str | None:
        """The macOS build of the record it came with."""
        return self.occurrence.build


@dataclass(frozen=True, slots=True)
class CacheFileFound:
    """A kept raw file of a shared cache."""

    name: str
    sha256: str
    size: int
    stored_size: int


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest did. `missing` are the manifest entries that nothing was stored for."""

    record_id: str
    sealed: bool
    stored: int
    skipped: int
    missing: list[ManifestEntry]
    problems: list[str]


class Library:
    """One library. Reading methods are cheap enough to be called where they are needed."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self.store, self.catalog = store, catalog
        self.unreadable: dict[str, str] = {}
        """Records that could not be folded in: key and reason."""
        self.refresh()

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> Library:
        """Open the library at `location`, making it if `create`. Raises NotFoundError, StorageError."""
        store = open_store(str(location), create=create)
        return cls(store, Catalog(_catalog_path(store)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()

    def refresh(self) -> bool:
        """Fold in the records that have come since; True when there were any."""
        known, changed = self.catalog.known_keys(), False
        for text in sorted(set(self.store.list("records/")) - known):
            key = RecordKey.parse(text)
            if key is None:
                continue
            try:
                identity, record = read_record(self.store, key)
            except IntegrityError as error:
                self.unreadable[text] = str(error)
                continue
            changed = self.catalog.fold(text, identity, record) or changed
            self.unreadable.pop(text, None)
        return changed

    def resolve(
        self, uuid: UUID, kind: Kind | None = None, *, cache: UUID | None = None, build: str | None = None
    ) -> Found | None:
        """Return the preferred content for a UUID whose blob is there, or None.

        `cache` and `build` narrow to one shared cache's layout or one release. Without `kind`, an executable is
        preferred to debug info.
        """
        rows = self.catalog.resolve(uuid, kind, cache=cache, build=build)
        for row in sorted(rows, key=lambda r: r.kind is not Kind.EXECUTABLE):  # stable: keeps the preference
            if stat := self.store.stat(blob_key(row.sha256)):
                return Found(row, stat.stored_size)
        return None

    def variants(self, uuid: UUID) -> list[Occurrence]:
        """Return all contents under one UUID, preferred first."""
        return self.catalog.resolve(uuid)

    def holdings(self, uuids: Sequence[UUID]) -> dict[UUID, list[Occurrence]]:
        """Return all contents under each of many UUIDs; unknown ones are left out."""
        return self.catalog.holdings(uuids)

    def by_name(self, pattern: str) -> list[Occurrence]:
        """Return the contents whose path or name matches a glob."""
        return self.catalog.by_name(pattern)

    def releases(self) -> list[ReleaseRow]:
        """Return the builds that the library holds something of, newest first."""
        return self.catalog.releases()

    def cache_file(self, cache_uuid: UUID, name: str) -> CacheFileFound | None:
        """Return one kept raw file of a shared cache, or None."""
        for row in self.catalog.cache_files_of(cache_uuid):
            if row["name"] == name and (stat := self.store.stat(blob_key(row["sha256"].hex()))):
                return CacheFileFound(name, row["sha256"].hex(), row["size"], stat.stored_size)
        return None

    def open_stored(self, sha256: str) -> BinaryIO:
        """Open a blob as it lies in the store: one zstd frame."""
        return self.store.open(blob_key(sha256))

    def read_blob(self, sha256: str, size: int) -> Iterator[bytes]:
        """Yield the content of a blob; reaching the end without IntegrityError proves it right."""
        return iter(BlobReader(self.store, sha256, size))

    def materialize(self, sha256: str, size: int, target: Path) -> None:
        """Write the checked content of a blob to `target`, whole or not at all."""
        decode_to(self.store, sha256, size, target)

    def ingest(self, staged: Staged, progress: Progress | None = None) -> IngestResult:
        """Store everything staged, then one record. Can be stopped anywhere and run again at no loss.

        The record is sealed when nothing is wrong and every manifest entry has its object. One file that cannot
        be used is named in `problems`; a store that refuses ends the run.
        """
        started = staged.started or now()
        problems = list(staged.problems)
        objects: list[ObjectEntry] = []
        cache_files: list[CacheFile] = []
        stored = skipped = done = 0
        total = sum(o.size for o in staged.objects) + sum(f.file.stat().st_size for f in staged.cache_files)
        pool = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="ingest")  # zstd and SHA-256 free the GIL
        try:
            object_jobs = {pool.submit(self._put_object, o): o for o in staged.objects}
            file_jobs = {pool.submit(put_blob, self.store, f.file): f for f in staged.cache_files}
            pending = {*object_jobs, *file_jobs}
            while pending:
                finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
                for job in finished:
                    try:
                        sha256, size, new = job.result()
                    except StorageError:
                        raise  # the store refuses: nothing further can succeed
                    except (SymcacheError, OSError) as error:
                        problems.append(str(error))
                        continue
                    done += size
                    stored, skipped = stored + new, skipped + (not new)
                    if job in object_jobs:
                        o = object_jobs[job]
                        objects.append(
                            ObjectEntry(
                                path=o.path,
                                arch=o.arch,
                                uuid=o.uuid,
                                kind=o.kind,
                                origin=o.origin,
                                cache_uuid=o.cache_uuid,
                                extractor=o.extractor,
                                revision=o.revision,
                                sha256=sha256,
                                size=size,
                            )
                        )
                    else:
                        f = file_jobs[job]
                        cache_files.append(
                            CacheFile(
                                name=f.name,
                                cache_uuid=f.cache_uuid,
                                arch=f.arch,
                                path=f.path,
                                sha256=sha256,
                                size=size,
                            )
                        )
                if progress:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)

        have = {(o.path, o.arch, o.uuid, o.kind, o.cache_uuid) for o in objects}
        missing = [m for m in staged.manifest if (m.path, m.arch, m.uuid, m.kind, m.cache_uuid) not in have]
        # What is about to be promised is looked at once more.
        promised = [(o.path, o.sha256) for o in objects] + [(f.path, f.sha256) for f in cache_files]
        problems += [
            f"{path}: its blob {sha256} is gone"
            for path, sha256 in promised
            if self.store.stat(blob_key(sha256)) is None
        ]
        record = HarvestRecord(
            trust=staged.trust,
            release=staged.release,
            source=staged.source,
            extractor=staged.extractor,
            tool=f"symcache {__version__}",
            operator=_operator(),
            started=started,
            finished=now(),
            sealed=not problems and not missing and bool(objects),
            manifest=tuple(staged.manifest),
            objects=tuple(sorted(objects, key=lambda o: (o.path, o.arch, o.kind))),
            cache_files=tuple(sorted(cache_files, key=lambda f: (f.path, f.arch))),
            problems=tuple(problems),
        )
        _, identity = write_record(self.store, record, _writer_id())
        self.refresh()
        return IngestResult(identity, record.sealed, stored, skipped, missing, problems)

    def _put_object(self, staged: StagedObject) -> tuple[str, int, bool]:
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
        return put_blob(self.store, staged.file, staged.offset, staged.size)


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _writer_id() -> str:
    """Return this machine's name as a writer of records: a random word, made once and kept."""
    path = platformdirs.user_state_path("symcache") / "writer"
    try:
        text = path.read_text().strip()
        if text.isalnum() and text.islower() and len(text) == 32:
            return text
    except OSError:
        pass
    fresh = uuid_module.uuid4().hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".writer-{fresh}")
        temporary.write_text(fresh + "\n")
        try:
            os.link(temporary, path)  # the first process wins, so that all agree
        except FileExistsError:
            return path.read_text().strip() or fresh
        finally:
            temporary.unlink()
    except OSError:
        pass  # no home to keep it in: a writer for this run only
    return fresh


def _catalog_path(store: Store) -> Path:
    """Return where this machine keeps its catalog: in a local library if that may be written, else in its caches."""
    if isinstance(store, LocalStore) and os.access(store.root, os.W_OK):
        return store.root / "catalog.db"
    name = hashlib.sha256(store.location.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("symcache") / "catalogs" / f"{name}.db"


def default_location() -> str:
    """Return the library that is used when none is named: in the user's data folder."""
    return str(platformdirs.user_data_path("symcache") / "library")


def require(found: Found | None, what: str) -> Found:
    """Return `found`, or raise NotFoundError about `what`."""
    if found is None:
        raise NotFoundError(f"{what}: not in the library", hint="harvest the release that holds it, or ask a --server")
    return found
