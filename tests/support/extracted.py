"""A shared cache with all of its images, staged as a harvest stages them."""

from __future__ import annotations

from pathlib import Path

from symcache.dyld import EXTRACTOR, REVISION, SharedCache, extract_all
from symcache.library import Staged, StagedCacheFile, StagedObject
from symcache.model import ManifestEntry, Origin, Release

__all__ = ["stage_extracted"]


def stage_extracted(main: Path, folder: Path, build: str, jobs: int | None = 1) -> Staged:
    """Extract the images of the cache `main` to `folder`; return them, the raw files, and a manifest of the images."""
    staged = Staged(Release(version="13.6", build=build), "test")
    with SharedCache.open(main) as cache:
        for part in cache.files:
            name = part.path.name
            staged.cache_files.append(
                StagedCacheFile(part.path, name, f"/System/Library/dyld/{name}", cache.arch, cache.uuid)
            )
        report = extract_all(cache, folder, jobs=jobs)
        assert report.failed == []
        for e in report.extracted:
            staged.manifest.append(
                ManifestEntry(path=e.path, arch=e.arch, uuid=e.uuid, origin=Origin.CACHE, cache_uuid=cache.uuid)
            )
            staged.objects.append(
                StagedObject(
                    *(e.file, 0, e.size, e.path, e.arch, e.uuid),
                    origin=Origin.CACHE,
                    cache_uuid=cache.uuid,
                    extractor=EXTRACTOR,
                    revision=REVISION,
                )
            )
    return staged
