"""Which builds a server was asked for is noted in the library, and keeps them from being pruned."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from symcache.errors import StorageError
from symcache.library import Library, read_uses
from symcache.model import uuid_text
from symcache.verify import RetentionPolicy, plan_pruning
from symcache_server.lookup.uses import UseLog
from tests.support.http import request
from tests.support.servers import SHARED_UUID, Samples, serve


def test_what_is_served_is_noted_once_a_day_and_stays(samples: Samples, tmp_path: Path) -> None:
    location = tmp_path / "library"
    shutil.copytree(samples.library, location, ignore=shutil.ignore_patterns("uses"))  # of other tests' servers
    with serve(location, tmp_path / "server") as server:
        path = f"/buildid/{uuid_text(SHARED_UUID).replace('-', '').lower()}/executable"
        assert request(server.url, path).status == 200
        assert request(server.url, f"/buildid/{samples.uuid.hex}/executable").status == 200  # of no build
    with Library.open(location) as library:
        uses = read_uses(library.store)
        today = dt.datetime.now(dt.UTC).date()
        assert uses.since in {today, today - dt.timedelta(1)}
        assert set(uses.last) == {"23A344"}
        policy = RetentionPolicy.model_validate({"last": 1, "requested_days": 0})
        assert not [v for v in plan_pruning(library, policy) if v.goes and v.build == "23A344"]


def test_a_library_that_may_not_be_written_is_served_all_the_same(tmp_path: Path) -> None:
    written: list[str] = []

    class ReadOnly:
        class store:
            location = "library"

            @staticmethod
            def scratch() -> Path:
                written.append("tried")
                raise PermissionError(13, "Permission denied")

    log = UseLog(ReadOnly())  # type: ignore[arg-type]
    log.add(["22G120", None])
    log.flush()
    log.add(["22G120"])
    log.flush()
    assert written == ["tried"]  # and not every few seconds


def test_what_could_not_be_noted_is_noted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[list[str]] = []
    away, now = True, 0.0

    def note(_: object, day: dt.date, builds: list[str]) -> None:
        if away:
            raise StorageError("the object store is away")
        noted.append(sorted(builds))

    monkeypatch.setattr("symcache_server.lookup.uses.note_uses", note)
    log = UseLog(SimpleNamespace(store=None), clock=lambda: now)  # type: ignore[arg-type]
    log.add(["22G120"])
    log.flush()
    away = False
    log.add(["23A344"])
    log.flush()
    assert noted == []
    now = 601.0
    log.flush()
    log.flush()
    assert noted == [["22G120", "23A344", "~"]]
