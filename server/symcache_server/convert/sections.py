"""One section of an image, found by its load commands."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from symcache.images import ImageRequest
from symcache.macho import Section, identify, sections

__all__ = ["find_in_slice", "find_section", "is_debug", "match_section"]

_HEAD = 4 << 20
"""Load commands beyond this many bytes are not looked at; those of the largest known binaries are a tenth of it."""
_LONGEST_NAME = 16


def is_debug(name: str) -> bool:
    """Return whether a section is one that dSYMs have."""
    segment, _, section = name.rpartition(",")
    return segment == "__DWARF" or section.lstrip("._").startswith(("debug_", "apple_", "zdebug_"))


def find_in_slice(path: Path, wanted: ImageRequest, name: str) -> Section | None:
    """Return a section of a fetched file, which may be universal: then with its offset in the whole file."""
    for image in identify(path):
        if (image.uuid, image.kind) == (wanted.uuid, wanted.kind):
            section = find_section(os.open(path, os.O_RDONLY), image.offset, image.size, name)
            return section and section._replace(offset=image.offset + section.offset)
    return None


def find_section(descriptor: int, start: int, size: int, name: str) -> Section | None:
    """Return a section of the image of `size` bytes from `start` on, with its offset in the image; closes the file."""
    try:
        head = os.pread(descriptor, min(size, _HEAD), start)
    finally:
        os.close(descriptor)
    return match_section(name, sections(head, size))


def match_section(name: str, known: Iterable[Section]) -> Section | None:
    """Return the section that a client names: `__TEXT,__text`, the first `__text`, or in ELF's spelling `.text`."""
    segment, _, section = name.rpartition(",")
    if section.startswith("."):
        section = f"__{section[1:]}"[:_LONGEST_NAME]
    return next((s for s in known if s.sectname == section and segment in {"", s.segname}), None)
