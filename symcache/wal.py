"""Turning a SQLite file that several processes open at once to write-ahead logging."""

from __future__ import annotations

import sqlite3

import tenacity

__all__ = ["enable_wal"]

_PATIENCE = 60.0
"""Seconds, like the timeout of the connections."""


def enable_wal(connection: sqlite3.Connection) -> None:
    """Switch the file of a connection that is in no transaction to WAL, and wait for others who do the same.

    SQLite gives "database is locked" at once, whatever the timeout of the connection, to one of two who both switch a
    new file. Raises sqlite3.Error.
    """
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception(_busy),
        wait=tenacity.wait_random(0.005, 0.05),
        stop=tenacity.stop_after_delay(_PATIENCE),
        reraise=True,
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()


def _busy(error: BaseException) -> bool:
    # The low byte is the result code, whatever the extended one says beside.
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
