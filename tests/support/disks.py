"""Disks with little room, and one without any: names can be made on it, but nothing can be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "full_disk", "mounted_disk"]


@contextmanager
def mounted_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Make `folder` a file system of its own; skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here, which needs root: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own file system; `room` in it may be removed to make some."""
    with mounted_disk(tmp_path / "disk", 8) as folder:
        fill(folder)
        yield folder


def fill(disk: Path) -> Path:
    """Take all that is left of a disk, and return the file that does: without it there is room again."""
    with (disk / "room").open("wb", buffering=0) as room, pytest.raises(OSError, match="No space left"):
        while True:
            room.write(bytes(1 << 16))
    return disk / "room"
