"""Collection beside harvests: each interleaving, step by step, on purpose."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from symcache.catalog import SCHEMA_VERSION, Catalog
from symcache.errors import IncompleteError, StorageError
from symcache.images import ImageRequest
from symcache.library import MINIMUM_GRACE, GcReport, Library, gc, ingest, remove_build
from symcache.library.library import Library as LibraryClass
from symcache.library.storing import SAFE_SECONDS
from symcache.model import HarvestRecord, ObjectEntry, TombstoneRecord
from symcache.store import RecordKey, blob_key, write_record
from symcache.store.bucket import REQUEST_SECONDS
from symcache.store.s3 import S3Store
from tests.library.hooked import Hooked
from tests.library.images import Image, harvest

DAY = 86400.0
GRACE = 14 * DAY
A = UUID(int=1)
IMAGE = Image("/usr/lib/a", 1)


class World:
    """A library with one removed build whose blob is old, a collector and a harvester with catalogs of their own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "library"
        with Library.open(self.root, create=True) as library:
            ingest(library, harvest(folder / "old", [IMAGE]))
            found = library.resolve(ImageRequest(A))
            assert found
            self.sha256 = found.sha256
            remove_build(library, "22G120")
        self.age(100 * DAY)
        self.collector_store, self.harvester_store = Hooked(self.root), Hooked(self.root)
        self.collector = LibraryClass(self.collector_store, Catalog(folder / "collector.db"))
        self.harvester = LibraryClass(self.harvester_store, Catalog(folder / "harvester.db"))
        self.staged = harvest(folder / "new", [IMAGE], build="23A1", version="14.0")

    def age(self, seconds: float) -> None:
        then = time.time() - seconds
        for path in self.root.rglob("*"):
            if path.is_file() and path.suffix == ".zst":
                os.utime(path, (then, then))

    def collect(self) -> GcReport:
        return gc(self.collector, grace=GRACE)

    def ingest(self) -> None:
        assert ingest(self.harvester, self.staged).sealed

    def check(self) -> None:
        """Whatever happened, the new release is there, whole."""
        with Library.open(self.root) as library:
            found = library.resolve(ImageRequest(A, build="23A1"))
            assert found
            assert b"".join(library.read_blob(found.sha256, found.size)) == IMAGE.data


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_a_harvest_the_blob_goes(world: World) -> None:
    stray, told = world.root / "blobs" / "stray", list[tuple[int, int]]()
    stray.touch()
    size = (world.root / blob_key(world.sha256)).stat().st_size
    report = gc(world.collector, grace=GRACE, progress=lambda *done: told.append(done))
    assert (report.deleted, report.live, report.young, told) == (1, 0, 0, [(1, 1)])
    assert report.deleted_bytes == size
    assert not (world.root / blob_key(world.sha256)).exists()
    assert stray.exists()


def test_a_dry_run_deletes_nothing(world: World) -> None:
    report = gc(world.collector, grace=GRACE, dry_run=True)
    blob = world.root / blob_key(world.sha256)
    assert (report.deleted, report.deleted_bytes) == (1, blob.stat().st_size)
    world.ingest()
    world.age(100 * DAY)
    report = gc(world.collector, grace=GRACE, dry_run=True)
    assert (report.deleted, report.live, report.young) == (0, 1, 0)


@pytest.mark.parametrize(("days", "deleted"), [(13, 0), (15, 1)])
def test_without_a_word_the_grace_is_two_weeks(world: World, days: int, deleted: int) -> None:
    world.age(days * DAY)
    assert gc(world.collector).deleted == deleted


def test_what_was_taken_back_nobody_knows_when_stays(world: World) -> None:
    """As where the record that took it back cannot be looked at just now."""
    real = world.collector_store.stat
    world.collector_store.stat = lambda key: None if key.startswith("records/") else real(key)  # type: ignore[method-assign]
    world.collector.require_whole = lambda what: None  # type: ignore[method-assign]
    report = world.collect()
    assert (report.deleted, report.young) == (0, 1)


def test_a_harvest_before_the_collection(world: World) -> None:
    world.ingest()
    assert world.collect().deleted == 0
    world.check()


def test_a_harvest_after_the_collection(world: World) -> None:
    world.collect()
    world.ingest()
    world.check()


def test_a_harvest_that_has_skipped_the_blob_but_not_sealed(world: World) -> None:
    reports = []
    world.harvester_store.on("before", "create records", lambda: reports.append(world.collect()))
    world.ingest()
    assert (reports[0].deleted, reports[0].young) == (0, 1)
    world.check()


