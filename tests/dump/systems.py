"""The images of the demo's shared caches, taken out as a harvest takes them out."""

from __future__ import annotations

from pathlib import Path

import symcache.demo
from symcache.dyld import SharedCache, extract_all
from symcache.library import Staged, StagedObject
from symcache.macho import identify
from symcache.model import Kind, Origin, Release

ASSETS = Path(symcache.demo.__file__).with_name("assets")
BUILD = "22G830"


def stage(cache_files: list[Path], build: str, out: Path) -> Staged:
    staged = Staged(release=Release(version="13.6.9", build=build), source="test")
    for file in cache_files:
        with SharedCache.open(file) as cache:
            for one in extract_all(cache, out / build / cache.arch, jobs=1).extracted:
                part = identify(one.file)[0]
                staged.objects.append(
                    StagedObject(
                        *(one.file, 0, one.size, one.path, part.arch, part.uuid, Kind.EXECUTABLE, Origin.CACHE),
                        *(cache.uuid, "symcache", 1),
                    )
                )
    return staged
