"""Where the segments and sections of an image lie, in memory and in its file.

Source: struct segment_command, segment_command_64, section, section_64 (<mach-o/loader.h>).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from symcache.errors import MachOError
from symcache.macho.identify import identify
from symcache.macho.load_commands import LoadCommand, mach_header
from symcache.macho.structs import Section, Segment

__all__ = ["file_end", "header_address", "sections", "text_address"]

_HEAD = 32 << 10


def sections(head: bytes, size: int) -> Iterator[Section]:
    """Yield the sections that have bytes in a thin image of `size` bytes that begins with `head`, if they lie there.

    In a dSYM the sections of the binary are described as well, but only those of its own segments have bytes.
    """
    with suppress(MachOError):
        for command, segment in _segments(head):
            end = min(size, segment.fileoff + segment.filesize)
            for section in command.sections():
                inside = segment.fileoff <= section.offset and section.offset + section.size <= end
                if section.size and inside and not section.zerofill:
                    yield section


def text_address(head: bytes) -> int | None:
    """Return the unslid address of the Mach-O header of a thin image that begins with `head`: `vmaddr` of `__TEXT`.

    Return None if `head` is no Mach-O image, has no such segment, or is cut before the load command of that.
    """
    with suppress(MachOError):
        return next((s.vmaddr for _, s in _segments(head) if s.segname == "__TEXT"), None)
    return None


def header_address(path: Path, uuid: UUID) -> int | None:
    """Return the address that the Mach-O header of an image was linked for, or None if a file has no such image."""
    try:
        image = next((image for image in identify(path) if image.uuid == uuid), None)
        if image is None:
            return None
        with path.open("rb") as file:
            file.seek(image.offset)
            return text_address(file.read(_HEAD))
    except (MachOError, OSError):
        return None


def file_end(head: bytes) -> int:
    """Return the smallest size of file, in bytes, that holds all segments of a thin image that begins with `head`."""
    end = 0
    with suppress(MachOError):
        for _, segment in _segments(head):
            if segment.filesize:
                end = max(end, segment.fileoff + segment.filesize)
    return end


def _segments(head: bytes) -> Iterator[tuple[LoadCommand, Segment]]:
    """Yield the segments of a thin image, nothing for other data. Raises MachOError at the first damaged command."""
    if header := mach_header(head):
        for command in header.load_commands(head, {header.structs.lc_segment}):
            if segment := command.segment():
                yield command, segment
