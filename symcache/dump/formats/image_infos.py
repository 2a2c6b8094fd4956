"""The note `all image infos` of a core: which images the process had loaded, and where.

Source: LLDB's ObjectFileMachO.cpp. Offsets count from the start of the core.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

__all__ = ["ENTRY", "HEADER", "OWNER", "ImageSegment", "LoadedImage", "image_infos"]

OWNER = "all image infos"
HEADER = struct.Struct("<2IQ2I")
"""Version, number of entries, where they are, size of one in bytes, unused."""
ENTRY = struct.Struct("<Q16s2Q2I")
"""Where the path is, UUID, address of the header, where the segments are, their number, whether its code was running.
"""
_SEGMENT = struct.Struct("<16s2Q")
"""Name, address, unused."""
_NONE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """Where a segment lies in the process."""

    name: str
    address: int
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image in the process; `address` is that of its header there."""

    address: int
    path: str
    uuid: UUID | None
    version: int | None
    """current_version of LC_ID_DYLIB: 16 bits major, 8 minor, 8 patch."""
    segments: tuple[ImageSegment, ...]
    filetype: int


def image_infos(images: Sequence[LoadedImage], start: int, *, running: bool = False) -> bytes:
    """Return the note that tells a debugger all images with the addresses of their segments; it will lie at `start`.

    LLDB looks harder for the file of an image whose code was `running`.
    """
    entries_at = start + HEADER.size
    segments_at = entries_at + ENTRY.size * len(images)
    paths_at = segments_at + _SEGMENT.size * sum(len(i.segments) for i in images)
    entries, segments, paths = bytearray(), bytearray(), bytearray()
    for image in images:
        entries += ENTRY.pack(
            paths_at + len(paths) if image.path else _NONE,
            image.uuid.bytes if image.uuid else bytes(16),
            image.address,
            segments_at + len(segments),
            len(image.segments),
            running,
        )
        for segment in image.segments:
            segments += _SEGMENT.pack(segment.name.encode(), segment.address, 0)
        if image.path:
            paths += image.path.encode("utf-8", "replace") + b"\0"
    return HEADER.pack(1, len(images), entries_at, ENTRY.size, 0) + bytes(entries) + bytes(segments) + bytes(paths)
