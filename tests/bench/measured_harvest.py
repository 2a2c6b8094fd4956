"""A harvest by the command, and what its processes took.

Memory is what its processes hold of their own, and their shares of what several of them hold (the proportional set
size, without pages of files, which the system takes back as it likes), added up once a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import homes

__all__ = ["MeasuredHarvest", "measured_harvest", "size_of"]

_LEFT = re.compile(r"(\d+) (s|min) left")


@dataclass
class MeasuredHarvest:
    """What a harvest took."""

    result: Any
    """As `--json` prints it."""
    seconds: float
    processor: float
    """Seconds, of all its processes."""
    disk: int
    """Bytes at most, in the folders for library and staging."""
    memory: int
    """Bytes at most."""
    estimates: list[tuple[float, float]]
    """(seconds since the start, seconds that it said were left)"""


def measured_harvest(source: str, scratch: Path, *options: str) -> MeasuredHarvest:
    """Harvest into `scratch`/library by way of `scratch`/staging. Raises RuntimeError when it cannot."""
    library, staging = scratch / "library", scratch / "staging"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SYMCACHE_")}
    environment |= homes(scratch / "home")
    command = [sys.executable, "-m", "symcache", "harvest", source, *options, "--json"]
    command += ["--library", str(library), "--staging", str(staging)]
    disk = memory = 0
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output, log = scratch / "output", scratch / "log"
    with (
        output.open("wb") as stdout,
        log.open("wb") as stderr,
        subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment) as process,
    ):
        estimates = []
        read = 0
        while process.poll() is None:
            disk = max(disk, size_of(library) + size_of(staging))
            memory = max(memory, _memory(process.pid))
            text = log.read_text()
            for number, unit in _LEFT.findall(text[read:]):
                estimates.append((time.perf_counter() - start, int(number) * (60.0 if unit == "min" else 1.0)))
            read = len(text)
            time.sleep(0.5)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in {0, 1}:
        raise RuntimeError(f"the harvest ended with {process.returncode}: {log.read_text()[-1000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return MeasuredHarvest(json.loads(output.read_text()), seconds, processor, disk, memory, estimates)


def size_of(folder: Path) -> int:
    """Return what a folder takes on the disk, in bytes."""
    total = 0
    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += size_of(Path(entry.path)) if is_folder else entry.stat().st_blocks * 512
    return total


def _memory(parent: int) -> int:
    return sum(map(_own_memory, _family(parent)))


def _family(parent: int) -> set[int]:
    """Return a process and those that it has started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    rows = [[int(word) for word in line.split()] for line in listed.splitlines()]
    family = {parent}
    while more := {pid for pid, above in rows if above in family} - family:
        family |= more
    return family


def _own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
