"""A batch of images out of an opened cache: the unit of work of one process, and what becomes of the images in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from symcache.dyld.cache import SharedCache
from symcache.dyld.image_writer import Extractor, NewImage
from symcache.dyld.output import safe_parts, write_file
from symcache.errors import StorageError, SymcacheError

__all__ = ["Batch", "Extracted", "Failed", "ImageWork", "Row", "ToFiles", "write_image"]

Batch = list[tuple[int, str]]
"""(index of an image, name of what is made of it, e.g. the path of a file below the output folder)"""
Row = dict[str, Any]
"""What became of one image, as JSON: `index`, and `reason` if it could not be made; the rest is the work's own."""


class ImageWork(Protocol):
    """What is done with the images that are made of a cache, in this process or in others."""

    def command(self) -> Sequence[str]:
        """Return the arguments for Python of a child that does this work: it calls `serve_batches`."""

    def run(self, cache: SharedCache, extractor: Extractor, batch: Batch) -> list[Row]:
        """Make the images of a batch, and do the work. Raises StorageError; errors of one image are in its row."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """One file that was written. `size` in bytes."""

    path: str
    uuid: UUID | None
    arch: str
    file: Path
    size: int
    unbacked: int = 0
    """Bytes of its segments, zero-fill not counted, that no file of the cache backs: they are zero here."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One image that could not be extracted, and why."""

    path: str
    uuid: UUID | None
    reason: str


class ToFiles:
    """Writes images to files below a folder."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def command(self) -> Sequence[str]:
        """See ImageWork."""
        return "-m", "symcache.dyld", str(self._output)

    def run(self, cache: SharedCache, extractor: Extractor, batch: Batch) -> list[Row]:
        """See ImageWork."""
        rows: list[Row] = []
        names = dict(batch)
        for image, made in extractor.many([cache.images[i] for i in names]):
            try:
                if isinstance(made, SymcacheError):
                    raise made
                done = write_image(made, self._output, safe_parts(names[image.index]))
            except StorageError:
                raise
            except SymcacheError as error:
                rows.append({"index": image.index, "reason": str(error)})
            else:
                file, size = str(done.file), done.size
                rows.append(
                    {"index": image.index, "arch": done.arch, "file": file, "size": size, "unbacked": done.unbacked}
                )
        cache.space.release()
        return rows


def write_image(made: NewImage, root: Path, parts: Sequence[str]) -> Extracted:
    """Write a finished image. Raises StorageError, or SharedCacheError where its name is taken."""
    file = write_file(root, parts, made.pieces)
    return Extracted(made.image.path, made.image.uuid, made.arch, file, made.size, made.unbacked)
