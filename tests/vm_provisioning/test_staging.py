"""What a harvest keeps for the next run."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from symcache.errors import StorageError
from symcache_provisioning.cache_heads import copy_head
from symcache_provisioning.staging import Staging


@pytest.mark.parametrize("end", ['{"index": 2, "sha', "\0\0\0\0\n", '{"a": 1}\n', "[]\n", "\xff\n"])
def test_a_journal_that_a_crash_has_torn_gives_what_is_whole(end: str, tmp_path: Path) -> None:
    with Staging(tmp_path, "mac", "22G120") as stage:
        stage.journal_for("images", "a", "subject").note([{"index": 1}])
        (file,) = (stage.folder / "images").glob("*/*")
        with file.open("ab") as out:
            out.write(end.encode("latin-1"))
        journal = stage.journal_for("images", "a", "subject")
        assert journal.rows == {1: {"index": 1}}
        journal.note([{"index": 3}])
        assert set(stage.journal_for("images", "a", "subject").rows) == {1, 3}
        assert stage.journal_for("images", "a", "another").rows == {}


def test_where_no_folder_can_be_made_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", gone)  # as in /proc
    with pytest.raises(StorageError, match="cannot be used for staging"), Staging(tmp_path / "x", "mac", "22G120"):
        pass


def test_a_disk_without_locks_is_not_taken_for_another_harvest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("symcache_provisioning.staging.fcntl.flock", without)
    with pytest.raises(StorageError, match="No locks available"), Staging(tmp_path, "mac", "22G120"):
        pass


def test_a_cache_file_that_cannot_be_read_is_what_the_error_names(tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    with pytest.raises(StorageError, match=f"{lost}: cannot be read"):
        copy_head(SimpleNamespace(path=tmp_path / "main"), lost, tmp_path / "heads")  # type: ignore[arg-type]
