"""Copies the beginning of a cache file, which describes the cache; kept when the whole file is not."""

from __future__ import annotations

from pathlib import Path

from symcache.dyld import SharedCache
from symcache.errors import StorageError

__all__ = ["copy_head"]

_COMPANION_HEAD = 16 << 10
_LONGEST_HEAD = 64 << 20


def copy_head(cache: SharedCache, file: Path, folder: Path) -> Path:
    """Copy the header and the tables of one file of a cache into a folder. Raises StorageError."""
    length = _COMPANION_HEAD
    if file == cache.path:
        # Tables and paths of images come first, then the images themselves, unless others have those.
        locations = (cache.space.locate(image.address) for image in cache.images)
        length = min((x.offset for x in locations if x and x.part is cache.main), default=_LONGEST_HEAD)
    target = folder / file.name
    try:
        with file.open("rb") as source:
            head = source.read(min(length, _LONGEST_HEAD))
    except OSError as error:
        raise StorageError(
            f"{file}: cannot be read: {error.strerror}", hint="check the disk that it lies on"
        ) from error
    try:
        target.write_bytes(head)
    except OSError as error:
        raise StorageError(
            f"{target}: cannot be written: {error.strerror}", hint="name another folder with --staging"
        ) from error
    return target
