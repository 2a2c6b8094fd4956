"""What a release of full size takes: a made one, harvested whole from a folder.

Needs 29 GB of disk. Memory is the resident set of the harvest's processes, added up once a second; a page that several
of them have in common counts for each, so that this is the most it can be.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symcache.library import Library, stats
from symcache.library.user_dirs import catalog_path
from symcache.store import read_library_id
from tests.bench.harness import Row, figure

__all__ = ["run"]

_NEEDED = 28e9
"""Bytes: the release, its extracted images, and what the library stores of both."""
_GB = 1e9


@dataclass
class _Peaks:
    """The most that was seen."""

    disk: int = 0
    memory: int = 0


def run(scratch: Path, scale: float = 1) -> list[Row]:
    """Return what is stored of a release, and what it took. `scale` makes it smaller."""
    needed, free = _NEEDED * scale + _GB, shutil.disk_usage(scratch).free
    if free < needed:
        raise SystemExit(
            f"{scratch}: {free / _GB:.1f} GB are free where {needed / _GB:.1f} are needed: name another folder with"
            " TMPDIR, or make the release smaller with --scale"
        )
    root, library, staging = scratch / "root", scratch / "library", scratch / "staging"
    make = [sys.executable, "-m", "tests.bench.synthetic_release", str(root), str(scale)]
    images, source = int(subprocess.check_output(make)), _size(root)
    for place in (library, staging):
        place.mkdir()
    peaks = _Peaks()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = _harvest(scratch, [root, "--library", library, "--staging", staging], peaks)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not result["sealed"] or result["images"] != images:
        raise RuntimeError(f"{result['images']} of {images} images; {result['problems'][:3]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with Library.open(library) as opened:
        found, catalog = stats(opened), catalog_path(opened.store, read_library_id(opened.store)).stat().st_size
    stored = _size(library)
    rest = stored - found.cache_stored - found.image_stored - catalog
    name = "a release" if scale == 1 else f"a release at scale {scale:g}"
    return [
        figure(f"{name}: caches and files of {images:,} images", source / _GB, "GB"),
        figure(f"{name}: stored", stored / _GB, "GB"),
        figure(f"{name}: raw caches, stored", found.cache_stored / _GB, "GB"),
        figure(f"{name}: images, stored", found.image_stored / _GB, "GB"),
        figure(f"{name}: images, stored", found.image_stored / found.image_content, "of content"),
        figure(f"{name}: catalog", catalog / _GB, "GB"),
        figure(f"{name}: records and the rest", rest / _GB, "GB"),
        figure(f"{name}: harvest", seconds / 60, "min"),
        figure(f"{name}: harvest, processor time", processor / source * _GB, "s/GB"),
        figure(f"{name}: harvest, disk at most", peaks.disk / _GB, "GB"),
        figure(f"{name}: harvest, memory at most", peaks.memory / 1e6, "MB"),
    ]


def _harvest(scratch: Path, arguments: list[Any], peaks: _Peaks) -> Any:
    """Harvest by the command, note the peaks of its processes and of the folders that it writes to."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SYMCACHE_")}
    environment |= {f"XDG_{n}_HOME": str(scratch / "home" / n) for n in ("DATA", "CONFIG", "CACHE", "STATE")}
    command = [sys.executable, "-m", "symcache", "harvest", *map(str, arguments), "--json"]
    output = scratch / "output"
    with output.open("wb") as stdout, subprocess.Popen(command, stdout=stdout, env=environment) as process:
        while process.poll() is None:
            peaks.disk = max(peaks.disk, _size(scratch / "library") + _size(scratch / "staging"))
            peaks.memory = max(peaks.memory, _memory(process.pid))
            time.sleep(1)
    if process.returncode:
        raise RuntimeError(f"the harvest ended with {process.returncode}: {output.read_text()[-1000:]}")
    return json.loads(output.read_text())


def _size(folder: Path) -> int:
    """Return what a folder takes on the disk, in bytes."""
    total = 0
    for entry in os.scandir(folder):
        try:
            total += _size(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else entry.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # removed meanwhile
    return total


def _memory(parent: int) -> int:
    """Return the resident sets of a process and of those that it has started, in bytes."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
    rows = [[int(word) for word in line.split()] for line in listed.splitlines()]
    family = {parent}
    while more := {pid for pid, above, _ in rows if above in family} - family:
        family |= more
    return sum(kilobytes << 10 for pid, _, kilobytes in rows if pid in family)
