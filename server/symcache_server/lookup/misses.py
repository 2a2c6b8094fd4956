"""What was requested and nobody had: the list of what to harvest next.

A SQLite file shared by all server processes of a user. Misses are gathered in memory and written now and then, so
that a burst of them costs one transaction.
"""

from __future__ import annotations

import sqlite3
import threading
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
_MOST_KEPT = 1_000_000
"""Anybody can request random UUIDs: the oldest misses are removed."""


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
    """The log in the file `path`."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str, str, str], tuple[int, str]] = {}
        """(UUID, kind, cache, build) to (how often, name)."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
            enable_wal(connection)
            self._database = Database(connection)
            with connection:
                # One process at a time looks whether the column is there, and adds it.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                if "name" not in self._database["misses"].columns_dict:
                    connection.execute("ALTER TABLE misses ADD COLUMN name TEXT NOT NULL DEFAULT ''")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"log of misses {path}: {error}",
                hint="free some space if there is none; else delete this file: it is made anew",
            ) from error

    def add(self, uuid: UUID, kind: str, cache: UUID | None = None, build: str | None = None, name: str = "") -> None:
        """Count one miss; cheap, written by `flush`."""
        key = (uuid_text(uuid), kind, uuid_text(cache) if cache else "", build or "")
        with self._lock:
            if key in self._pending or len(self._pending) < _MOST_PENDING:
                times, known = self._pending.get(key, (0, ""))
                self._pending[key] = times + 1, name or known

    def flush(self) -> None:
        """Write what was counted."""
        with self._lock:
            if not (pending := self._pending):
                return
            now = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                with self._database.conn:
                    self._database.conn.executemany(
                        _ADD,
                        (
                            {"uuid": u, "kind": k, "cache": c, "build": b, "now": now, "times": times, "name": name}
                            for (u, k, c, b), (times, name) in pending.items()
                        ),
                    )
                    self._database.execute(
                        "DELETE FROM misses WHERE (SELECT count(*) FROM misses) > :most AND last_asked <"
                        " (SELECT last_asked FROM misses ORDER BY last_asked DESC LIMIT 1 OFFSET :most)",
                        {"most": _MOST_KEPT},
                    )
            except sqlite3.Error as error:
                raise StorageError(f"log of misses: {error}", hint="free some space or delete it") from error
            self._pending = {}

    def recent(self, limit: int = 1000) -> list[Miss]:
        """Return what was requested most often, newest first among equals."""
        self.flush()
        with self._lock:
            rows = self._database.execute(
                "SELECT uuid, kind, cache, build, first_asked, last_asked, times, name FROM misses"
                " ORDER BY times DESC, last_asked DESC, uuid LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            Miss(UUID(u), k, UUID(c) if c else None, b or None, first, last, t, n)
            for u, k, c, b, first, last, t, n in rows
        ]

    def close(self) -> None:
        """Write what was counted and close the file."""
        try:
            self.flush()
        finally:
            with self._lock:  # a thread that was not waited for may still write
                self._database.conn.close()
