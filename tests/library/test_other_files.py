"""What is told of files that are no images."""

from __future__ import annotations

from pathlib import Path

from symcache.library.other_files import instead


def test_of_a_large_folder_only_the_first_files_are_looked_at(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}").touch()
    assert instead(tmp_path) == " among its 1000 files"
    (tmp_path / "list").write_bytes(b"bplist00")
    assert instead(tmp_path) == " among more than 1000 files"
