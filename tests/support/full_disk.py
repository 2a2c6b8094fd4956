"""A disk without any room: names can be made on it, but nothing can be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["full_disk"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own file system; `room` in it may be removed to make some."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here: that needs root")
    try:
        with (folder / "room").open("wb", buffering=0) as room, pytest.raises(OSError, match="No space left"):
            while True:
                room.write(bytes(1 << 16))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
