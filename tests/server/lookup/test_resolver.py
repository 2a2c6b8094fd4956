"""What one process remembers: look-ups while the library changes, and misses while they cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import StorageError
from symcache.images import ImageRequest
from symcache.library import Library, ingest
from symcache.store import BlobStat
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.resolver import Resolver
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, serve, stage_variant
from tests.support.waiting import until


async def test_a_look_up_that_was_overtaken_by_a_new_record_is_asked_anew(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        moved = stage_variant(samples.variants["22G120"], "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib")
        ingest(library, moved)
        reader = Library.open(tmp_path / "library")
        resolver = Resolver(reader)
        # As with a store on the network: what is asked of it takes its time, in a thread.
        resolver._remote = True
        asked, go_on = threading.Event(), threading.Event()
        real = reader.store.stat

        def stat(key: str) -> BlobStat | None:
            found = real(key)
            asked.set()
            assert go_on.wait(30)
            return found

        monkeypatch.setattr(reader.store, "stat", stat)
        image = ImageRequest(SHARED_UUID)
        looking = asyncio.create_task(resolver.resolve(image))
        await asyncio.to_thread(asked.wait, 30)
        newer = stage_variant(
            samples.variants["23A344"], "23A344", CACHES["23A344"], "/usr/lib/libmoved.dylib", version="14.0"
        )
        await asyncio.to_thread(ingest, library, newer)
        resolver.forget()  # as following the library does
        go_on.set()
        for _ in range(2):  # and what is remembered is the new one
            found = await looking
            assert found is not None
            assert found.build == "23A344"
            looking = asyncio.create_task(resolver.resolve(image))
        await looking
        reader.close()


def test_misses_are_kept_until_they_can_be_written(tmp_path: Path) -> None:
    log = MissLog(tmp_path / "misses.db")
    log.add(UUID(int=1), "executable", name="libone.dylib")
    log.flush()
    log.add(UUID(int=1), "executable")
    log.add(UUID(int=2), "executable", name="libtwo.dylib")
    other = sqlite3.connect(tmp_path / "misses.db")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON misses BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    other.commit()
    for _ in range(2):
        with pytest.raises(StorageError, match="disk is full"):
            log.flush()
        log.add(UUID(int=2), "executable")
    other.execute("DROP TRIGGER full")
    other.commit()
    other.close()
    assert [(m.uuid.int, m.times, m.name) for m in log.recent()] == [(2, 3, "libtwo.dylib"), (1, 2, "libone.dylib")]
    log.close()


def test_a_log_of_misses_that_cannot_be_written_makes_no_server_unready(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server") as server:
        log = until(lambda: next((tmp_path / "server" / "state").rglob("misses.db"), None))
        other = sqlite3.connect(log)
        until(lambda: other.execute("SELECT 1 FROM sqlite_master WHERE name = 'misses'").fetchone())
        other.execute("CREATE TRIGGER full BEFORE INSERT ON misses BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        other.commit()
        other.close()
        assert request(server.url, f"/buildid/{UUID(int=1).hex}/executable").status == 404

        def refreshed() -> float:
            text = request(server.url, "/metrics").body.decode()
            name = "symcache_library_refreshed_timestamp_seconds"
            return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)

        stderr = tmp_path / "server" / "stderr"
        until(lambda: "is not noted down" in stderr.read_text())
        before = refreshed()
        until(lambda: refreshed() > before)
        assert stderr.read_text().count("\n") == 1
