"""One section of an image, for debuginfod's `/section/{name}`: found by the headers, and sent from the decoded file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import replace

from server.content import Content, Source
from server.decoded import DecodedCache
from server.layouts import Wanted, What
from server.service import Service
from symcache.library import Found
from symcache.macho import Section, sections

__all__ = ["find_section", "match_section"]

_HEAD = 4 << 20
"""Load commands beyond this many bytes are not looked at; those of the largest known binaries are a tenth of it."""
_LONGEST_NAME = 16


class _Image:
    """The file that a section is a part of."""

    def __init__(self, decoded: DecodedCache, image: Found) -> None:
        self._decoded, self._image = decoded, image

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the whole image."""
        return await self._decoded.open(self._image.sha256, self._image.size)

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor; there is no other form than the plain one."""
        return await self.open(sha256, size)


async def find_section(service: Service, wanted: Wanted) -> tuple[Found, Source, Content] | None:
    """Return the image that holds the section `wanted.detail`, its file, and what to send of it; the dSYM is first."""
    for what in (What.DEBUGINFO, What.EXECUTABLE):
        found = await service.resolve(replace(wanted, what=what, detail=""))
        if found is None:
            continue
        descriptor = await service.decoded.open(found.sha256, found.size)
        section = await asyncio.to_thread(_look, descriptor, found.size, wanted.detail)
        if section is not None:
            return found, _Image(service.decoded, found), _content(found, section)
    return None


def _look(descriptor: int, size: int, name: str) -> Section | None:
    try:
        head = os.pread(descriptor, min(size, _HEAD), 0)
    finally:
        os.close(descriptor)
    return match_section(name, sections(head, size))


def match_section(name: str, known: Iterable[Section]) -> Section | None:
    """Return the section that a client means: `__TEXT,__text`, the first `__text`, or in ELF's spelling `.text`."""
    segment, _, section = name.rpartition(",")
    if section.startswith("."):
        section = f"__{section[1:]}"[:_LONGEST_NAME]
    return next((s for s in known if s.name == section and segment in {"", s.segment}), None)


def _content(found: Found, section: Section) -> Content:
    tag = f"{found.sha256}-{section.offset}-{section.size}"
    return Content(tag, section.size, section.size, section.offset)