@pytest.mark.parametrize(("minutes", "refreshed"), [(0, False), (25, False), (35, True)])
def test_a_blob_that_nobody_names_is_made_young_where_it_is_older_than_half_an_hour(
    world: World, minutes: float, refreshed: bool
) -> None:
    """A grace is an hour or more; and refreshing costs a request, and a wait."""
    world.age(60 * minutes)
    moment = ("before", "refresh blobs")
    world.harvester_store.on(*moment, lambda: None)
    world.ingest()
    assert (moment not in world.harvester_store.hooks) is refreshed


def test_the_blob_is_refreshed_after_the_collector_condemned_it(world: World) -> None:
    world.collector_store.on("before", "delete_older blobs", world.ingest)
    assert world.collect().deleted == 0
    world.check()


def test_the_blob_is_deleted_between_the_harvesters_look_and_its_refreshing(world: World) -> None:
    world.harvester_store.on("before", "refresh blobs", world.collect)
    world.ingest()
    world.check()


@pytest.mark.parametrize("then", ["nothing", "the store refuses", "the file is gone", "the file is another"])
def test_the_blob_is_deleted_after_it_was_refreshed(world: World, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """It is stored again; what cannot be is not promised."""
    file, create = world.staged.objects[0].file, world.harvester_store.create

    def refuse(key: str, source: Path) -> bool:
        if key.startswith("blobs/"):
            raise StorageError("no space")
        return create(key, source)

    def delete() -> None:
        (world.root / blob_key(world.sha256)).unlink()
        if then == "the store refuses":
            monkeypatch.setattr(world.harvester_store, "create", refuse)
        elif then == "the file is gone":
            file.unlink()
        elif then == "the file is another":
            file.write_bytes(b"x" * len(IMAGE.data))

    world.harvester_store.on("after", "refresh blobs", delete)
    if then == "nothing":
        world.ingest()
        world.check()
    elif then == "the store refuses":
        with pytest.raises(StorageError, match="no space"):
            ingest(world.harvester, world.staged)
        assert world.harvester.releases() == []
    else:
        result = ingest(world.harvester, world.staged)
        assert not result.sealed
        assert result.problems == [f"/usr/lib/a: its blob {world.sha256} is gone: harvest or add it again"]
        assert world.harvester.variants(A) == []


def test_the_blob_is_deleted_before_the_harvester_looks(world: World) -> None:
    world.harvester_store.on("before", "stat blobs", world.collect)
    world.ingest()
    world.check()


@pytest.mark.parametrize("links", [True, False])
def test_the_blob_is_refreshed_while_the_collector_has_it_in_its_hands(
    world: World, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The folder takes a file aside to delete it; a refresh that came between look and taking is seen there."""

    def refused(*_: object) -> None:  # as on FAT, and some network file systems
        raise PermissionError(errno.EPERM, "no links")

    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.parent.parent.name == "blobs":
            monkeypatch.undo()
            assert world.harvester_store.refresh(blob_key(world.sha256))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.MonkeyPatch.context() as patch:
        if not links:
            patch.setattr(os, "link", refused)
        report = world.collect()
    assert (report.deleted, report.young) == (0, 1)
    assert list(world.collector_store.scratch().iterdir()) == []
    assert (world.root / blob_key(world.sha256)).exists()


def test_a_collector_killed_with_a_blob_in_its_hands_loses_nothing(world: World) -> None:
    blob = world.root / blob_key(world.sha256)
    blob.rename(world.root / "tmp" / f"condemned-{blob.name}")
    world.collector_store.clean_scratch(time.time())
    assert blob.exists()


def test_in_an_object_store_a_deletion_decided_on_may_come_after_the_record(world: World) -> None:
    """Decided, then delayed until the harvester refreshed, checked and sealed; the harvester looks again after it."""
    sealed, deleted = threading.Event(), threading.Event()

    def delete_late(key: str, before: float) -> bool:
        found = world.collector_store.stat(key)
        assert found
        assert found.modified < before
        thread.start()
        assert sealed.wait(120)
        (world.root / key).unlink()
        deleted.set()
        return True

    world.collector_store.delete_older = delete_late  # type: ignore[method-assign]
    world.harvester_store.settle = 0.5
    world.harvester_store.on("after", "create records", lambda: (sealed.set(), deleted.wait(120)))
    thread = threading.Thread(target=world.ingest)
    world.collect()
    thread.join(120)
    world.check()


def test_what_is_deleted_while_a_harvest_waits_for_deletions_is_stored_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its record; those that were refreshed could have been under deletion."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        (world.root / blob_key(world.sha256)).unlink()

    world.harvester_store.settle = 3600
    machine = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(sys.modules["symcache.library.ingest"], "time", machine)  # the function has its name
    world.ingest()
    assert len(waits) == 1
    world.check()


def test_a_tombstone_written_during_a_harvest_leaves_a_grace(world: World, tmp_path: Path) -> None:
    """The harvester skips a blob since a live record names it; that record is removed before the harvester seals."""
    world.ingest()
    world.age(100 * DAY)
    late = harvest(tmp_path / "late", [IMAGE], build="24A1", version="15.0")

    def remove_and_collect() -> None:
        with Library.open(world.root) as other:
            remove_build(other, "23A1")
        assert world.collect().deleted == 0

    world.harvester_store.on("before", "create records", remove_and_collect)
    assert ingest(world.harvester, late).sealed
    with Library.open(world.root) as library:
        assert library.resolve(ImageRequest(A, build="24A1"))


def test_grace_counts_from_the_tombstone_not_the_blob(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "old", [IMAGE]))
        then = time.time() - 100 * DAY
        for path in (tmp_path / "library").rglob("*.zst"):
            os.utime(path, (then, then))
        remove_build(library, "22G120")
        report = gc(library, grace=GRACE)
        assert (report.deleted, report.young) == (0, 1)
        for path in (tmp_path / "library" / "records").rglob("*.zst"):
            os.utime(path, (then, then))
        assert gc(library, grace=GRACE).deleted == 1


def test_a_record_that_becomes_unreadable_during_the_collection_stops_it(world: World) -> None:
    def spoil() -> None:
        folder = world.root / "records" / "other"
        folder.mkdir()
        (folder / "0000000001.json.zst").write_bytes(b"bad")

    world.collector_store.on("before", "stat quarantine", lambda: None)
    real = world.collector_store.scan

    def scan(prefix: str) -> Any:
        yield from real(prefix)
        if prefix == "blobs/":
            spoil()

    world.collector_store.scan = scan  # type: ignore[method-assign]
    with pytest.raises(Exception, match="cannot be read"):
        world.collect()
    assert (world.root / blob_key(world.sha256)).exists()


def test_what_the_catalog_does_not_know_at_that_moment_is_not_deleted(world: World, tmp_path: Path) -> None:
    """Another process folds the catalog anew, and began before the record was there that names the blob."""
    with LibraryClass(Hooked(world.root), Catalog(tmp_path / "early.db")) as early:
        world.ingest()
        world.age(100 * DAY)

        def take_its_place() -> None:
            other = Catalog(tmp_path / "collector.db")
            other.replace_with(early.catalog)
            other.close()

        def twice() -> None:
            take_its_place()
            world.collector_store.on("before", "stat records", take_its_place)

        # When tombstones are looked at: at first, and again just before anything is deleted.
        world.collector_store.on("before", "stat records", twice)
        world.collect()
        assert world.collector_store.hooks == {}
    world.check()


def test_nothing_is_deleted_while_something_else_lies_among_the_records(world: World) -> None:
    (world.root / "records" / "0000000007.json.zst").write_bytes(b"whose?")
    with pytest.raises(IncompleteError, match=r"records/0000000007\.json\.zst is none that"):
        world.collect()
    assert (world.root / blob_key(world.sha256)).exists()


def test_what_is_named_while_others_are_deleted_stays(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting may take hours: every few seconds, what there is of records is asked anew."""
    monkeypatch.setattr(sys.modules["symcache.library.gc"], "_FRESH", -1.0)  # the function has its name
    ingest(world.harvester, harvest(tmp_path / "b", [Image("/usr/lib/b", 2)], build="23A1", version="14.0"))
    remove_build(world.harvester, "23A1")
    world.age(100 * DAY)

    def name_what_is_left() -> None:
        (key,) = world.harvester_store.list("blobs/")
        found = ObjectEntry(path="/usr/lib/c", arch="arm64e", uuid=A, sha256=Path(key).stem, size=1)
        write_record(world.harvester_store, HarvestRecord(objects=(found,)), "w")

    world.collector_store.on("after", "delete_older blobs", name_what_is_left)
    report = world.collect()
    assert (report.deleted, report.live, len(list(world.harvester_store.list("blobs/")))) == (1, 1, 1)


def test_what_was_taken_back_only_while_it_was_collected_has_its_grace(world: World) -> None:
    """Its blob is old, and it was not named when blobs were looked at first."""

    def name_and_take_back() -> None:
        found = ObjectEntry(path="/usr/lib/c", arch="arm64e", uuid=A, sha256=world.sha256, size=1)
        _, named = write_record(world.harvester_store, HarvestRecord(objects=(found,)), "w")
        write_record(world.harvester_store, TombstoneRecord(removes=(named,), build="23A1"), "w")

    world.collector_store.on("after", "scan blobs", name_and_take_back)
    assert world.collect().deleted == 0
    assert (world.root / blob_key(world.sha256)).exists()


def test_snapshots_that_no_new_machine_would_start_from_are_collected(local: Library) -> None:
    """And what was put aside; what only newer programs can start from is left to them."""
    root, this = Path(local.store.location), SCHEMA_VERSION
    snapshots = [(this, 8), (this, 9), (this, 10), (this, 11), (this - 1, 12), (this + 1, 1)]
    names = [f"snapshots/v{schema}-{count:010d}-{'0' * 64}.db.zst" for schema, count in snapshots]
    names += ["snapshots/stray", "quarantine/blobs/x"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        then = time.time() - (0 if name == names[0] else 15 * DAY)
        os.utime(root / name, (then, then))
    for dry_run, gone in [(True, set[int]()), (False, {1, 4, 7})]:
        assert gc(local, grace=GRACE, dry_run=dry_run).leftovers == 3
        assert {number for number, name in enumerate(names) if not (root / name).exists()} == gone


def test_what_is_young_enough_for_a_harvest_is_not_collected_in_its_time() -> None:
    assert MINIMUM_GRACE == 3600 >= 2 * SAFE_SECONDS


def test_what_was_decided_on_by_earlier_records_is_deleted_before_a_later_one_is_relied_on() -> None:
    assert S3Store.settle >= sys.modules["symcache.library.gc"]._FRESH + REQUEST_SECONDS


def test_nothing_is_deleted_where_a_record_goes_that_has_just_come(world: World) -> None:
    """Others that came with it may be missing, too."""
    record = str(RecordKey("w", 1))
    world.collector_store.on("after", "list records", lambda: write_record(world.harvester_store, HarvestRecord(), "w"))
    world.collector_store.on("before", "stat records", (world.root / record).unlink)
    with pytest.raises(IncompleteError, match=f"{record} is gone"):
        world.collect()
    assert (world.root / blob_key(world.sha256)).exists()


def test_superseded_contents_and_old_leftovers_are_collected(anywhere: Library, tmp_path: Path) -> None:
    """In any store, with no grace at all: what live records name stays, the rest goes."""
    old = Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1)
    ingest(anywhere, harvest(tmp_path / "1", [old, Image("/usr/lib/b", 2)]))
    ingest(anywhere, harvest(tmp_path / "2", [Image("/usr/lib/c", 3)], build="23A1"))
    remove_build(anywhere, "22G120")
    part = tmp_path / "part"
    part.write_bytes(b"half")
    anywhere.store.create("tmp/part-killed", part)  # as a writer leaves it that was killed
    time.sleep(1.1)  # the clock of an object store may count whole seconds
    assert gc(anywhere, grace=3600).leftovers == 0
    report = gc(anywhere, grace=0)
    assert (report.deleted, report.live, report.leftovers) == (2, 1, 1)
    assert len(list(anywhere.store.list("blobs/"))) == 1
    assert anywhere.resolve(ImageRequest(UUID(int=3)))
    assert len(list(anywhere.store.list("records/"))) == 3


def test_a_collection_says_when_space_comes_back(local: Library, tmp_path: Path) -> None:
    root = Path(local.store.location)
    ingest(local, harvest(tmp_path / "1", [IMAGE]))
    for path in root.rglob("*.zst"):
        os.utime(path, (time.time() - 100 * DAY,) * 2)
    removed = time.time()
    remove_build(local, "22G120")
    ingest(local, harvest(tmp_path / "2", [Image("/usr/lib/b", 2)], build="23A1", version="14.0"))
    remove_build(local, "23A1")
    blob = root / blob_key(next(iter(local.catalog.blobs_of(local.catalog.retirements()[-1].record))))
    os.utime(blob, (removed + 3 * DAY,) * 2)
    report = gc(local, grace=GRACE)
    assert report.young == 2
    first, last = (_seconds(moment) for moment in (report.first_expires, report.last_expires))
    # Not the age of the blobs counts, which is a hundred days, but when their record was taken back.
    assert abs(first - removed - GRACE) < 60
    assert abs(last - removed - GRACE - 3 * DAY) < 60
    assert report.young_bytes == sum(p.stat().st_size for p in root.glob("blobs/*/*"))


def _seconds(moment: str | None) -> float:
    assert moment
    return datetime.fromisoformat(moment).timestamp()
