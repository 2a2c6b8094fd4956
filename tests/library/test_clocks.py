"""Clocks that are turned, the store's and this machine's, at any moment of whatever goes by them."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symcache.catalog import Catalog
from symcache.errors import IncompleteError
from symcache.images import ImageRequest
from symcache.library import Subset, fsck, gc, ingest, prefer, remove_build, undo_removal, utc
from symcache.library.clock import StoreClock
from symcache.library.library import Library as LibraryClass
from symcache.model import HarvestRecord, Trust
from symcache.store import LocalStore, RecordKey, Store, open_store, read_record
from symcache.store.s3 import S3Store
from tests.library.images import Image, harvest
from tests.store.conftest import make_location

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
GRACE = 14 * DAY
JUMPS = [HOUR, -HOUR, YEAR, -YEAR]
A, B = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)


class Clock:
    """By how many seconds the clocks are wrong."""

    def __init__(self) -> None:
        self.store = self.machine = 0.0

    def turn(self, seconds: float) -> None:
        """Both, as where the library lies on this machine."""
        self.store += seconds
        self.machine += seconds


class TurnedFolder(LocalStore):
    """A folder on a disk whose files get the time of a clock that may be wrong."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root)
        self.clock = clock

    def _stamp(self, key: str) -> None:
        os.utime(self.root / key, (time.time() + self.clock.store,) * 2)

    def create(self, key: str, source: Path) -> bool:
        if made := super().create(key, source):
            self._stamp(key)
        return made

    def refresh(self, key: str) -> bool:
        if there := super().refresh(key):
            self._stamp(key)
        return there

    def now(self) -> float:
        return super().now() + self.clock.store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clocks that everything here goes by."""
    turned = Clock()

    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + dt.timedelta(seconds=turned.machine)

    monkeypatch.setattr("symcache.library.user_dirs.datetime", Datetime)
    machine = SimpleNamespace(time=lambda: time.time() + turned.machine, monotonic=time.monotonic)
    monkeypatch.setattr(sys.modules["symcache.library.gc"], "time", machine)  # the function has its name
    return turned


Open = Callable[[], Store]


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Open:
    """Return what opens one library's store, in a folder or an object store, whose clock can be turned."""
    kind = getattr(request, "param", "folder")
    location = make_location(kind, tmp_path, monkeypatch)
    open_store(location, create=True)
    if kind == "folder":
        return lambda: TurnedFolder(Path(location), clock)
    from moto.core.utils import utcnow

    monkeypatch.setattr(S3Store, "settle", 0.0)
    monkeypatch.setattr("moto.s3.models.utcnow", lambda: utcnow() + dt.timedelta(seconds=clock.store))
    return lambda: open_store(location)


class World:
    """A removed build of long ago, a harvest that needs its blob and brings another, and somebody who collects."""

    def __init__(self, folder: Path, opened: Open, clock: Clock) -> None:
        self.clock, self.folder = clock, folder
        clock.turn(-100 * DAY)
        self.library = LibraryClass(opened(), Catalog(folder / "harvester.db"))
        ingest(self.library, harvest(folder / "old", [A]))
        remove_build(self.library, "22G120")
        clock.turn(100 * DAY)
        self.other = LibraryClass(opened(), Catalog(folder / "collector.db"))
        self.staged = harvest(folder / "new", [A, B], build="23A1", version="14.0")

    def collect(self) -> None:
        """As a timer does, whatever the clocks say."""
        with contextlib.suppress(IncompleteError):
            gc(self.other, grace=GRACE)

    def once(self, operation: str, kind: str, when: str, action: Callable[[], None]) -> None:
        """Have something happen at the first operation on a key of this kind."""
        real = getattr(self.library.store, operation)
        waiting = [action]

        def hooked(key: str, *arguments: Any) -> Any:
            ours = waiting if key.startswith(kind) else []
            if when == "before" and ours:
                ours.pop()()
            result = real(key, *arguments)
            if when == "after" and ours:
                ours.pop()()
            return result

        setattr(self.library.store, operation, hooked)


