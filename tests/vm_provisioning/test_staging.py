"""What a harvest keeps for the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

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
