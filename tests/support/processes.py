"""What runs on this machine, where /proc tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["command_lines", "open_files"]


def command_lines() -> list[list[str]]:
    """Return the arguments of every process; those that end meanwhile are left out."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().decode("utf-8", "replace").split("\0")[:-1])
    return found


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
