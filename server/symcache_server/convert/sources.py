"""Source files of the binaries that the library holds: debuginfod's `/buildid/{hex}/source/{path}`.

Served is what lies in the trees that the operator named, of a binary that the library holds, and if it holds the debug
info, too, only files whose name is in the line table. Source: DWARF 4 and 5, 6.2.4 (the line number program header).
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from symcache.dump import source_path
from symcache.errors import MachOError, NotFoundError
from symcache.macho import load_commands, mach_header
from symcache.macho.constants import LC_SEGMENT_64
from symcache.model import uuid_text
from symcache_server.http.content import REVALIDATE, Content, header_text, send
from symcache_server.layouts import Lookup, What
from symcache_server.lookup.service import Service

__all__ = ["answer_source", "names_file"]

_SECTION = struct.Struct("<16s16s2QI")
_SEGMENT_SIZE, _SECTION_SIZE = 72, 80
_LINES = {b"__debug_line", b"__debug_line_str"}
_MAX_COMMANDS = 1 << 20
_PIECE = 4 << 20
_NO_NAMES = 64
"""Line tables up to this size in bytes name no file."""


class _Bytes:
    """Content that is in memory, as a file that can be sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor."""
        with tempfile.TemporaryFile() as file:
            file.write(self._data)
            file.flush()
            return os.dup(file.fileno())

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor; there is no other form than the plain one."""
        return await self.open(sha256, size)


async def answer_source(request: web.Request, service: Service, lookup: Lookup) -> web.StreamResponse:
    """Answer with a source file. Raises NotFoundError, and UsageError for what is no path."""
    uuid = lookup.uuid
    path = source_path("/" + lookup.detail)
    if not service.sources:
        raise NotFoundError(f"source of {uuid_text(uuid)}: none are served here", hint="symcache serve --sources")
    debug_info = await service.resolve(replace(lookup, what=What.DEBUGINFO))
    if debug_info is not None:
        descriptor = await service.decoded.open(debug_info.sha256, debug_info.size)
        if not await asyncio.to_thread(names_file, descriptor, path.rpartition("/")[2]):
            raise NotFoundError(f"{path[:200]!r}: the line tables of {uuid_text(uuid)} name no such file")
    elif await service.resolve(replace(lookup, what=What.EXECUTABLE)) is None:
        raise NotFoundError(f"{uuid_text(uuid)}: nobody here has this binary, nor its sources")
    data = await asyncio.to_thread(service.sources.read, path, uuid)
    headers = {
        "Cache-Control": REVALIDATE,
        "X-Symcache-Uuid": uuid_text(uuid),
        "X-Symcache-Size": str(len(data)),
        "X-DEBUGINFOD-SIZE": str(len(data)),
        "X-DEBUGINFOD-FILE": header_text(path),
    }
    content = Content(hashlib.sha256(data).hexdigest(), len(data), len(data))
    return await send(request, _Bytes(data), content, headers)


def names_file(descriptor: int, name: str) -> bool:
    """Return whether the line tables of a thin image name a file so, in any folder; closes the descriptor.

    True, too, where it has no line tables to look into: then nothing is known against it.
    """
    with os.fdopen(descriptor, "rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            return True
    with view:
        found = [(start, start + size) for start, size in _line_tables(view) if size > _NO_NAMES]
        wanted = name.encode() + b"\0"
        return not found or any(_contains(view, wanted, start, min(end, len(view))) for start, end in found)


def _contains(view: mmap.mmap, wanted: bytes, start: int, end: int) -> bool:
    # Piece by piece: while one is searched, no other request is answered.
    pieces = range(start, end, _PIECE)
    return any(view.find(wanted, at, min(end, at + _PIECE + len(wanted))) >= 0 for at in pieces)


def _line_tables(view: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of the sections that hold file names."""
    header = mach_header(view)
    if header is None or not header.wide or header.order != "<":
        return
    end = header.size + min(header.sizeofcmds, _MAX_COMMANDS)
    with suppress(MachOError):
        for cmd, position, cmdsize in load_commands(view, header.ncmds, header.size, end):
            if cmd == LC_SEGMENT_64:
                for entry in range(position + _SEGMENT_SIZE, position + cmdsize - _SECTION_SIZE + 1, _SECTION_SIZE):
                    name, _, _, size, offset = _SECTION.unpack_from(view, entry)
                    if name.rstrip(b"\0") in _LINES:
                        yield offset, size
