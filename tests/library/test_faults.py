"""Disks fill up, networks break, and two people have the same idea at once."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import SymcacheError
from symcache.images import ImageRequest
from symcache.library import Library, Subset, fsck, ingest, remove_build
from symcache.store import open_store, read_library_id
from symcache.store.s3 import S3Store
from tests.library.images import Image, harvest
from tests.support.disks import mounted_disk
from tests.support.flaky_proxy import FlakyProxy
from tests.support.seaweed import new_location, s3_environment, seaweed


def _whole(library: Library, images: list[Image]) -> None:
    assert fsck(library, read=Subset()).findings == []
    for image in images:
        found = library.resolve(ImageRequest(image.uuid))
        assert found
        assert b"".join(library.read_blob(found.sha256, found.size)) == image.data


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 2 MB."""
    with mounted_disk(tmp_path / "disk", 2) as folder:
        yield folder


@pytest.mark.parametrize("seed", range(4))
def test_a_full_disk_ends_an_ingest_clearly_and_leaves_nothing_half_done(
    small_disk: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    first = [Image("/usr/lib/first", 99, size=20_000)]
    images = [Image(f"/usr/lib/{n}", n + 1, size=chance.randrange(10_000, 60_000)) for n in range(40)]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(chance.randrange(800_000, 1_500_000)))
    location = small_disk / "library"
    with Library.open(location, create=True) as library:
        ingest(library, harvest(tmp_path / "first", first, build="22A1"))
    staged = harvest(tmp_path / "staged", images)
    with pytest.raises(SymcacheError, match=r"No space left|disk is full") as caught, Library.open(location) as library:
        ingest(library, staged)
    assert caught.value.exit_code == 3
    assert list((location / "tmp").iterdir()) == []
    ballast.unlink()
    with Library.open(location) as library:
        _whole(library, first)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    with Library.open(location) as library:
        assert ingest(library, staged).sealed
        _whole(library, [*first, *images])


@pytest.mark.parametrize("seed", range(3))
def test_an_object_store_behind_a_broken_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    location = new_location_with_environment(monkeypatch, seaweed())
    first = [Image("/usr/lib/first", 99)]
    images = [Image(f"/usr/lib/{n}", n + 1, size=20_000) for n in range(12)]
    with Library.open(location, create=True) as library:
        ingest(library, harvest(tmp_path / "first", first, build="22A1"))
    staged = harvest(tmp_path / "staged", images)
    failed = 0
    with FlakyProxy(seaweed(), seed, faults=0.9) as proxy:
        for name, value in s3_environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("symcache.store.bucket._is_passing", lambda error: False)
        monkeypatch.setattr(S3Store, "settle", 0.1)
        for number in range(100):
            # How many connections a try makes, its timing decides.
            if number >= 4 and failed and proxy.counts.get("pass"):
                break
            try:
                with Library.open(location) as library:
                    ingest(library, staged)
            except SymcacheError as error:
                assert error.exit_code == 3, error
                failed += 1
        assert sum(proxy.counts.values()) > proxy.counts.get("pass", 0) > 0
    assert failed
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    with Library.open(location) as library:
        assert ingest(library, staged).sealed
        _whole(library, [*first, *images])
        assert len(list(library.store.list("blobs/"))) == len(images) + 1


def new_location_with_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> str:
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return new_location()


def test_the_network_gone_altogether_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SymcacheError, match=r"s3://bucket/x") as caught:
        open_store("s3://bucket/x", patience=0)
    assert caught.value.exit_code == 3
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_two_ingests_of_one_release_at_once_give_one_result(location: str, tmp_path: Path) -> None:
    images = [Image(f"/usr/lib/{n}", n + 1, size=20_000) for n in range(20)]
    Library.open(location, create=True).close()

    def one(number: int) -> bool:
        staged = harvest(tmp_path / str(number), images, raw=[("cache", 7, b"raw" * 100_000)])
        with Library.open(location) as library:
            return ingest(library, staged).sealed

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [True, True]
    with Library.open(location) as library:
        assert [(r.build, r.sealed, r.images) for r in library.releases()] == [("22G120", True, 20)]
        assert len(list(library.store.list("blobs/"))) == 21
        assert library.conflicts() == []
        _whole(library, images)


def test_what_is_pinned_to_a_uuid_that_nobody_has_is_nothing(location: str) -> None:
    with Library.open(location, create=True) as library:
        assert library.resolve(ImageRequest(UUID(int=1))) is None


def test_responses_that_are_lost_make_neither_a_second_record_nor_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has done what it was told, and whoever told it asks again: that there is one already is no news."""
    monkeypatch.setattr("symcache.store.bucket._IDLE_CONNECTIONS", 0)  # so that every request may meet a fault
    monkeypatch.setattr(S3Store, "settle", 0.1)
    location = new_location_with_environment(monkeypatch, seaweed())
    images = [Image(f"/usr/lib/{n}", n + 1) for n in range(4)]
    with FlakyProxy(seaweed(), 1, faults=0.2, kinds=["lose answer"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with Library.open(location, create=True) as library:
            identity = read_library_id(library.store)
            results = [ingest(library, harvest(tmp_path / "1", images))]
            removed = remove_build(library, "22G120")
            results.append(ingest(library, harvest(tmp_path / "2", images, build="23A1")))
        assert proxy.counts["lose answer"] > 10
    assert removed == [results[0].record_id]
    assert [(r.stored, r.skipped) for r in results] == [(4, 0), (0, 4)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed())
    with Library.open(location) as library:
        assert read_library_id(library.store) == identity != ""
        names = sorted(key.rpartition("/")[2] for key in library.store.list("records/"))
        assert names == [f"000000000{n}.json.zst" for n in (1, 2, 3)]
        assert [(r.build, r.sealed) for r in library.releases()] == [("23A1", True)]
        _whole(library, images)
