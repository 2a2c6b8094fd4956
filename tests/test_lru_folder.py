"""A bounded folder removes what was used longest ago, and nothing that is in use."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from symcache.errors import StorageError
from symcache.lru_folder import LruFolder, touch

HOUR = 3600.0


def _put(folder: Path, name: str, size: int, age: float) -> Path:
    """Write a file of `size` bytes that was used `age` seconds ago."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def _names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    # Neither by name, nor by size, nor by folder do these stand in the order of their ages, forwards or backwards.
    for name, size, age in (("b/2", 100, 5), ("a/3", 400, 3), ("c/1", 200, 4), ("a/4", 50, 1), ("b/0", 300, 2)):
        _put(tmp_path, name, size, age * HOUR)
    assert LruFolder(tmp_path, 750).evict() == 300
    assert _names(tmp_path) == {"a/3", "a/4", "b/0"}
    assert LruFolder(tmp_path, 750).evict() == 0
    assert LruFolder(tmp_path, 349).evict() == 700
    assert _names(tmp_path) == {"a/4"}


def test_a_file_counts_as_used_when_it_was_touched(tmp_path: Path) -> None:
    old, newer = _put(tmp_path, "a/1", 100, 2 * HOUR), _put(tmp_path, "a/2", 100, HOUR)
    os.utime(old)
    LruFolder(tmp_path, 100).evict()
    assert old.exists() and not newer.exists()


def test_a_touched_file_is_the_same_as_before(tmp_path: Path) -> None:
    """Who remembers when it was written, because it was checked then, need not check it again."""
    old, newer = _put(tmp_path, "a/1", 100, 2 * HOUR), _put(tmp_path, "a/2", 100, HOUR)
    before = old.stat()
    touch(old, before)
    assert old.stat().st_mtime_ns == before.st_mtime_ns
    LruFolder(tmp_path, 100).evict()
    assert old.exists() and not newer.exists()


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    _put(tmp_path, "a/old", 100, 2 * HOUR)
    _put(tmp_path, "a/now", 100, HOUR / 2)
    assert LruFolder(tmp_path, 0, in_use_seconds=HOUR).evict() == 100
    assert _names(tmp_path) == {"a/now"}
    bounded = LruFolder(tmp_path, 0)
    with bounded.pinned(str(tmp_path / "a" / "now")):
        assert bounded.evict() == 0
    assert bounded.evict() == 100


def test_locks_and_files_that_are_being_written_stay(tmp_path: Path) -> None:
    _put(tmp_path, "a/.lock-ab", 10, 1000 * HOUR)
    _put(tmp_path, "a/.part-1", 10, 23 * HOUR)
    _put(tmp_path, "a/.part-2", 10, 25 * HOUR)
    assert LruFolder(tmp_path, 0).evict() == 10
    assert _names(tmp_path) == {"a/.lock-ab", "a/.part-1"}


def test_writing_keeps_to_the_limit(tmp_path: Path) -> None:
    bounded = LruFolder(tmp_path, 1000)
    for number in range(12):
        path = tmp_path / "a" / f"{number}"
        bounded.write(path, 200, lambda path=path: path.write_bytes(bytes(200)) and None)  # type: ignore[misc]
        os.utime(path, (time.time() - HOUR + number,) * 2)
    assert _names(tmp_path) - {"a/.lock-0", "a/.lock-1"} >= {"a/8", "a/9", "a/10", "a/11"}
    assert not _names(tmp_path) & {f"a/{number}" for number in range(7)}


def test_a_full_disk_makes_the_oldest_files_go(tmp_path: Path) -> None:
    _put(tmp_path, "a/new", 60 << 20, HOUR)
    _put(tmp_path, "a/old", 60 << 20, 2 * HOUR)
    _put(tmp_path, "a/oldest", 60 << 20, 3 * HOUR)
    tries: list[set[str]] = []

    def fill() -> None:
        tries.append({name for name in _names(tmp_path) if ".lock" not in name})
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        (tmp_path / "a" / "written").write_bytes(b"x")

    LruFolder(tmp_path, 1 << 40).write(tmp_path / "a" / "written", 1, fill)
    assert tries == [{"a/new", "a/old", "a/oldest"}, {"a/new"}]  # 64 MiB at least


def test_a_full_disk_from_which_nothing_can_be_removed_is_told_at_once(tmp_path: Path) -> None:
    tries: list[int] = []

    def fill() -> None:
        tries.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left") as raised:
        LruFolder(tmp_path, 1 << 40).write(tmp_path / "a" / "file", 1, fill)
    assert tries == [1]
    assert raised.value.hint == "free some space"


def test_a_folder_that_somebody_deletes_is_made_again(tmp_path: Path) -> None:
    path, tries = tmp_path / "deep" / "a" / "file", list[int]()

    def fill() -> None:
        tries.append(1)
        if len(tries) == 1:
            shutil.rmtree(path.parent)
        path.write_bytes(b"x")

    LruFolder(tmp_path / "deep", 1 << 40).write(path, 1, fill)
    assert len(tries) == 2
    assert path.exists()


@pytest.mark.parametrize(("age", "set_anew"), [(30, False), (90, True), (-90, True)])
def test_a_file_is_touched_once_a_minute(tmp_path: Path, age: float, set_anew: bool) -> None:
    """And at once where a clock was wrong."""
    path = _put(tmp_path, "a/1", 100, age)
    before = path.stat()
    touch(path, before)
    assert (path.stat().st_atime_ns != before.st_atime_ns) is set_anew
    assert abs(path.stat().st_atime - time.time() + (0 if set_anew else age)) < 10


def test_an_error_that_no_removal_mends_is_told(tmp_path: Path) -> None:
    def fill() -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    kept = _put(tmp_path, "a/kept", 100, HOUR)
    with pytest.raises(StorageError, match="Permission denied") as raised:
        LruFolder(tmp_path, 1 << 40).write(tmp_path / "b" / "file", 1, fill)
    assert kept.exists()
    assert "permissions" in raised.value.hint


def test_what_a_wrong_clock_has_left_goes_first(tmp_path: Path) -> None:
    """Else the cache would be full of it until its time comes, and lose all that is used."""
    _put(tmp_path, "a/left", 100, -365 * 24 * HOUR)
    _put(tmp_path, "a/used", 100, HOUR)
    assert LruFolder(tmp_path, 100).evict() == 100
    assert _names(tmp_path) == {"a/used"}
