"""What was tried of a build, and who is at it: in folders and object stores."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from symcache.library import (
    LEASE_SECONDS,
    Attempt,
    BuildLog,
    Library,
    Publication,
    SyncLog,
    fsck,
    gc,
    note_uses,
    read_uses,
)
from symcache.library.sync_log import Lease
from symcache.library.uses import forget_uses
from symcache.store import put_object
from tests.support.dated_store import Clock, DatedStore


def take(log: SyncLog, known: BuildLog, runner: str = "ci") -> Lease | None:
    return log.acquire(known, source="firmware", offer="1", runner=runner)


def test_of_many_runners_one_gets_the_lease_and_the_others_see_whose_it_is(anywhere: Library) -> None:
    log = SyncLog(anywhere.store)
    known = log.read(["26A428"])["26A428"]
    assert known.running is None
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda n: take(log, known, f"ci-{n}"), range(8)))
    (lease,) = [lease for lease in leases if lease]
    running = log.read(["26A428"])["26A428"].running
    assert running is not None
    assert (running.number, running.runner) == (1, lease.attempt.runner)
    assert log.read(["26A428"])["26A428"].failures("firmware", "1") == []
    assert lease.renew()
    lease.end("failed", "no route to host", "check the network")
    after = SyncLog(anywhere.store).read()["26A428"]
    assert after.running is None
    (failure,) = after.failures("firmware", "1")
    assert (failure.error, failure.hint, failure.outcome) == ("no route to host", "check the network", "failed")
    assert after.failures("firmware", "2") == after.failures("mac-1", "1") == []
    second = take(log, after)
    assert second is not None
    assert second.attempt.number == 2
    second.end("interrupted")
    assert len(log.read(["26A428"])["26A428"].failures("firmware", "1")) == 1


def test_the_lease_of_a_runner_that_was_killed_ends_and_it_notices_when_it_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    log = SyncLog(DatedStore(tmp_path / "library", clock))
    first = take(log, log.read(["26A428"])["26A428"])
    assert first is not None
    clock.pass_by(LEASE_SECONDS - 1)
    assert first.renew()
    clock.pass_by(LEASE_SECONDS - 1)
    assert log.read(["26A428"])["26A428"].running
    clock.pass_by(1)
    known = log.read(["26A428"])["26A428"]
    assert known.running is None
    assert [a.number for a in known.failures("firmware", "1")] == [1]  # what kills runners does not go on for ever
    second = take(log, known)
    assert second is not None
    assert not first.renew()
    began = clock.now
    clock.pass_by(60)
    first.end("sealed")
    known = log.read(["26A428"])["26A428"]
    assert [(a.outcome, a.alive) for a in known.attempts] == [("sealed", clock.now), ("", began)]
    assert known.running == known.attempts[1]


def test_a_lease_from_a_time_that_is_still_to_come_keeps_nobody_away(tmp_path: Path) -> None:
    """The store's clock was ahead by a year, and was set right."""
    clock = Clock()
    log = SyncLog(DatedStore(tmp_path / "library", clock))
    assert take(log, log.read(["26A428"])["26A428"])
    clock.pass_by(-365 * 86400)
    known = log.read(["26A428"])["26A428"]
    assert known.running is None
    assert take(log, known)


