"""Images of shared caches on their way into the store."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dyld import Extractor, NewImage, SharedCache, extract_all
from symcache.dyld import Image as CacheImage
from symcache.errors import StorageError, SymcacheError
from symcache.library import CacheImages, Library, Storing, store_images
from symcache.library.cache_images import ToStore
from symcache.macho import identify
from symcache.own_program import own_environment, own_python
from symcache.store import BlobReader, blob_key
from tests.dyld.tiny import PAGE, Cache, Image, Symbol

COUNT = 70
"""More than one process takes at a time."""


@contextmanager
def opened(tmp_path: Path, *, broken: int = -1, foreign: int = -1, hollow: bool = False) -> Iterator[SharedCache]:
    images = [
        Image(f"/usr/lib/lib{n}", UUID(int=n + 1), defined=[Symbol(f"_f{n}")], text=bytes([n])) for n in range(COUNT)
    ]
    if broken >= 0:
        images[broken].commands = [b"\x2a\0\0\0\4\0\0\0"]
    if foreign >= 0:
        images[foreign].filetype = 10  # MH_DSYM (<mach-o/loader.h>)
    if hollow:
        images[-1].data, images[-1].data_vmsize = b"real", 2 * PAGE  # its second page is in no file
    with SharedCache.open(Cache(images, uuid=UUID(int=1000)).write(tmp_path)) as cache:
        yield cache


def run(storing: Storing, cache: SharedCache, **options: Any) -> CacheImages:
    found = CacheImages()
    for some in store_images(storing, cache, range(COUNT), **options):
        found.stored |= some.stored
        found.failed |= some.failed
    return found


def test_what_is_stored_is_what_extract_writes(anywhere: Library, tmp_path: Path) -> None:
    with opened(tmp_path, broken=5) as cache, Storing(anywhere) as storing:
        written = {e.path: e.file for e in extract_all(cache, tmp_path / "out", jobs=1).extracted}
        found = run(storing, cache)
        assert list(found.failed) == [5]
        assert {o.path for o in found.stored.values()} == written.keys()
        for number, entry in found.stored.items():
            data = written[entry.path].read_bytes()
            code = hashlib.sha256(bytes([number]).ljust(0x1000, b"\x90")).hexdigest()[:16]
            assert (entry.symbols, entry.code) == (1, code)
            assert (entry.sha256, entry.size) == (hashlib.sha256(data).hexdigest(), len(data))
            assert b"".join(BlobReader(anywhere.store, entry.sha256, entry.size)) == data
            [slice_] = identify(written[entry.path])
            assert (entry.uuid, entry.arch) == (slice_.uuid, slice_.arch)
    assert storing.done.stored == COUNT - 1


def test_what_is_no_library_of_its_cache_is_left_out_alone(local: Library, tmp_path: Path) -> None:
    with opened(tmp_path, foreign=7) as cache, Storing(local) as storing:
        found = run(storing, cache)
    assert (list(found.failed), len(found.stored)) == ([7], COUNT - 1)
    assert found.failed[7].startswith("/usr/lib/lib7: holds ")


@pytest.mark.parametrize("whole", [True, False])
def test_what_has_to_be_whole_and_lies_in_part_in_no_file_is_left_out(
    local: Library, tmp_path: Path, whole: bool
) -> None:
    with opened(tmp_path, hollow=True) as cache, Storing(local) as storing:
        found = run(storing, cache, whole=whole)
    assert found.stored.keys() == set(range(COUNT - 1 if whole else COUNT))
    assert found.failed == {}


def test_what_an_earlier_run_has_stored_is_not_made_again(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[dict[str, Any]] = []
    with opened(tmp_path) as cache, Storing(local) as storing:
        first = run(storing, cache, note=noted.extend)
    assert len(noted) == COUNT
    known = {row["index"]: row for row in noted}
    gone = blob_key(first.stored[3].sha256)
    (tmp_path / "library" / gone).unlink()
    made: list[int] = []
    with opened(tmp_path) as cache, Storing(local) as storing:
        again = run(storing, cache, known=known, note=lambda rows: made.extend(row["index"] for row in rows))
    assert made == [3]
    assert again.stored == first.stored
    assert local.store.stat(gone)
    assert (storing.done.stored, storing.done.skipped, storing.done.new_uuids) == (1, COUNT - 1, {UUID(int=4)})


def test_what_is_collected_while_it_is_found_there_is_stored_again(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as cache, Storing(local) as storing:
        entry = run(storing, cache).stored[0]
        keep = storing.keep

        def collected(sha256: str) -> bool:
            if sha256 == entry.sha256:
                (tmp_path / "library" / blob_key(sha256)).unlink(missing_ok=True)
            return keep(sha256)

        monkeypatch.setattr(storing, "keep", collected)
        run(storing, cache)
        assert local.store.stat(blob_key(entry.sha256))


def test_a_store_that_is_full_ends_it(local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(key: str, source: Path) -> bool:
        raise StorageError("no space")

    monkeypatch.setattr(local.store, "create", create)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # in this process, which has this store
    with opened(tmp_path) as cache, Storing(local) as storing, pytest.raises(StorageError, match="no space"):
        run(storing, cache)


def test_images_are_made_only_a_little_faster_than_they_are_stored(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in memory until then."""
    made: list[int] = []
    all_made = threading.Event()
    when_stored: list[int] = []
    real = local.store.create

    class Counting(Extractor):
        def many(self, images: Sequence[CacheImage]) -> Iterator[tuple[CacheImage, NewImage | SymcacheError]]:
            for image, one in super().many(images):
                assert isinstance(one, NewImage)
                made.append(one.size)
                yield image, one
            all_made.set()

    def create(key: str, source: Path) -> bool:
        all_made.wait(0.2)
        when_stored.append(len(made))
        return real(key, source)

    monkeypatch.setattr(local.store, "create", create)
    monkeypatch.setattr("symcache.library.cache_images._IN_FLIGHT", 5 * PAGE)
    with opened(tmp_path) as cache:
        work = ToStore(local.store, whole=False, stopped=lambda: False)
        rows = work.run(cache, Counting(cache), [(index, "") for index in range(12)])
    assert [row["index"] for row in rows] == list(range(12))
    assert max(made) * (min(when_stored) - 1) <= 5 * PAGE


def test_a_child_that_is_not_wanted_any_more_stops_in_its_batch(local: Library, tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        work = ToStore(local.store, whole=False, stopped=lambda: False)
        batch = json.dumps([(index, "") for index in range(COUNT)]) + "\n"
        command = own_python(*work.command(), str(cache.path), "whole")
        done = subprocess.run(command, input=batch, capture_output=True, text=True, env=own_environment(), check=True)
    assert "stopped" in json.loads(done.stdout)["refused"]
    assert list(local.store.list("blobs")) == []
