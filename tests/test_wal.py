"""Files that several processes open at once for the first time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from symcache.wal import enable_wal

ROUNDS = 20
OPENERS = {
    "catalog": "from symcache.catalog import Catalog as Opened",
    "misses": "from symcache_server.lookup.misses import MissLog as Opened",
}
OPEN_MANY = """
import sys
from pathlib import Path
{}
for number in range(int(sys.argv[2])):
    folder = Path(sys.argv[1], str(number))
    sys.stdout.write(".")
    sys.stdout.flush()
    sys.stdin.readline()
    Opened(folder / "file.db").close()
"""


def test_a_file_is_switched_while_another_has_it_locked(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    impatient = sqlite3.connect(path, timeout=0)  # as SQLite is where waiting could end in a deadlock
    release = threading.Timer(0.3, holder.execute, ("COMMIT",))
    release.start()
    enable_wal(impatient)
    release.join()
    assert impatient.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_who_waits_in_vain_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache.wal._PATIENCE", 0.05)
    holder = sqlite3.connect(tmp_path / "file.db", isolation_level=None)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        enable_wal(sqlite3.connect(tmp_path / "file.db", timeout=0))


def test_what_is_no_database_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        enable_wal(sqlite3.connect(path))


def test_what_waiting_does_not_mend_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache.wal._PATIENCE", 0.1)
    connection = sqlite3.connect(tmp_path / "file.db", isolation_level=None)
    connection.execute("BEGIN")
    tried: list[str] = []
    connection.set_trace_callback(tried.append)
    with pytest.raises(sqlite3.OperationalError, match="from within a transaction"):
        enable_wal(connection)
    assert tried == ["PRAGMA journal_mode = WAL"]


@pytest.mark.parametrize("opener", OPENERS)
def test_processes_that_make_the_same_file_all_get_it(tmp_path: Path, opener: str) -> None:
    command = [sys.executable, "-c", OPEN_MANY.format(OPENERS[opener]), str(tmp_path), str(ROUNDS)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    try:
        for _ in range(ROUNDS):
            # All are at the door before the first may go in.
            ready = [process.stdout.read(1) for process in running if process.stdout]
            if ready != [b"."] * len(running):
                break
            for process in running:
                if process.stdin:
                    process.stdin.write(b"\n")
                    process.stdin.flush()
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in running:
            process.kill()
            process.communicate()