def test_what_cannot_be_read_or_is_newer_says_nothing(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        log = SyncLog(library.store)
        for key, content in {
            "sync/26A428/000001.json": b"\xff",
            "sync/26A428/000001.end.json": b'{"outcome": 7}',
            "sync/26A428/000002.json": b'{"runner": "ci", "number": "2", "colour": "green"}',
            "sync/26A428/000002.end.json": b'{"outcome": "postponed", "until": "tomorrow"}',
            "sync/26A428/000003.json": b'{"outcome": "sealed"}',
            "sync/26A428/000003.end.json": b'{"error": "no route to host"}',
            "sync/26A428/000003.later": b"?",
            "sync/26A428/published-0000000000000000.json": b"[" * 100_000,
            "sync/26A429": b"a file where a folder is",
            "sync/26A430/1.json": b"{}",
        }.items():
            put_object(library.store, key, [content])
        logs = log.read()
        assert set(logs) == {"26A428"}
        attempts = [(a.number, a.runner, a.outcome) for a in logs["26A428"].attempts]
        assert attempts == [(1, "", "failed"), (2, "ci", "postponed"), (3, "", "failed")]
        assert logs["26A428"].published is None


def test_what_is_too_long_is_cut_to_what_every_version_reads(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        log = SyncLog(library.store)
        lease = log.acquire(log.read(["26A428"])["26A428"], source="s" * 5000, offer="1", runner="r" * 400)
        assert lease is not None
        lease.end("failed", "e" * 3000, "h" * 3000)
        (attempt,) = log.read()["26A428"].attempts
        assert (attempt.source, attempt.runner) == ("s" * 4096, "r" * 300)
        assert (attempt.error, attempt.hint) == ("e" * 2000, "h" * 2000)


LIMITS: dict[type[BaseModel], dict[str, int]] = {
    Publication: {"version": 64, "kind": 64, "released": 10},
    Attempt: {"source": 4096, "offer": 64, "runner": 300, "started": 64}
    | {"outcome": 64, "error": 2000, "hint": 2000, "finished": 64},
}


@pytest.mark.parametrize(
    ("model", "name", "limit"), [(m, n, limit) for m, of in LIMITS.items() for n, limit in of.items()]
)
def test_what_is_longer_than_any_version_writes_is_not_read(model: type[BaseModel], name: str, limit: int) -> None:
    assert getattr(model(**{name: "x" * limit}), name) == "x" * limit
    with pytest.raises(ValidationError):
        model(**{name: "x" * (limit + 1)})


@pytest.mark.parametrize("build", ["../records/x", "a/b", "", "26A428\n"])
def test_a_build_that_is_none_makes_no_object(tmp_path: Path, build: str) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        log = SyncLog(library.store)
        log.publish(BuildLog(build), Publication(version="1"))
        with pytest.raises(ValueError, match="is no build"):
            take(log, BuildLog(build))
        note_uses(library.store, dt.date(2026, 1, 1), [build])
        put_object(library.store, "sync/22G120/000001.json", [b"{}"])
        assert [(name, found.attempts) for name, found in log.read([build]).items()] == [(build, ())]
        assert [key for key in library.store.list("") if "26A428" in key or "records/x" in key] == []


def test_the_last_that_was_published_counts_and_is_noted_once(tmp_path: Path) -> None:
    clock = Clock()
    store = DatedStore(tmp_path / "library", clock)
    log = SyncLog(store)
    for kind in ("rc", "release", "release", "rc", "release"):
        clock.pass_by(60)
        known = log.read(["26A428"])["26A428"]
        log.publish(known, Publication(version="27.0", kind=kind, released="2026-09-14"))
    published = log.read(["26A428"])["26A428"].published
    assert published is not None
    assert published.kind == "release"
    assert len(list(store.list("sync/26A428/"))) == 4


def test_notes_of_use_are_forgotten_by_their_day_but_not_while_they_are_new(tmp_path: Path) -> None:
    clock = Clock()
    store = DatedStore(tmp_path / "library", clock)
    note_uses(store, dt.date(2026, 1, 1), ["26A428"])
    note_uses(store, dt.date(2026, 2, 1), ["22G120"])
    for key in ("uses/2026-01-00/26A429", "uses/2026-01-32/26A429", "uses/0", "uses/2026-01-01/a/b"):
        put_object(store, key, [b"of a newer program"])
    assert read_uses(store).since == dt.date(2026, 1, 1)
    for left in ({"26A428", "22G120"}, {"26A428", "22G120"}, {"22G120"}):
        forget_uses(store, dt.date(2026, 2, 1))
        assert set(read_uses(store).last) == left
        clock.pass_by(20 * 3600)


def test_those_who_look_after_a_library_pass_it_over(anywhere: Library) -> None:
    log = SyncLog(anywhere.store)
    lease = take(log, log.read(["26A428"])["26A428"])
    assert lease is not None
    note_uses(anywhere.store, dt.date(2026, 1, 1), ["26A428", "22G120"])
    before = sorted(key for key in anywhere.store.list("") if key.startswith(("sync/", "uses/")))
    assert fsck(anywhere).clean
    gc(anywhere)
    assert sorted(key for key in anywhere.store.list("") if key.startswith(("sync/", "uses/"))) == before
    assert set(read_uses(anywhere.store).last) == {"26A428", "22G120"}