@pytest.fixture
def world(tmp_path: Path, opened: Open, clock: Clock) -> Iterator[World]:
    made = World(tmp_path, opened, clock)
    yield made
    made.library.close()
    made.other.close()


SEALING = "create records/ before"
MOMENTS = ["create blobs/ after", "refresh blobs/ before", "refresh blobs/ after", SEALING, "create records/ after"]


@pytest.mark.parametrize(
    ("opened", "moment", "jump", "whose"),
    [("folder", moment, jump, "both") for moment in MOMENTS for jump in (YEAR, -YEAR)]
    + [("folder", SEALING, HOUR, "both"), ("folder", SEALING, -HOUR, "both")]
    + [(kind, SEALING, jump, "store") for kind in ("folder", "moto") for jump in (YEAR, -YEAR)]
    + [("moto", SEALING, YEAR, "both")],
    indirect=["opened"],
)
def test_a_collection_takes_nothing_from_a_harvest_whenever_the_clock_is_turned(
    world: World, moment: str, jump: float, whose: str
) -> None:
    def turn_and_collect() -> None:
        world.clock.store += jump
        world.clock.machine += jump if whose == "both" else 0.0
        world.collect()

    world.once(*moment.split(), turn_and_collect)
    assert ingest(world.library, world.staged).sealed
    world.collect()
    world.clock.store = world.clock.machine = 0.0
    world.collect()
    assert fsck(world.library, read=Subset()).findings == []
    for image in (A, B):
        found = world.library.resolve(ImageRequest(image.uuid, build="23A1"))
        assert found
        assert b"".join(world.library.read_blob(found.sha256, found.size)) == image.data


@pytest.mark.parametrize(
    ("whose", "jump"), [("store", YEAR), ("store", -2 * HOUR), ("machine", 2 * HOUR), ("machine", -YEAR)]
)
def test_nothing_is_collected_by_clocks_that_contradict_each_other(world: World, whose: str, jump: float) -> None:
    setattr(world.clock, whose, jump)
    with pytest.raises(IncompleteError, match="clock says"):
        gc(world.other, grace=GRACE)
    setattr(world.clock, whose, 0.0)
    assert gc(world.other, grace=GRACE).deleted == 1


@contextlib.contextmanager
def turning(world: World, seconds: float) -> Iterator[None]:
    """Have the clocks turned when a collection has listed the blobs."""
    real = world.other.store.scan

    def scan(prefix: str) -> Iterator[Any]:
        yield from real(prefix)
        if prefix == "blobs/":
            world.clock.turn(seconds)

    world.other.store.scan = scan  # type: ignore[method-assign]
    yield
    world.other.store.scan = real  # type: ignore[method-assign]


@pytest.mark.parametrize(("jump", "turned"), [(-70, True), (-50, False), (0, False), (50, False), (70, True)])
def test_clocks_may_drift_apart_by_less_than_a_minute(world: World, jump: float, turned: bool) -> None:
    since = StoreClock(world.library.store)
    world.clock.store += jump
    assert since.was_turned() is turned


def test_a_collection_ends_when_the_clock_is_turned_below_it(world: World) -> None:
    with turning(world, -YEAR), pytest.raises(IncompleteError, match="was turned"):
        gc(world.other, grace=GRACE)
    world.clock.turn(YEAR)
    assert gc(world.other, grace=GRACE).deleted == 1


