"""What a release of full size takes: a made one, harvested whole from a folder. Needs 20 GB of disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from symcache.library import Library, stats
from symcache.library.user_dirs import catalog_path
from symcache.store import read_library_id
from tests.bench.harness import Row, figure
from tests.bench.measured_harvest import MeasuredHarvest, measured_harvest, size_of

__all__ = ["run"]

_NEEDED = 19e9
"""Bytes: the release, and what the library stores of it."""
_GB = 1e9
_MATTERS = 30.0
"""Seconds left below which nobody minds."""


def run(scratch: Path, scale: float = 1) -> list[Row]:
    """Return what is stored of a release, and what it took. `scale` makes it smaller."""
    needed, free = _NEEDED * scale + _GB, shutil.disk_usage(scratch).free
    if free < needed:
        raise SystemExit(
            f"{scratch}: {free / _GB:.1f} GB are free where {needed / _GB:.1f} are needed: name another folder with"
            " TMPDIR, or make the release smaller with --scale"
        )
    root, library = scratch / "root", scratch / "library"
    make = [sys.executable, "-m", "tests.bench.synthetic_release", str(root), str(scale)]
    images, source = int(subprocess.check_output(make)), size_of(root)
    library.mkdir()
    took = measured_harvest(str(root), scratch)
    result = took.result
    if not result["sealed"] or result["images"] != images:
        raise RuntimeError(f"{result['images']} of {images} images; {result['problems'][:3]}")
    with Library.open(library) as opened:
        found, catalog = stats(opened), catalog_path(opened.store, read_library_id(opened.store)).stat().st_size
    stored = size_of(library)
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
        figure(f"{name}: harvest", took.seconds / 60, "min"),
        figure(f"{name}: harvest, processor time", took.processor / source * _GB, "s/GB"),
        figure(f"{name}: harvest, disk at most", took.disk / _GB, "GB"),
        figure(f"{name}: harvest, memory at most", took.memory / 1e6, "MB"),
        *_estimates(name, took),
    ]


def _estimates(name: str, took: MeasuredHarvest) -> Iterator[Row]:
    """Yield how far the time that was said to be left was off, of all that still had to be waited for."""
    off = [abs(left / (took.seconds - at) - 1) for at, left in took.estimates if took.seconds - at > _MATTERS]
    if off:
        yield figure(f"{name}: time left, after the first minute, off by at most", max(off), "of it", at_most=0.25)
