"""What a collection of kernel and kernel extensions (MH_FILESET) holds: whole images, each with a header of its own.

Sources: struct fileset_entry_command, uuid_command (<mach-o/loader.h>).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import MachOError
from symcache.macho.constants import LC, MH
from symcache.macho.identify import Slice
from symcache.macho.load_commands import MachHeader, mach_header

__all__ = ["FilesetEntry", "fileset_entries"]

_HEADER = 32
_MAX_ENTRIES = 8192
"""Twenty times as many as any has had."""
_MAX_COMMANDS = 1 << 20
"""Bytes of load commands, of the collection and of each entry."""
_MAX_NAME = 1024


class FilesetEntry(NamedTuple):
    """One image in a collection."""

    name: str
    """Its bundle identifier, or `com.apple.kernel`."""
    uuid: UUID | None
    address: int
    offset: int
    """Of its Mach-O header from the start of the collection."""


def fileset_entries(file: Path, image: Slice) -> list[FilesetEntry]:
    """Return the entries of a collection in the order of its load commands; none for any other image.

    Raises MachOError for one that contradicts itself.
    """
    if image.filetype != MH.FILESET:
        return []
    descriptor = os.open(file, os.O_RDONLY)
    try:

        def commands(offset: int) -> tuple[MachHeader, bytes]:
            head = os.pread(descriptor, _HEADER, image.offset + offset)
            header = mach_header(head) if offset + _HEADER <= image.size else None
            if header is None or not header.fits(min(image.size - offset, _MAX_COMMANDS)):
                raise MachOError(
                    f"{file}: no Mach-O header lies at {offset:#x} of its kernel collection",
                    hint="the file is cut or damaged: copy it again",
                )
            return header, os.pread(descriptor, header.commands_end, image.offset + offset)

        header, head = commands(0)
        entry = struct.Struct(header.structs.order + "2Q2I")
        found: list[FilesetEntry] = []
        for command in header.load_commands(head, {LC.FILESET_ENTRY}):
            if command.cmdsize < 8 + entry.size or len(found) >= _MAX_ENTRIES:
                raise MachOError(f"{file}: its {len(found) + 1}th LC_FILESET_ENTRY cannot be")
            address, offset, name_at, _ = entry.unpack_from(command.image, command.body)
            name = command.data[name_at : name_at + _MAX_NAME].partition(b"\0")[0] if name_at >= 8 + entry.size else b""
            inner, body = commands(offset)
            uuids = (c.uuid() for c in inner.load_commands(body, {LC.UUID}))
            found.append(FilesetEntry(name.decode("utf-8", "replace"), next(uuids, None), address, offset))
        return found
    finally:
        os.close(descriptor)
