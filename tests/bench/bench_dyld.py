"""Extraction: all of a large cache against copying the same files, one image, opening, and against dyldextractor."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from symcache.dyld import SharedCache, extract_all, extract_image
from tests.bench.harness import Row, compare, figure
from tests.bench.synthetic_cache import Shape, build

_JOBS = 2
_SOME = 100
_PEER = "dyldextractor==2.2.2"
_PEER_SHAPE = Shape(images=60, size=70_000_000, largest_symbols=12_000)
_MEMORY_FILES = Path("/dev/shm")


def run(scratch: Path) -> list[Row]:
    """Make the caches below `scratch`, which takes some 6 GB, and return a row a figure."""
    folder = scratch / "cache"
    folder.mkdir()
    # In a child of its own: what this process has taken would count as memory of every child that it starts.
    subprocess.run([sys.executable, "-m", "tests.bench.synthetic_cache", str(folder)], check=True)
    cache, tree = folder / "dyld_shared_cache_arm64e", scratch / "tree"
    whole = _extract(cache, tree)
    size = whole["bytes"]
    rows = [_against_copying("to disk", cache, tree, scratch, size)]
    if os.access(_MEMORY_FILES, os.W_OK) and shutil.disk_usage(_MEMORY_FILES).free > 4 * size:
        place = _MEMORY_FILES / f"symcache-bench-{os.getpid()}"
        place.mkdir()
        try:
            rows.append(_against_copying("to memory", cache, tree, place, size))
        finally:
            shutil.rmtree(place)
    runs = []
    for _ in range(3):
        shutil.rmtree(tree)
        runs.append(_extract(cache, tree))
    rows += [
        figure("extract: processor time", statistics.median(r["cpu"] for r in runs) / size * 1e9, "s/GB"),
        figure("extract: memory, 2 processes", whole["memory"] / 1e6, "MB", at_most=1000),
        *_single(cache, scratch / "one"),
    ]
    shutil.rmtree(tree)
    return rows + _against_dyldextractor(scratch)


def _extract(cache: Path, output: Path, jobs: int = _JOBS) -> Any:
    command = [sys.executable, "-m", "tests.bench.dyld_child", str(cache), str(output), str(jobs)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if done["failed"]:
        raise RuntimeError(f"{done['failed']} images of {cache} could not be extracted")
    return done


def _sync(place: Path) -> None:
    """Wait until this file system has written everything."""
    if sys.platform == "linux":
        subprocess.run(["sync", "-f", str(place)], check=True)
    else:
        os.sync()


def _against_copying(where: str, cache: Path, tree: Path, place: Path, size: int) -> Row:
    extracted, copied = place / "extracted", place / "copied"

    def prepare() -> None:
        for folder in (extracted, copied):
            shutil.rmtree(folder, ignore_errors=True)
        _sync(place)

    def ours() -> None:
        with SharedCache.open(cache) as opened:
            extract_all(opened, extracted, jobs=_JOBS)
        _sync(place)

    def peer() -> None:
        subprocess.run(["cp", "-r", str(tree), str(copied)], check=True)
        _sync(place)

    row = compare(
        f"extract a cache of {size / 1e9:.1f} GB {where}",
        ours,
        "cp -r of the same files",
        peer,
        amount=size / 1e6,
        unit="MB/s",
        at_least=1 / 1.5 if where == "to disk" else None,
        prepare=prepare,
    )
    prepare()
    return row


def _single(cache: Path, output: Path) -> list[Row]:
    opening = []
    for _ in range(9):
        start = time.perf_counter()
        with SharedCache.open(cache) as opened:
            names = [image.path for image in opened.images]
        opening.append(time.perf_counter() - start)
    times = []
    with SharedCache.open(cache) as opened:
        largest = opened.images[len(names) // 2]
        for image in [*opened.images[:: max(1, len(names) // _SOME)], largest]:
            start = time.perf_counter()
            extract_image(opened, image, output / "image")
            times.append(time.perf_counter() - start)
    return [
        figure("open and list 1,000 images", statistics.median(opening) * 1000, "ms", at_most=100),
        figure("extract one image, median", statistics.median(times) * 1000, "ms", at_most=50),
        figure("extract one image, 95 % of them below", sorted(times)[int(len(times) * 0.95)] * 1000, "ms", at_most=50),
        figure("extract the one with 200,000 symbols", times[-1] * 1000, "ms"),
    ]


def _against_dyldextractor(scratch: Path) -> list[Row]:
    """Both in one process of their own, on a cache small enough to wait for; nothing where PyPI is out of reach."""
    venv, folder = scratch / "venv", scratch / "small"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", _PEER]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        return []
    folder.mkdir()
    cache = build(folder, _PEER_SHAPE)
    ours, theirs = scratch / "ours", scratch / "theirs"

    def prepare() -> None:
        for place in (ours, theirs):
            shutil.rmtree(place, ignore_errors=True)

    def peer() -> None:
        command = [str(venv / "bin" / "dyldex_all"), "-j", "1", "-v", "0", "-o", str(theirs), str(cache)]
        subprocess.run(command, check=True, capture_output=True)

    row = compare(
        "extract a cache of 70 MB, one process",
        lambda: _extract(cache, ours, 1),
        _PEER,
        peer,
        amount=cache.stat().st_size / 1e6,
        unit="MB/s",
        at_least=10,
        prepare=prepare,
        rounds=3,
    )
    return [row]
