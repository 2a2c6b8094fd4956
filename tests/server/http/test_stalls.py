"""Nothing that one client asks for, and nothing that another process holds, keeps others waiting."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from symcache.client.lookup import look_up_images
from symcache.errors import RemoteError
from symcache_server.lookup.misses import MissLog
from tests.support.http import Answer, request
from tests.support.servers import SHARED_UUID, Samples, serve
from tests.support.waiting import until

_ALLOWED = 0.1
"""Seconds beyond what the machine keeps a thread of this process waiting."""
_ROWS = 200_000


def _batch(url: str, images: list[dict[str, str]]) -> Answer:
    headers = {"Content-Type": "application/json"}
    return request(url, "/api/v1/uuids", method="POST", headers=headers, body=json.dumps({"images": images}).encode())


@contextmanager
def _probed(url: str) -> Iterator[list[float]]:
    """Ask `/healthz` all the while; yield how much longer than the machine accounts for each time took, in seconds."""
    stalls: list[float] = []
    over = threading.Event()
    late = [0.0]

    def control() -> None:
        while not over.is_set():
            start = time.monotonic()
            time.sleep(0.005)
            late[0] = max(late[0], time.monotonic() - start - 0.005)

    def probe() -> None:
        while not over.is_set():
            late[0], start = 0.0, time.monotonic()
            assert request(url, "/healthz").status == 200
            stalls.append(time.monotonic() - start - 2 * late[0])
            time.sleep(0.01)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(control), pool.submit(probe)]
        try:
            yield stalls
        finally:
            over.set()
        for one in running:
            one.result()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a log of misses, as a program does that is stopped in the midst of writing."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("COMMIT")
        other.close()


def test_others_go_on_while_files_are_locked_and_much_is_asked_for(samples: Samples, tmp_path: Path) -> None:
    state = tmp_path / "server" / "state" / "symcache"
    MissLog(state / "misses.db").close()
    with sqlite3.connect(state / "misses.db") as filling:
        filling.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO misses SELECT lower(hex(randomblob(16))), 'executable', '', '', '2026', '2026', 0, ''"
            " FROM n",
            (_ROWS,),
        )
    filling.close()
    unknown = [{"uuid": str(UUID(int=n))} for n in range(10_000)]
    asked = (
        *(lambda: request(url, f"/buildid/{UUID(int=7).hex}/executable"), lambda: request(url, "/missing")),
        *(lambda: request(url, "/api/v1/images?name=*o*v*d*"), lambda: request(url, "/search?q=lib*")),
        *(lambda: _batch(url, unknown), lambda: _batch(url, [{f"{n}": "x" for n in range(200_000)}])),
        *(lambda: request(url, "/api/v1/missing"), lambda: request(url, f"/api/v1/uuids/{SHARED_UUID}")),
    )
    with serve(samples.library, tmp_path / "server") as server, (state / "tokens.lock").open("w") as lock:
        url = server.url
        fcntl.flock(lock, fcntl.LOCK_EX)
        for round_ in range(5):  # whatever the machine does, it does not do each time
            with _locked(state / "misses.db"), _probed(url) as stalls, ThreadPoolExecutor(4) as pool:
                statuses = [one.result().status for one in [pool.submit(ask) for ask in asked]]
            assert statuses == [404, 200, 200, 200, 200, 400, 200, 200]
            if max(stalls) < _ALLOWED or round_ == 4:
                break
        assert max(stalls) < _ALLOWED
        metrics = request(url, "/metrics").body.decode()
        assert "symcache_event_loop_delay_seconds_count" in metrics
        until(lambda: "00000000-0000-0000-0000-000000000007" in request(url, "/missing").body.decode().lower())


def test_a_batch_costs_as_many_requests_as_it_has_uuids(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    with serve(samples.library, tmp_path / "server", "--lookup-rate", "0.5") as server:
        images = [{"uuid": str(UUID(int=n))} for n in range(100)]
        assert _batch(server.url, images).status == 200
        refused = _batch(server.url, images[:1])
        assert refused.status == 429
        # 100 at one in two seconds, less what may be had at once.
        assert 100 < int(refused.headers["retry-after"]) <= 2 * 100
        monkeypatch.setattr("symcache.client.lookup.time", SimpleNamespace(sleep=waits.append))
        with pytest.raises(RemoteError, match="429"):
            look_up_images(server.url, {UUID(int=1): None})
    assert waits == [60, 60, 60, 60]  # our client waits, a minute each time at most, and does not ask for ever


def test_what_a_log_of_misses_has_no_room_for_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache_server.lookup.misses._MOST_PENDING", 2)
    log = MissLog(tmp_path / "misses.db")
    for number in (1, 2, 3, 3, 1):
        log.add(UUID(int=number), "executable")
    assert (log.take_dropped(), log.take_dropped()) == (2, 0)
    assert [(m.uuid.int, m.times) for m in log.recent()] == [(1, 2), (2, 1)]
    log.close()
