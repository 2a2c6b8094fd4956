"""Raw cache files that are stored while they are still being copied."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import StorageError
from symcache.library import Library, Staged, StagedCacheFile, Storing, growing, ingest
from symcache.model import Release
from symcache.store import BlobReader, blob_key, frame_sizes
from tests.dyld.tiny import Cache, Image
from tests.library import images as library_images
from tests.library.images import harvest

CACHE = UUID(int=7)


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "FRAME", 1000)


def _staged(file: Path) -> StagedCacheFile:
    return StagedCacheFile(file, file.name, f"/System/{file.name}", "arm64e", CACHE)


def test_a_file_that_grows_is_stored_as_it_is_in_the_end(local: Library, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(10_500)
    part, file = tmp_path / ".part", tmp_path / "cache"
    framed: list[int] = []
    with Storing(local, framed.append) as storing, part.open("wb") as out:
        out.write(data[:1500])  # what an earlier run has left
        out.flush()
        storing.follow(part, len(data), file)
        for start in range(1500, len(data), 700):
            out.write(data[start : start + 700])
            out.flush()
        part.unlink()  # it is open, and is not read again
        storing.begin(_staged(file))
        done = storing.finish([], [_staged(file)])
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("frames", "storing"))]
    [entry] = done.cache_files
    assert (entry.size, done.problems, done.stored, sum(framed)) == (len(data), [], 1, len(data))
    assert b"".join(BlobReader(local.store, entry.sha256, entry.size)) == data
    with local.store.open(blob_key(entry.sha256)) as stored:
        assert frame_sizes(stored)[0] == len(data)


def test_a_file_is_waited_for_while_it_grows(local: Library, tmp_path: Path) -> None:
    file, asked, written = tmp_path / "cache", list[int](), threading.Event()

    class Stopped(threading.Event):
        """Is asked before the first frame, before the second, and when that is not there yet."""

        def is_set(self) -> bool:
            asked.append(1)
            if len(asked) == 3:
                out.write(bytes(1000))
                written.set()
            return super().is_set()

    with Storing(local) as storing, file.open("wb", buffering=0) as out:
        storing.done.stopped = Stopped()
        out.write(bytes(1000))
        storing.follow(file, 2000, file)
        written.wait(10)
        done = storing.finish([], [_staged(file)])
    assert (done.problems, [entry.size for entry in done.cache_files]) == ([], [2000])


def test_a_file_of_a_cache_without_uuid_is_stored_as_any(local: Library, tmp_path: Path) -> None:
    """As of systems before OS X 10.9."""
    file = Cache([Image("/usr/lib/a", UUID(int=1))], header_size=0x48).write(tmp_path)
    with Storing(local) as storing:
        storing.follow(file, file.stat().st_size, file)
        done = storing.finish([], [_staged(file)])
    assert (len(done.cache_files), done.problems) == (1, [])


def test_a_file_that_ends_early_is_a_problem(local: Library, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_bytes(bytes(5000))
    with Storing(local) as storing:
        storing.follow(file, 9000, file)
        done = storing.finish([], [_staged(file)])
    assert done.cache_files == []
    assert "cache: ends 4000 bytes early" in done.problems[0]
    assert list(local.store.list("blobs")) == []


def test_a_file_that_is_copied_anew_is_stored_from_its_last_copy(local: Library, tmp_path: Path) -> None:
    """And those before it are no longer among the few that are stored at a time."""
    file, copies = tmp_path / "cache", [tmp_path / f"{n}" for n in range(9)]
    with Storing(local) as storing:
        for copy in copies:
            copy.write_bytes(copy.name.encode() * (2500 if copy == copies[-1] else 1500))
            storing.follow(copy, 2500, file)
        copies[-1].rename(file)
        [entry] = storing.finish([], [_staged(file)]).cache_files
    assert b"".join(BlobReader(local.store, entry.sha256, entry.size)) == b"8" * 2500


def test_files_that_are_whole_too_early_do_not_keep_others_waiting(local: Library, tmp_path: Path) -> None:
    files = [tmp_path / f"cache.{n}" for n in range(9)]
    with Storing(local) as storing:
        for file in files:
            file.write_bytes(file.name.encode() * 100)
            storing.follow(file, 700 if file == files[-1] else 7000, file)
            storing.be_whole(file)
        done = storing.finish([], [_staged(files[-1])])
    assert [entry.name for entry in done.cache_files] == [files[-1].name]


def test_what_a_run_does_not_wait_for_leaves_nothing(local: Library, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_bytes(os.urandom(5000))
    begun = threading.Event()
    with Storing(local, lambda size: begun.set()) as storing:
        storing.follow(file, 9000, file)
        assert begun.wait(60)
    assert list(local.store.list("blobs")) == []
    assert isinstance(local.store.scratch(), Path) and not list(local.store.scratch().iterdir())


def test_of_what_is_given_up_nothing_goes_on(local: Library, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_bytes(bytes(5000))
    with Storing(local) as storing:
        storing.follow(file, 9000, file)
        storing.give_up(file)
        assert [thread for thread in threading.enumerate() if thread.name == "growing"] == []
        assert list(local.store.scratch().iterdir()) == []
        assert storing.finish([], [_staged(file)]).cache_files[0].size == 5000


def test_a_store_that_refuses_an_image_refuses_the_next_before_it_is_tried(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(key: str, source: Path) -> bool:
        raise StorageError("no space")

    monkeypatch.setattr(local.store, "create", create)
    first, second = harvest(tmp_path / "1", [library_images.Image("/a", 1), library_images.Image("/b", 2)]).objects
    with Storing(local) as storing:
        with pytest.raises(StorageError, match="no space"):
            storing.finish([first], [])
        for begin in (lambda: storing.begin(second), lambda: storing.follow(second.file, second.size, second.file)):
            with pytest.raises(StorageError, match="no space"):
                begin()


@pytest.mark.parametrize("changed", [False, True])
def test_a_cache_file_that_the_library_has_is_not_compressed_again(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    file = Cache([Image("/usr/lib/a", UUID(int=1))], uuid=CACHE).write(tmp_path)
    staged = Staged(Release(version="13.6", build="22G120"), "test", cache_files=[_staged(file)])
    ingest(local, staged)
    compressed: list[bytes] = []
    monkeypatch.setattr(growing, "_compress", compressed.append)
    if changed:
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"!")
    with Storing(local) as storing:
        storing.follow(file, file.stat().st_size, file)
        done = storing.finish([], [_staged(file)])
    assert (compressed, done.problems, done.stored) == ([], [], int(changed))
    [entry] = done.cache_files
    assert b"".join(BlobReader(local.store, entry.sha256, entry.size)) == file.read_bytes()


def test_a_store_that_refuses_ends_the_run_soon(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cache"
    file.write_bytes(bytes(5000))

    def create(key: str, source: Path) -> bool:
        raise StorageError("no space")

    monkeypatch.setattr(local.store, "create", create)
    with Storing(local) as storing:
        storing.follow(file, 5000, file)
        with pytest.raises(StorageError, match="no space"):
            storing.finish([], [_staged(file)])
        with pytest.raises(StorageError, match="no space"):
            storing.begin(_staged(tmp_path / "another"))


def test_nothing_to_follow_is_told_at_once(local: Library, tmp_path: Path) -> None:
    with Storing(local) as storing, pytest.raises(StorageError, match="cannot be read"):
        storing.follow(tmp_path / "gone", 1, tmp_path / "gone")


def test_a_run_that_ends_does_not_store_the_rest_of_a_whole_file(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cache"
    file.write_bytes(bytes(500_000))
    framed: list[int] = []
    with Storing(local, framed.append) as storing:
        compress = growing._compress

        def stop(data: bytes) -> bytes:
            storing.done.stopped.set()
            return compress(data)

        monkeypatch.setattr(growing, "_compress", stop)
        storing.follow(file, 500_000, file)
    assert sum(framed) < 250_000


def test_many_whole_files_are_stored_a_few_at_a_time(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, compress, most = local.store.scratch(), growing._compress, 0
    assert isinstance(scratch, Path)

    def counting(data: bytes) -> bytes:
        nonlocal most
        most = max(most, len(list(scratch.iterdir())))
        return compress(data)

    monkeypatch.setattr(growing, "_compress", counting)
    files = [tmp_path / f"cache.{n:02}" for n in range(40)]
    with Storing(local) as storing:
        for number, file in enumerate(files):
            file.write_bytes(bytes([number]) * 5000)
            storing.follow(file, 5000, file)
            storing.begin(_staged(file))
        assert len(storing.finish([], [_staged(f) for f in files]).cache_files) == 40
    assert most <= 8
