"""The facade over one store and this machine's catalog of it."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID

from symcache.catalog import Catalog, CollectedImage, Conflict, Occurrence, ReleaseRow
from symcache.errors import NotFoundError, StorageError, UsageError
from symcache.images import ImageRequest
from symcache.library import snapshots
from symcache.library.record_log import RecordReader
from symcache.library.results import Found, StoredCacheFile
from symcache.library.user_dirs import catalog_path, writer_id
from symcache.model import Kind, Record, ReleaseId
from symcache.store import (
    MARKER,
    PATIENCE,
    BlobReader,
    Store,
    blob_key,
    decode_to,
    make_library_id,
    open_store,
    read_library_id,
    write_record,
)
from symcache.text import excerpt

__all__ = ["Found", "Library", "StoredCacheFile", "several_releases"]

_MANY = 8
"""Records that are folded at one go into an empty catalog."""


class Library:
    """One library. Reading methods are cheap enough to be called where they are needed."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self.store, self.catalog = store, catalog
        self._lock = threading.Lock()
        self._reader = RecordReader(store)
        folded = self._reader.start(catalog)
        if not folded and sum(1 for _ in itertools.islice(store.list("records/"), _MANY)) == _MANY:
            self.rebuild()  # the same as folding one by one, but faster
        else:
            self.refresh()

    @classmethod
    def open(
        cls, location: str | Path, *, create: bool = False, repair: bool = False, patience: float = PATIENCE
    ) -> Library:
        """Open the library at `location`, making it if `create`. Raises NotFoundError, StorageError.

        With `repair`, a catalog that SQLite cannot open is thrown away and folded anew. `patience`: seconds that an
        object store may be away before what needs it fails.
        """
        store = open_store(str(location), create=create, patience=patience)
        identity = make_library_id(store) if create else read_library_id(store)
        path = catalog_path(store, identity)
        snapshots.start_from(store, path, identity, earlier=catalog_path(store, ""))
        try:
            return cls._over(store, path)
        except StorageError:
            if not repair:
                raise
            snapshots.remove_database(path)
            return cls._over(store, path)

    @classmethod
    def _over(cls, store: Store, path: Path) -> Library:
        catalog = Catalog(path)
        try:
            return cls(store, catalog)
        except BaseException:
            catalog.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()

    # Records

    @property
    def unreadable(self) -> dict[str, str]:
        """Records that could not be folded in: key and reason."""
        return self._reader.unreadable

    def refresh(self, *, whole: bool = False) -> bool:
        """Fold in the records that have come since; return True if there were any.

        Each writer counts its records, so that two requests a writer are enough where nothing is new: is its last
        record still there, and is there a next? Records that could not be read are tried again. With `whole`, every
        record is looked at; so it is where the library has no id.

        A catalog that is of another library, which was at this place before, is folded anew. So is one of a later state
        of this one, or which may be of another one that had no id: `lost` tells what it knew. Raises StorageError where
        no library is any more.
        """
        with self._lock:
            for _ in range(2):
                identity, noted = read_library_id(self.store), self.catalog.library_id()
                if identity and noted and identity != noted:
                    break
                if noted != self._reader.library_id:
                    self._reader.start(self.catalog)  # another process has folded it anew
                # What is known comes first: what comes from now on is no loss.
                known = self.catalog.known_keys() if whole or not identity or not noted else None
                listing = self._reader.scan(whole=known is not None)
                if not self._reader.gone(self.catalog, listing, known):
                    changed = self._reader.fold(self.catalog, self._reader.new_records(listing, known))
                    if identity != noted and identity:
                        self.catalog.note_library_id(identity)
                        self._reader.library_id = identity
                    return changed
                self._reader.start(self.catalog)  # another process may have folded it anew already
            if self.store.stat(MARKER) is None:
                raise StorageError(
                    f"{self.store.location}: the library is gone: {MARKER} is not there",
                    hint="if it lies on another machine, see that it can be reached",
                )
            self._fold_anew()
            return True

    def rebuild(self, *, accept_losses: bool = False) -> int:
        """Fold the catalog anew from all records, at once for everybody who reads it; return how many there are.

        Records that the catalog knew and that are not there any more count as lost, unless `accept_losses`.
        """
        with self._lock:
            self._fold_anew(accept_losses=accept_losses)
        return len(self.catalog.known_keys())

    def _fold_anew(self, *, accept_losses: bool = False) -> None:
        identity, noted = read_library_id(self.store), ""
        before: dict[str, str] = {}
        with contextlib.suppress(StorageError):  # a damaged catalog remembers nothing
            noted = self.catalog.library_id()
            if not accept_losses and not (identity and noted and identity != noted):
                before = self.catalog.lost() | {r.sha256: key for key, r in self.catalog.folded().items()}
        scratch = snapshots.scratch_name(self.catalog.path) if self.catalog.path else None
        try:
            with contextlib.closing(Catalog(scratch, filling=True)) as fresh:
                reader = RecordReader(self.store)
                reader.fold(fresh, reader.scan(whole=True).records())
                # One that cannot be read is known to be wrong anyway.
                fresh.note_lost({sha256: key for sha256, key in before.items() if key not in reader.unreadable})
                fresh.note_library_id(identity or noted)
                fresh.filled()
                self.catalog.replace_with(fresh)
                reader.library_id = identity or noted
                self._reader = reader
        finally:
            snapshots.remove_database(scratch)

    def gaps(self) -> list[str]:
        """Return the keys of records that must have been, since the same writer wrote later ones, but are not there."""
        with self._lock:
            return self._reader.gaps(self.catalog.known_keys(), self._reader.scan(whole=True))

    def lost(self) -> dict[str, str]:
        """Return the keys of records that must have been and are not there any more, and what tells so."""
        known = self.catalog.lost().values()
        result = {key: f"{key}: the record that this machine's catalog knew there is gone" for key in known}
        return result | {key: f"{key}: not there, although it must have been written" for key in self.gaps()}

    def write(self, record: Record) -> str:
        """Add a record of this machine; return its id. The library gets an id, if it has none."""
        make_library_id(self.store)
        return write_record(self.store, record, writer_id())[1]

    # Look-up

    def resolve(self, request: ImageRequest, *, or_unbound: bool = False) -> Found | None:
        """Return the preferred content for a UUID whose blob is there, or None.

        Under a pin, what lies in no cache or belongs to no release is taken `or_unbound` only. What has less trust than
        anything else under the UUID, of either kind, is never returned. Where a blob is lost, another right content may
        be, but none that contradicts the lost one.
        """
        for rows in self._believed(request, or_unbound=or_unbound):
            usable = [r for r in rows if r.kind is request.kind]
            for row in usable:
                if row.rival or row.trust is not usable[0].trust:
                    continue
                if stat := self.store.stat(blob_key(row.sha256)):
                    return Found(row, stat.stored_size)
        return None

    def _believed(self, request: ImageRequest, *, or_unbound: bool) -> Iterator[list[Occurrence]]:
        uuid, _, cache, build = request
        yield self.catalog.believed(uuid, cache=cache, build=build)
        if or_unbound and (cache, build) != (None, None):
            yield self.catalog.unbound(uuid, cache=cache, build=build)

    def has_a_say(self, request: ImageRequest) -> bool:
        """Return whether anything here may be served for a UUID, whatever its kind: nothing trusted less is then."""
        return any(self._believed(request, or_unbound=True))

    def variants(self, uuid: UUID) -> list[Occurrence]:
        """Return all contents under one UUID, preferred first."""
        return self.catalog.resolve(uuid)

    def holdings(self, uuids: Sequence[UUID]) -> dict[UUID, list[Occurrence]]:
        """Return all contents under each of many UUIDs; unknown ones are left out."""
        return self.catalog.holdings(uuids)

    def collected(self, uuid: UUID) -> list[CollectedImage]:
        """Return the kernel collections that hold an image with this UUID."""
        return self.catalog.collected(uuid)

    def sources(self, uuids: Sequence[UUID]) -> dict[UUID, list[tuple[str, str]]]:
        """Return what dSYMs noted of their sources, as (recorded folder, place); UUIDs without are left out.

        A place is a folder or `git:REPOSITORY@REVISION`, on a machine that nobody here knows.
        """
        return self.catalog.sources(uuids)

    def by_name(
        self,
        pattern: str,
        limit: int = 1000,
        *,
        kind: Kind | None = None,
        build: str | None = None,
        cache: UUID | None = None,
        arch: str | None = None,
    ) -> list[Occurrence]:
        """Return the contents whose path or name matches a glob; fewer than `limit` are all that there are."""
        return self.catalog.by_name(pattern, limit, kind=kind, build=build, cache=cache, arch=arch)

    def releases(self) -> list[ReleaseRow]:
        """Return the releases that the library holds something of, newest first."""
        return self.catalog.releases()

    def release_id(self, name: str) -> ReleaseId:
        """Return the release that is meant by a build, or by `PRODUCT:BUILD`, which is how any is meant for certain.

        Raises NotFoundError where the library has nothing of it, and UsageError for a build of several systems.
        """
        meant = self.catalog.releases_named(name)
        if not meant:
            raise NotFoundError(
                f"{excerpt(name, 130)}: the library has nothing of this build",
                hint="`symcache releases` lists what it has",
            )
        if len(meant) > 1:
            raise several_releases(name, meant)
        return meant[0]

    def conflicts(self) -> list[Conflict]:
        """Return every UUID whose contents contradict each other."""
        return self.catalog.conflicts()

    def cache_file(self, cache_uuid: UUID, name: str) -> StoredCacheFile | None:
        """Return one kept raw file of a shared cache, or None; its headers and tables alone where no more is kept."""
        for row in sorted(self.catalog.cache_files_of(cache_uuid), key=lambda row: row.partial):
            if row.name == name and (stat := self.store.stat(blob_key(row.sha256))):
                return StoredCacheFile(name, row.sha256, row.size, stat.stored_size)
        return None

    def open_stored(self, sha256: str) -> BinaryIO:
        """Open a blob as it lies in the store: zstd frames."""
        return self.store.open(blob_key(sha256))

    def read_blob(self, sha256: str, size: int) -> Iterator[bytes]:
        """Yield the content of a blob; reaching the end without IntegrityError proves it right."""
        return iter(BlobReader(self.store, sha256, size))

    def materialize(self, sha256: str, size: int, target: Path) -> None:
        """Write the checked content of a blob to `target`, whole or not at all."""
        decode_to(self.store, sha256, size, target)


def several_releases(name: str, releases: Sequence[ReleaseId]) -> UsageError:
    """Return the error that says which releases a build may be of."""
    return UsageError(
        f"{name}: is a build of {' and of '.join(excerpt(r.product) for r in releases)}",
        hint=f"name the one that is meant: {', '.join(shlex.quote(excerpt(str(r))) for r in releases)}",
    )
