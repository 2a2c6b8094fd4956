"""The log of misses: what was requested and nobody had, so what to harvest next.

A SQLite file that all server processes of a user share. Misses are collected in memory and written every few seconds,
so that a burst of them costs one transaction. Adding one never waits for the file, which others may have locked.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from sqlite_utils import Database

from symcache.errors import StorageError
from symcache.model import uuid_text
from symcache.wal import enable_wal

__all__ = ["Miss", "MissLog"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS misses (
    uuid TEXT NOT NULL, kind TEXT NOT NULL, cache TEXT NOT NULL, build TEXT NOT NULL,
    first_asked TEXT NOT NULL, last_asked TEXT NOT NULL, times INTEGER NOT NULL, name TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (uuid, kind, cache, build)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO misses (uuid, kind, cache, build, first_asked, last_asked, times, name)
VALUES (:uuid, :kind, :cache, :build, :now, :now, :times, :name)
ON CONFLICT DO UPDATE SET last_asked = :now, times = times + :times,
    name = CASE WHEN :name != '' THEN :name ELSE name END
"""
_MOST_PENDING = 100_000
"""Misses in memory; further ones are dropped, and counted."""
_PATIENCE = 5.0
"""Seconds that a write waits for the lock of the file; it is tried again later."""
_READER_PATIENCE = 0.1
_MOST_KEPT = 1_000_000
"""Anybody can request random UUIDs: the oldest misses are removed."""

_Key = tuple[str, str, str, str]
"""UUID, kind, cache, build."""


@dataclass(frozen=True, slots=True)
class Miss:
    """One thing that was requested; times are UTC, ISO 8601."""

    uuid: UUID
    kind: str
    cache: UUID | None
    build: str | None
    first_asked: str
    last_asked: str
    times: int
    name: str = ""
    """File name, where a request had one."""


class MissLog:
    """The log in the file `path`, which is made when it is first written. May be used from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        """Protects what is in memory. Held for a moment only, since the event loop takes it."""
        self._pending: dict[_Key, tuple[int, str]] = {}
        """How often, and name."""
        self._dropped = 0
        self._file_lock = threading.Lock()
        """Protects the connection that writes; a thread may wait long for it."""
        self._writer: Database | None = None

    def add(self, uuid: UUID, kind: str, cache: UUID | None = None, build: str | None = None, name: str = "") -> None:
        """Count one miss; cheap, written by `flush`."""
        with self._lock:
            self._count((uuid_text(uuid), kind, uuid_text(cache) if cache else "", build or ""), 1, name)

    def _count(self, key: _Key, times: int, name: str) -> None:
        if key in self._pending or len(self._pending) < _MOST_PENDING:
            before, known = self._pending.get(key, (0, ""))
            self._pending[key] = before + times, name or known
        else:
            self._dropped += times

    def take_dropped(self) -> int:
        """Return how many misses were dropped since the last call, because nothing could be written for too long."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def flush(self) -> None:
        """Write what was counted. Raises StorageError, and keeps it then."""
        with self._file_lock:
            self._flush(_PATIENCE)

    def _flush(self, patience: float) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        try:
            with self._told():
                self._write(pending, patience)
        except StorageError:
            with self._lock:
                newer, self._pending = self._pending, pending
                for key, (times, name) in newer.items():
                    self._count(key, times, name)
            raise

    def _write(self, pending: dict[_Key, tuple[int, str]], patience: float) -> None:
        if self._writer is None:
            self._writer = self._open(patience)
        self._writer.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        if not pending:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = (
            {"uuid": u, "kind": k, "cache": c, "build": b, "now": now, "times": times, "name": name}
            for (u, k, c, b), (times, name) in pending.items()
        )
        with self._writer.conn:
            self._writer.conn.executemany(_ADD, rows)
            self._writer.execute(
                "DELETE FROM misses WHERE (SELECT count(*) FROM misses) > :most AND last_asked <"
                " (SELECT last_asked FROM misses ORDER BY last_asked DESC LIMIT 1 OFFSET :most)",
                {"most": _MOST_KEPT},
            )

    def _open(self, patience: float) -> Database:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=patience)
        try:
            enable_wal(connection)
            database = Database(connection)
            with connection:
                # Locked, so that only one process adds the column if it is not there.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                if "name" not in database["misses"].columns_dict:
                    connection.execute("ALTER TABLE misses ADD COLUMN name TEXT NOT NULL DEFAULT ''")
        except BaseException:
            connection.close()
            raise
        return database

    def recent(self, limit: int = 1000) -> list[Miss]:
        """Return what was requested most often, newest first among equals. Raises StorageError.

        What was just counted is among it, unless the file is locked or cannot be written.
        """
        if self._file_lock.acquire(timeout=_READER_PATIENCE):
            try:
                with contextlib.suppress(StorageError):
                    self._flush(_READER_PATIENCE)
            finally:
                self._file_lock.release()
        with self._told(), contextlib.closing(sqlite3.connect(self._path, timeout=_PATIENCE)) as reader:
            if not reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'misses'").fetchone():
                return []  # just being made
            rows = reader.execute(
                "SELECT uuid, kind, cache, build, first_asked, last_asked, times, name FROM misses"
                " ORDER BY times DESC, last_asked DESC, uuid LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            Miss(UUID(u), k, UUID(c) if c else None, b or None, first, last, t, n)
            for u, k, c, b, first, last, t, n in rows
        ]

    def close(self) -> None:
        """Write what was counted and close the file. Raises StorageError."""
        with self._file_lock:  # a thread that was not waited for may still write
            try:
                self._flush(_PATIENCE)
            finally:
                if self._writer is not None:
                    self._writer.conn.close()
                    self._writer = None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of the file into StorageError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"log of misses {self._path}: {error}",
                hint="free some space if there is none; else delete this file: it is made anew",
            ) from error
