"""A batch of images out of an opened cache into files: the unit of work of one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.dyld.cache import SharedCache
from symcache.dyld.image_writer import Extractor, NewImage
from symcache.dyld.output import safe_parts, write_file
from symcache.errors import StorageError, SymcacheError

__all__ = ["Batch", "Extracted", "Failed", "Outcome", "extract_batch", "write_image"]


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


Batch = list[tuple[int, str]]
"""(index of an image, path below the output folder to write it to)"""
Outcome = list[tuple[int, Extracted | Failed]]
"""What became of each image of a batch, by its index."""


def extract_batch(cache: SharedCache, extractor: Extractor, output: Path, batch: Batch) -> Outcome:
    """Extract some images in this process. Raises StorageError; whatever is wrong with an image is an outcome."""
    outcome: Outcome = []
    names = dict(batch)
    for image, made in extractor.many([cache.images[i] for i in names]):
        try:
            if isinstance(made, SymcacheError):
                raise made
            outcome.append((image.index, write_image(made, output, safe_parts(names[image.index]))))
        except StorageError:
            raise
        except SymcacheError as error:
            outcome.append((image.index, Failed(image.path, image.uuid, str(error))))
    cache.space.release()
    return outcome


def write_image(made: NewImage, root: Path, parts: Sequence[str]) -> Extracted:
    """Write a finished image. Raises StorageError, or SharedCacheError where its name is taken."""
    file = write_file(root, parts, made.pieces)
    return Extracted(made.image.path, made.image.uuid, made.arch, file, made.size, made.unbacked)