@pytest.mark.parametrize("seconds", [20.0, -20.0])
def test_a_clock_that_is_set_right_below_a_collection_ends_nothing(world: World, seconds: float) -> None:
    """As network time does with the clock of a machine that runs for long."""
    with turning(world, seconds):
        assert gc(world.other, grace=GRACE).deleted == 1


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_what_was_removed_comes_back_whatever_the_clock_said(world: World, jump: float) -> None:
    assert ingest(world.library, world.staged).sealed
    world.clock.turn(jump)
    remove_build(world.library, "23A1")
    world.clock.turn(-jump)
    world.collect()
    (restored,) = undo_removal(world.library, "23A1")
    assert (restored.sealed, restored.stored, restored.lost) == (True, 2, [])
    world.collect()
    assert fsck(world.library, read=Subset()).findings == []


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_there_first_is_served_although_the_clock_was_turned(
    world: World, jump: float, tmp_path: Path
) -> None:
    """Of contents that contradict each other; a new machine comes to the same."""
    first, second = Image("/usr/lib/c", 3, seed=1), Image("/usr/lib/c", 3, seed=2)
    records = [ingest(world.library, harvest(tmp_path / "1", [first], build="24A1")).record_id]
    world.clock.turn(jump)
    records.append(ingest(world.library, harvest(tmp_path / "2", [second], build="24A1", source="other")).record_id)
    with LibraryClass(world.other.store, Catalog(tmp_path / "fresh.db")) as fresh:
        for library in (world.library, fresh):
            assert len(library.conflicts()) == 1
            served = library.resolve(ImageRequest(first.uuid))
            assert served
            assert b"".join(library.read_blob(served.sha256, served.size)) == first.data
        keys = [key for text in fresh.store.list("records/") if (key := RecordKey.parse(text))]
        finished = {identity: record.finished for identity, record in (read_record(fresh.store, key) for key in keys)}
    assert [finished[r] for r in records] == sorted(finished[r] for r in records)
    # And a person's decision holds, and the next one after it.
    for image in (second, first):
        (chosen,) = {o.sha256 for o in world.library.variants(first.uuid) if o.sha256 == _sha256(image)}
        world.clock.turn(-jump)
        prefer(world.library, first.uuid, chosen)
        served = world.library.resolve(ImageRequest(first.uuid))
        assert served
        assert served.sha256 == chosen


def _sha256(image: Image) -> str:
    import hashlib

    return hashlib.sha256(image.data).hexdigest()


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
@pytest.mark.parametrize("less", [Trust.ADDED, Trust.PUSHED])
def test_no_clock_puts_what_is_trusted_less_first(world: World, less: Trust, jump: float, tmp_path: Path) -> None:
    own, forged = Image("/usr/lib/c", 3, seed=1), Image("/usr/lib/c", 3, seed=2)
    world.clock.turn(jump)
    ingest(world.library, harvest(tmp_path / "1", [forged], build=None, trust=less, source="push"))
    world.clock.turn(-jump)
    ingest(world.library, harvest(tmp_path / "2", [own], build="24A1"))
    world.clock.turn(jump)
    ingest(world.library, harvest(tmp_path / "3", [forged], build=None, trust=less, source="push again"))
    served = world.library.resolve(ImageRequest(own.uuid))
    assert served
    assert served.sha256 == _sha256(own)


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        *((moment, "1970-01-01T00:00:00+00:00") for moment in (-1e12, -1.0, 0.0, 0.9)),
        *((moment, "9999-12-31T23:59:59+00:00") for moment in (4e11, 1e18, float("inf"))),
        (951_782_400.0, "2000-02-29T00:00:00+00:00"),
    ],
)
def test_no_time_is_beyond_what_can_be_said(moment: float, said: str) -> None:
    assert utc(moment) == said


def test_a_time_that_is_none_stops_nobody(world: World, tmp_path: Path) -> None:
    for said in ("9999-12-31T23:59:59.999999+00:00", "soon", "", "2031-01-01T00:00:00", "\u0661"):
        world.library.write(HarvestRecord(source="odd", finished=said))
        staged = harvest(tmp_path / "again", [A, B], build="23A1", version="14.0")
        assert ingest(world.library, staged).sealed
    assert world.library.resolve(ImageRequest(B.uuid))
