"""A disk that is full at any write of any verb: it ends clearly, nothing is lost, and another run ends whole.

`SYMCACHE_TEST_FULL_DISK_SECONDS` is how long that is tried (`make soak`); a few points of each verb otherwise.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import REVISION
from symcache.errors import StorageError
from symcache.images import ImageRequest
from symcache.library import (
    Library,
    Subset,
    fsck,
    gc,
    ingest,
    prefer,
    reextract,
    remove_build,
    repair,
    undo_removal,
    write_snapshot,
)
from symcache.model import Kind
from symcache.store import blob_key
from tests.dyld import tiny
from tests.library.images import Image, harvest
from tests.support.disks import mounted_disk
from tests.support.extracted import stage_extracted

SECONDS = float(os.environ.get("SYMCACHE_TEST_FULL_DISK_SECONDS", "0"))
POINTS = 3
PAGE = 4096
KEPT, OTHER, REMOVED, NEW, RAW = "22A1", "22A2", "22B1", "22C1", "22D1"


def _images(first: int, count: int, *, seed: int = 0) -> list[Image]:
    return [Image(f"/usr/lib/{first}-{n}", first + n, seed=seed, size=9000) for n in range(count)]


HELD = _images(100, 4)
LOST = Image("/usr/lib/lost", 400)
LOST_KEY = blob_key(hashlib.sha256(LOST.data).hexdigest())


@dataclass
class Case:
    """One verb: what it does to a library, and what is true once it has ended."""

    run: Callable[[Library, Path], object]
    done: Callable[[Library], bool]


def _ingest(library: Library, scratch: Path) -> None:
    staged = harvest(scratch / "new", _images(1000, 12), build=NEW, raw=[("cache", 7, os.urandom(300_000))])
    assert ingest(library, staged).sealed


def _repair(library: Library, scratch: Path) -> None:
    if library.store.stat(LOST_KEY):
        library.store.quarantine(LOST_KEY)
    with Library.open(scratch / "master") as other:
        report = fsck(library, read=Subset())
        repair(library, report, others=[other])
        if left := [f.message for f in report.findings if not f.repaired and f.code != "conflict"]:
            raise StorageError("; ".join(left))


def _prefer(library: Library, scratch: Path) -> None:
    prefer(library, UUID(int=500), next(o.sha256 for o in library.variants(UUID(int=500)) if o.build == KEPT))


def _is_preferred(library: Library) -> bool:
    return library.catalog.preferences_of(UUID(int=500), Kind.EXECUTABLE, UUID(int=600)) != []


def _is_restored(library: Library) -> bool:
    return _builds(library).get(REMOVED, False)


def _gc(library: Library, scratch: Path) -> None:
    gc(library, grace=0)


CASES = {
    "ingest": Case(_ingest, lambda library: _builds(library).get(NEW, False)),
    "remove": Case(lambda library, _: remove_build(library, KEPT), lambda library: KEPT not in _builds(library)),
    "undo": Case(
        lambda library, _: undo_removal(library, REMOVED), lambda library: _builds(library).get(REMOVED, False)
    ),
    "gc": Case(_gc, lambda library: gc(library, grace=0, dry_run=True).deleted == 0),
    "reextract": Case(lambda library, _: reextract(library, RAW), lambda library: reextract(library, RAW).skipped == 1),
    "prefer": Case(_prefer, _is_preferred),
    "snapshot": Case(
        lambda library, _: write_snapshot(library.store, library.catalog),
        lambda library: len(list(library.store.list("snapshots/"))) > 0,
    ),
    "repair": Case(_repair, lambda library: library.store.stat(LOST_KEY) is not None),
    "fold": Case(lambda library, _: library.rebuild(), lambda library: _builds(library).get(KEPT, False)),
}


def _builds(library: Library) -> dict[str, bool]:
    return {r.build: r.sealed for r in library.releases()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library `master` in which every verb has something to do."""
    folder = tmp_path_factory.mktemp("full")
    main = tiny.Cache([tiny.Image("/usr/lib/a", UUID(int=1))]).write(folder)
    with Library.open(folder / "master", create=True) as library:
        for build, uuid in ((KEPT, 1), (OTHER, 2)):
            images = [*HELD, LOST, Image("/usr/lib/conflict", 500, seed=uuid, cache=600, extractor="util")]
            ingest(library, harvest(folder / build, images, build=build))
        ingest(library, harvest(folder / REMOVED, _images(300, 6), build=REMOVED))
        remove_build(library, REMOVED)
        staged = stage_extracted(main, folder / "raw", RAW)
        staged.objects[:] = [replace(one, revision=REVISION - 1) for one in staged.objects]
        ingest(library, staged)
    return folder


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted_disk(tmp_path_factory.mktemp("disk") / "disk", 64) as folder:
        yield folder


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def _used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _try(case: Case, scratch: Path, disk: Path, room: int) -> bool:
    """Run a verb with `room` bytes on the disk, then again with enough; return whether it was stopped at first."""
    _resize(disk, 64 << 20)
    location = disk / "library"
    shutil.rmtree(location, ignore_errors=True)
    shutil.copytree(scratch / "master", location)
    stopped = False
    _resize(disk, _used(disk) + room)
    try:
        with Library.open(location) as library:
            case.run(library, scratch)
    except StorageError as error:
        assert "No space left" in str(error) or "disk is full" in str(error), error
        stopped = True
    _resize(disk, 64 << 20)
    with Library.open(location) as library:
        for image in HELD:
            found = library.resolve(ImageRequest(image.uuid))
            assert found
        if not case.done(library):  # some verbs are over once their record is written
            assert stopped
            case.run(library, scratch)
        assert case.done(library)
        report = fsck(library, read=Subset())
        assert [f for f in report.findings if f.code != "conflict"] == []
    with Library.open(location) as library:
        assert case.done(library)
    return stopped


def _need(case: Case, scratch: Path, disk: Path) -> int:
    """Return about how much a verb writes."""
    for room in (1 << n for n in range(12, 26)):
        if not _try(case, scratch, disk, room):
            return room
    raise AssertionError("needs more than 32 MB")


@pytest.mark.parametrize("verb", CASES)
def test_a_disk_that_is_full_at_any_write(verb: str, scratch: Path, disk: Path) -> None:
    case, chance = CASES[verb], random.Random(verb)
    need = _need(case, scratch, disk)
    end = time.monotonic() + SECONDS / len(CASES)
    tried = stopped = 0
    while tried < POINTS or time.monotonic() < end:
        stopped += _try(case, scratch, disk, chance.randrange(need // PAGE + 1) * PAGE)
        tried += 1
    print(f"{verb}: a disk with up to {need} bytes of room, {tried} times, {stopped} times full")
