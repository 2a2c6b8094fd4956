"""The catalog's database: opening, folding records in, copying, checking."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlite_utils import Database

from symcache.catalog.fold import Indexer
from symcache.catalog.schema import SCHEMA_VERSION, create, create_indexes, create_notes, upgrade
from symcache.catalog.views import CONTENT
from symcache.errors import StorageError
from symcache.model import Record
from symcache.wal import enable_wal

__all__ = ["FAILURES", "REBUILD", "CatalogFile", "copy_catalog", "in_parts", "refusal"]

REBUILD = "run `symcache rebuild`: the catalog is folded anew from the records"
_DELETE = "delete this file: it is folded anew"
_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_PERMISSIONS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY})
_OTHERS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LEAST_ROOM = 1 << 20
_VARIABLES = 500
"""Keys in one statement, well under SQLite's limit."""

FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; of a damaged schema it quotes bytes that Python cannot make a message of."""


class CatalogFile:
    """A catalog file. Safe for several threads and processes: WAL, and one lock around this connection."""

    def __init__(self, path: Path | None, *, filling: bool = False) -> None:
        """Open or make a catalog; None keeps it in memory.

        `filling` is for a new one that nobody else reads yet: no journal, and indexes only when `filled` is called.
        """
        self.path = path
        self._lock = threading.RLock()
        self._folded = -1
        """`data_version` when something was last folded in."""
        self._seen = (-1, -1)
        """`data_version` and `total_changes` of the connection when its records were last looked at."""
        connection = None
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=60)
            connection.isolation_level = None  # transactions are begun by hand, as IMMEDIATE
            self.database = Database(connection)
            self._indexer = Indexer(self.database)
            if filling:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                create(self.database, indexes=False)
            else:
                # A copy that SQLite made is not in this mode, and whoever reads it would keep others from writing.
                if path is not None and self._one("PRAGMA journal_mode")[0] != "wal":
                    enable_wal(connection)
                if self._one("PRAGMA user_version")[0] != SCHEMA_VERSION:
                    with self._transaction():
                        upgrade(self.database)
            connection.execute(f"PRAGMA synchronous = {'OFF' if filling else 'NORMAL'}")
            connection.execute("PRAGMA cache_size = -131072")  # KiB
            connection.execute("PRAGMA mmap_size = 8589934592")
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, (*FAILURES, OSError)):
                raise refusal(path, error, _DELETE) from error
            raise

    def close(self) -> None:
        """Close the connection, once no other thread is in the midst of using it: SQLite would crash."""
        with self._lock:
            self.database.conn.close()

    def fold(self, key: str, sha256: str, record: Record, validator: str = "") -> bool:
        """Add one record; return False if it is there already. All or nothing."""
        return bool(self.fold_many([(key, sha256, record)], {key: validator} if validator else {}))

    def fold_many(self, records: Sequence[tuple[str, str, Record]], validators: Mapping[str, str] | None = None) -> int:
        """Add records in one transaction; return how many were new. `validators`: of where they lie."""
        new = 0
        with self._lock:
            try:
                with self._transaction():
                    self._check_version()
                    # Remembered numbers are those of this file, unless another process has put a new one there.
                    version = self.data_version()
                    if version != self._folded:
                        self._indexer.forget()
                        self._folded = version
                    for key, sha256, record in records:
                        new += self._indexer.fold(key, sha256, record)
                    if validators:
                        create_notes(self.database)
                        sql = "INSERT OR REPLACE INTO record_marks VALUES (?,?)"
                        self.database.conn.executemany(sql, validators.items())
            except BaseException as error:
                self._indexer.forget()
                if isinstance(error, FAILURES):
                    raise refusal(self.path, error) from error
                raise
            self._seen = (-1, -1)
        return new

    def filled(self) -> None:
        """Make the indexes that a catalog opened for `filling` still lacks."""
        with self._lock:
            try:
                create_indexes(self.database)
            except FAILURES as error:
                raise refusal(self.path, error) from error

    def replace_with(self, other: Self) -> None:
        """Take over everything that another catalog holds, in one step for those who read."""
        with self._lock:
            try:
                other.database.conn.backup(self.database.conn)
            except FAILURES as error:
                raise refusal(self.path, error, _DELETE) from error
            self._indexer.forget()
            self._seen = (-1, -1)

    def snapshot(self, target: Path) -> int:
        """Write a compact copy of this catalog to the new file `target`; return how many records it holds."""
        self._all("VACUUM INTO ?", (str(target),))
        try:
            with contextlib.closing(sqlite3.connect(target)) as copy, copy:
                # What was seen to vanish is this machine's own affair.
                copy.execute("DROP TABLE IF EXISTS lost_records")
                return int(copy.execute("SELECT count(*) FROM record_keys").fetchone()[0])
        except sqlite3.Error as error:
            raise refusal(target, error) from error

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Have all that is read inside be of one moment, whatever other processes write meanwhile."""
        with self._lock:
            try:
                self.database.conn.execute("BEGIN")
                try:
                    yield
                finally:
                    if self.database.conn.in_transaction:
                        self.database.conn.execute("ROLLBACK")
            except FAILURES as error:
                raise refusal(self.path, error) from error

    def fingerprint(self) -> str:
        """Return a hash of everything that is held, whatever the order it was folded in: equal content, equal hash."""
        total = 0
        with self._lock:
            for name, sql in CONTENT.items():
                for row in self.database.conn.execute(sql):
                    digest = hashlib.blake2b(f"{name} {row}".encode(), digest_size=16).digest()
                    total = (total + int.from_bytes(digest, "big")) % (1 << 128)
        return f"{total:032x}"

    def check(self) -> list[str]:
        """Return what SQLite's own check of the file finds wrong; empty when it is sound."""
        try:
            return [row[0] for row in self._all("PRAGMA integrity_check(20)") if row[0] != "ok"]
        except StorageError as error:
            return [str(error)]

    def data_version(self) -> int:
        """Return a number that changes when another connection changes the file."""
        return int(self._one("PRAGMA data_version")[0])

    def _check_version(self) -> None:
        """Raise StorageError if a program with another schema has made this file anew since it was opened."""
        (version,) = self._one("PRAGMA user_version")
        if version != SCHEMA_VERSION:
            text = f"catalog {self.path or ''}: made anew by another version of symcache (schema {version})"
            raise StorageError(
                f"{text}; this process needs schema {SCHEMA_VERSION}",
                hint="restart this one with the version that the others have: a library in a folder has one catalog",
            )

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return list(self.database.conn.execute(sql, parameters).fetchall())
            except FAILURES as error:
                raise refusal(self.path, error) from error

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        return self._all(sql, parameters)[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self.database.conn
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite has ended it itself where a disk is full
                connection.execute("ROLLBACK")
            raise


def copy_catalog(source: Path, target: Path) -> None:
    """Write a compact copy of a catalog file, which others may have open, to the new file `target`."""
    try:
        with contextlib.closing(sqlite3.connect(source, timeout=60)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except FAILURES as error:
        raise refusal(source, error, _DELETE) from error


def in_parts(uuids: Collection[UUID]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield as many UUIDs at once as a statement may have for values, each time with the marks for them."""
    values = [u.bytes for u in uuids]
    for start in range(0, len(values), _VARIABLES):
        part = values[start : start + _VARIABLES]
        yield ",".join("?" * len(part)), part


def refusal(path: Path | None, error: BaseException, otherwise: str = REBUILD) -> StorageError:
    """Return the error that says what SQLite refuses about a catalog, and what to do about it: `otherwise` last."""
    # The low byte is the result code, whatever the extended one says beside.
    code, text, hint = getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error), otherwise
    if code in _PERMISSIONS or isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        hint = "check the permissions of this file and its folder"
    elif code in _DISK or isinstance(error, OSError):
        hint = "free some space on its disk, or see what is wrong with that, and run the same command again"
        with contextlib.suppress(OSError):
            if path is not None and shutil.disk_usage(path.parent).free < _LEAST_ROOM:
                text = f"the disk is full ({text})"
    elif code in _OTHERS:
        hint = "another process has kept it for a minute: see which, and run the same command again"
    return StorageError(f"catalog {path or ''}: {text}", hint=hint)
