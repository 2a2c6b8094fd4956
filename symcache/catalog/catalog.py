"""Folding records into SQLite, and asking it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlite_utils import Database

from symcache.catalog.schema import SCHEMA_VERSION, create, release_order
from symcache.errors import StorageError
from symcache.model import HarvestRecord, Kind, Trust

__all__ = ["Catalog", "Occurrence", "ReleaseRow"]

_NONE = b""
"""An absent UUID in key columns: SQLite would let several NULLs stand beside each other."""
_TRUST_RANK = {Trust.HARVEST: 0, Trust.ADDED: 1, Trust.PUSHED: 2}
_VARIABLES = 500
"""Keys in one statement, well under SQLite's limit."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One stored content of one image in one record. Sizes in bytes, SHA-256 in lower-case hex."""

    uuid: UUID | None
    kind: Kind
    path: str
    arch: str
    origin: str
    cache_uuid: UUID | None
    extractor: str
    revision: int
    sha256: str
    size: int
    build: str | None
    version: str
    sealed: bool
    record: str


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One build and what the library has of it."""

    product: str
    version: str
    extra: str
    build: str
    sealed: bool
    harvests: int
    images: int


_COLUMNS = (
    "i.uuid, i.kind, i.path, i.arch, i.origin, i.cache_uuid, i.extractor, i.revision, i.sha256, i.size,"
    " r.build, r.version, r.sealed, r.sha256"
)
# The order in which contents of one UUID are preferred. Every term is a field of the record or a hash, so any
# library with the same records answers the same: trust, sealed, newest release, own extractor, newest revision.
_PREFERENCE = (
    "r.trust, r.sealed DESC, r.release_order DESC, i.extractor = 'symcache' DESC, i.revision DESC,"
    " r.finished DESC, r.sha256, i.path"
)


class Catalog:
    """A catalog file. Safe for several threads and processes: WAL, and one lock around this connection."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=60)
            connection.isolation_level = None  # transactions are begun by hand, as IMMEDIATE
            self.database = Database(connection)
            version = self._one("PRAGMA user_version")[0]
            if version != SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                with self._transaction():
                    self._rebuild_schema()
            connection.execute("PRAGMA synchronous = NORMAL")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"catalog {path}: {error}", hint="delete this file: it is folded anew") from error

    def close(self) -> None:
        """Close the connection."""
        self.database.conn.close()

    def known_keys(self) -> set[str]:
        """Return the store keys of the records that are folded in."""
        return {row[0] for row in self._all("SELECT key FROM records")}

    def fold(self, key: str, sha256: str, record: HarvestRecord) -> bool:
        """Add one record; False when it is there already. All or nothing."""
        release = record.release
        with self._lock, self._transaction():
            execute = self.database.conn.execute
            # Not INSERT OR IGNORE: `lastrowid` would then be that of some earlier row.
            if self._one("SELECT count(*) FROM records WHERE key = ?", (key,))[0]:
                return False
            row_id = execute(
                "INSERT INTO records (sha256, key, trust, product, version, extra, build, release_order, sealed,"
                " source, extractor, tool, operator, started, finished, problems) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    sha256,
                    key,
                    _TRUST_RANK[record.trust],
                    release.product if release else "",
                    release.version if release else "",
                    release.extra if release else "",
                    release.build if release else None,
                    release_order(release.version, release.build) if release else "",
                    record.sealed,
                    record.source,
                    record.extractor,
                    record.tool,
                    record.operator,
                    record.started,
                    record.finished,
                    "\n".join(record.problems),
                ),
            ).lastrowid
            many = self.database.conn.executemany
            many(
                "INSERT OR IGNORE INTO images VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    (
                        o.uuid.bytes if o.uuid else _NONE,
                        o.kind.value,
                        o.cache_uuid.bytes if o.cache_uuid else _NONE,
                        row_id,
                        o.path,
                        o.extractor,
                        o.revision,
                        o.arch,
                        o.origin.value,
                        bytes.fromhex(o.sha256),
                        o.size,
                    )
                    for o in record.objects
                ),
            )
            many(
                "INSERT OR IGNORE INTO manifest VALUES (?,?,?,?,?,?,?)",
                (
                    (
                        row_id,
                        m.path,
                        m.arch,
                        m.uuid.bytes if m.uuid else _NONE,
                        m.kind.value,
                        m.origin.value,
                        m.cache_uuid.bytes if m.cache_uuid else _NONE,
                    )
                    for m in record.manifest
                ),
            )
            many(
                "INSERT OR IGNORE INTO cache_files VALUES (?,?,?,?,?,?,?)",
                (
                    (
                        row_id,
                        f.cache_uuid.bytes if f.cache_uuid else _NONE,
                        f.name,
                        f.arch,
                        f.path,
                        bytes.fromhex(f.sha256),
                        f.size,
                    )
                    for f in record.cache_files
                ),
            )
        return True

    def resolve(
        self, uuid: UUID, kind: Kind | None = None, *, cache: UUID | None = None, build: str | None = None
    ) -> list[Occurrence]:
        """Return every content under `uuid`, the preferred one first; narrowed to a cache or a build if given."""
        where = "i.uuid = ?"
        parameters: list[Any] = [uuid.bytes]
        if kind is not None:
            where, parameters = f"{where} AND i.kind = ?", [*parameters, kind.value]
        if cache is not None:
            where, parameters = f"{where} AND i.cache_uuid = ?", [*parameters, cache.bytes]
        if build is not None:
            where, parameters = f"{where} AND r.build = ?", [*parameters, build]
        return self._occurrences(where, parameters)

    def holdings(self, uuids: Sequence[UUID]) -> dict[UUID, list[Occurrence]]:
        """Return every content of every one of `uuids`, preferred first; those unknown are left out."""
        found: dict[UUID, list[Occurrence]] = {}
        for start in range(0, len(uuids), _VARIABLES):
            part = [u.bytes for u in uuids[start : start + _VARIABLES]]
            for row in self._occurrences(f"i.uuid IN ({','.join('?' * len(part))})", part):
                if row.uuid:
                    found.setdefault(row.uuid, []).append(row)
        return found

    def by_name(self, pattern: str, limit: int = 1000) -> list[Occurrence]:
        """Return the contents whose path, or last part of it, matches the glob `pattern`."""
        glob = pattern if pattern.startswith("/") else f"*/{pattern}"
        return self._occurrences("(i.path GLOB ? OR i.path = ?)", [glob, pattern], limit)

    def releases(self) -> list[ReleaseRow]:
        """Return all builds, newest first."""
        rows = self._all(
            "SELECT product, version, extra, build, sealed, harvests, images FROM releases ORDER BY release_order DESC"
        )
        return [ReleaseRow(p, v, e, b, bool(s), h, i) for p, v, e, b, s, h, i in rows]

    def records_of(self, build: str | None) -> list[dict[str, Any]]:
        """Return the rows of `records` of one build (or of all that have a build), in a stable order."""
        where, parameters = ("build = ?", [build]) if build is not None else ("build IS NOT NULL", [])
        return list(self._rows("records", where, parameters, "release_order, sha256"))

    def objects_of(self, record: int) -> list[Occurrence]:
        """Return what one record stored."""
        return self._occurrences("i.record = ?", [record])

    def manifest_of(self, record: int) -> list[dict[str, Any]]:
        """Return the manifest rows of one record; UUIDs as BLOBs, empty for none."""
        return list(self._rows("manifest", "record = ?", [record], "path, arch, kind"))

    def cache_files_of(self, cache: UUID | None = None, record: int | None = None) -> list[dict[str, Any]]:
        """Return the kept raw files of one cache, or of one record."""
        if record is not None:
            return list(self._rows("cache_files", "record = ?", [record], "name"))
        return list(self._rows("cache_files", "cache_uuid = ?", [cache.bytes if cache else _NONE], "name, sha256"))

    def _occurrences(self, where: str, parameters: Sequence[Any], limit: int = -1) -> list[Occurrence]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM images i JOIN records r ON r.id = i.record WHERE {where}"  # noqa: S608 - constants
            f" ORDER BY {_PREFERENCE} LIMIT ?",
            [*parameters, limit],
        )
        return [
            Occurrence(
                UUID(bytes=row[0]) if row[0] else None,
                Kind(row[1]),
                row[2],
                row[3],
                row[4],
                UUID(bytes=row[5]) if row[5] else None,
                row[6],
                row[7],
                row[8].hex(),
                row[9],
                row[10],
                row[11],
                bool(row[12]),
                row[13],
            )
            for row in rows
        ]

    def _rows(self, table: str, where: str, parameters: Sequence[Any], order: str) -> Iterator[dict[str, Any]]:
        with self._lock:
            yield from list(self.database[table].rows_where(where, list(parameters), order_by=order))

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return list(self.database.conn.execute(sql, parameters).fetchall())
            except sqlite3.Error as error:
                raise StorageError(f"catalog: {error}", hint="delete the catalog file: it is folded anew") from error

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        return self._all(sql, parameters)[0]

    def _rebuild_schema(self) -> None:
        if self._one("PRAGMA user_version")[0] == SCHEMA_VERSION:
            return  # another process was faster
        objects: Iterable[tuple[Any, ...]] = self._all(
            "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table') AND name NOT LIKE 'sqlite_%'"
            " ORDER BY type DESC"
        )
        for kind, name in objects:
            self.database.conn.execute(f'DROP {kind} IF EXISTS "{name}"')
        create(self.database)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self.database.conn
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
