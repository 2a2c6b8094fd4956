"""One section of an image, for debuginfod's `/section/{name}`: found by the headers, and sent from the decoded file.

Images that are not in the library are fetched whole from upstream servers, since a section alone cannot be checked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from symcache.client import FetchedImage
from symcache.images import ImageRequest
from symcache.library import Found
from symcache.macho import Section, identify, sections
from symcache.model import Kind
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.content import Content, PlainFile, Source
from symcache_server.layouts import Lookup, What
from symcache_server.lookup.service import Service

__all__ = ["FoundSection", "find_section", "match_section"]

_HEAD = 4 << 20
"""Load commands beyond this many bytes are not looked at; those of the largest known binaries are a tenth of it."""
_LONGEST_NAME = 16


class FoundSection(NamedTuple):
    """A section: the image that holds it, or what was asked for and fetched; the image's file; what to send of it."""

    image: Found | tuple[ImageRequest, FetchedImage]
    source: Source
    content: Content


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


async def find_section(service: Service, lookup: Lookup, request: web.BaseRequest) -> FoundSection | None:
    """Return the section `lookup.detail`: of the library's dSYM, its binary, or of what upstream servers have.

    Raises RemoteError when it may be upstream and no server can be asked.
    """
    missing = []
    for what in (What.DEBUGINFO, What.EXECUTABLE):
        found = await service.resolve(replace(lookup, what=what, detail=""))
        if found is None:
            missing.append(what)
            continue
        descriptor = await service.decoded.open(found.sha256, found.size)
        section = await asyncio.to_thread(_find, descriptor, 0, found.size, lookup.detail)
        if section is not None:
            return FoundSection(found, _Image(service.decoded, found), _content(found.sha256, section))
    if not _is_debug(lookup.detail):  # what is fetched is large: the likelier one first
        missing.reverse()
    for what in missing:
        asked = ImageRequest(lookup.uuid, what.kind or Kind.EXECUTABLE, lookup.cache, lookup.build)
        if (fetched := await service.fetch(asked, request)) is None:
            continue
        section = await asyncio.to_thread(_find_in_slice, fetched.path, asked, lookup.detail)
        if section is not None:
            return FoundSection((asked, fetched), PlainFile(fetched.path), _content(fetched.sha256, section))
    return None


def _is_debug(name: str) -> bool:
    """Return whether a section is one that dSYMs have."""
    segment, _, section = name.rpartition(",")
    return segment == "__DWARF" or section.lstrip("._").startswith(("debug_", "apple_", "zdebug_"))


def _find_in_slice(path: Path, asked: ImageRequest, name: str) -> Section | None:
    """Return a section of a fetched file, which may be universal: then with its offset in the whole file."""
    for image in identify(path):
        if (image.uuid, image.kind) == (asked.uuid, asked.kind):
            section = _find(os.open(path, os.O_RDONLY), image.offset, image.size, name)
            return section and section._replace(offset=image.offset + section.offset)
    return None


def _find(descriptor: int, start: int, size: int, name: str) -> Section | None:
    """Return a section of the image of `size` bytes from `start` on, with its offset in the image; closes the file."""
    try:
        head = os.pread(descriptor, min(size, _HEAD), start)
    finally:
        os.close(descriptor)
    return match_section(name, sections(head, size))


def match_section(name: str, known: Iterable[Section]) -> Section | None:
    """Return the section that a client means: `__TEXT,__text`, the first `__text`, or in ELF's spelling `.text`."""
    segment, _, section = name.rpartition(",")
    if section.startswith("."):
        section = f"__{section[1:]}"[:_LONGEST_NAME]
    return next((s for s in known if s.name == section and segment in {"", s.segment}), None)


def _content(sha256: str, section: Section) -> Content:
    tag = f"{sha256}-{section.offset}-{section.size}"
    return Content(tag, section.size, section.size, section.offset)
