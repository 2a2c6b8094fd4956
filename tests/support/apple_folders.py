"""Folders as Apple's tools lay them out on a developer's Mac, of shared caches that Apple's builder made.

Where there are none, of our own. Which images a cache holds is known from Apple's own extractor, or from the sample.
"""

from __future__ import annotations

import functools
import json
import os
import plistlib
import shutil
from pathlib import Path

from symcache.dyld import SharedCache, extract_all
from symcache.macho import identify
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample

__all__ = ["cache_name", "finish", "put_libraries", "put_raw", "uuids_of"]

_OWN = CacheOptions(arch="arm64e", header_size=0x228, split="v2", unmapped_locals=".symbols")
_IMAGES = 3
"""Each with a UUID."""


@functools.cache
def _folder(name: str) -> Path | None:
    root = os.environ.get("SYMCACHE_TEST_CACHES")
    return Path(root) / name if root else None


@functools.cache
def _own() -> dict[str, bytes]:
    return {
        f"dyld_shared_cache_arm64e{suffix}": data
        for suffix, data in build_cache(sample(_OWN)[:_IMAGES], _OWN).files.items()
    }


def cache_name(name: str) -> str:
    """Return the name of the main file."""
    folder = _folder(name)
    return str(json.loads((folder / "expected.json").read_text())["cache"]) if folder else "dyld_shared_cache_arm64e"


def put_raw(folder: Path, name: str) -> Path:
    """Write the files of one cache into a folder; return the main file."""
    folder.mkdir(parents=True, exist_ok=True)
    if apples := _folder(name):
        for file in apples.glob("dyld_*shared_cache_*"):
            if file.suffix != ".map":
                shutil.copyfile(file, folder / file.name)
    else:
        for file_name, data in _own().items():
            (folder / file_name).write_bytes(data)
    return folder / cache_name(name)


def uuids_of(name: str) -> set[str]:
    """Return the UUIDs of its images, in upper case."""
    if folder := _folder(name):
        return {str(i["uuid"]).upper() for i in json.loads((folder / "expected.json").read_text())["images"]}
    return {str(identify(i.file)[0].uuid).upper() for i in sample(_OWN)[:_IMAGES]}


@functools.cache
def _extracted(name: str, work: Path) -> Path:
    with SharedCache.open(put_raw(work / "raw", name)) as cache:
        extract_all(cache, work / "tree", jobs=1)
    return work / "tree"


def put_libraries(symbols: Path, name: str, work: Path) -> None:
    """Write the images of a cache as loose files below a folder."""
    shutil.copytree(_extracted(name, work / name), symbols, dirs_exist_ok=True)


def finish(folder: Path, arch: str = "") -> None:
    """Write what Xcode leaves when it is through: with an architecture, as since 27."""
    if arch:
        (folder / f".processed_dyld_shared_cache_{arch}").touch()
    else:
        (folder / ".finalized").write_bytes(plistlib.dumps({}))
