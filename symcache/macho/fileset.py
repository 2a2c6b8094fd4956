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
_MAX_COMMANDS_OF_ALL = 16 << 20
"""Bytes of load commands of all entries together: several may lead to one header. Those of real ones take 2 MiB."""
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

    Raises MachOError for one that contradicts itself, OSError.
    """
    if image.filetype != MH.FILESET:
        return []
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return _entries(descriptor, image)
    except MachOError as error:
        raise MachOError(f"{file}: {error}", hint="the file is cut or damaged: copy it again") from None
    finally:
        os.close(descriptor)


def _entries(descriptor: int, image: Slice) -> list[FilesetEntry]:
    header, head = _commands(descriptor, image, 0)
    layout = struct.Struct(header.structs.order + "2Q2I")
    entries: list[FilesetEntry] = []
    left = _MAX_COMMANDS_OF_ALL
    for command in header.load_commands(head, {LC.FILESET_ENTRY}):
        if command.cmdsize < 8 + layout.size:
            raise MachOError(f"LC_FILESET_ENTRY of {command.cmdsize} bytes where {8 + layout.size} were expected")
        if len(entries) >= _MAX_ENTRIES:
            raise MachOError(f"more than {_MAX_ENTRIES} images in its kernel collection")
        address, offset, name_at, _ = layout.unpack_from(command.image, command.body)
        name = command.data[name_at : name_at + _MAX_NAME].partition(b"\0")[0] if name_at >= 8 + layout.size else b""
        inner, body = _commands(descriptor, image, offset)
        left -= inner.sizeofcmds
        if left < 0:
            raise MachOError(f"the images of its kernel collection have over {_MAX_COMMANDS_OF_ALL} bytes of commands")
        uuids = (c.uuid() for c in inner.load_commands(body, {LC.UUID}))
        entries.append(FilesetEntry(name.decode("utf-8", "replace"), next(uuids, None), address, offset))
    return entries


def _commands(descriptor: int, image: Slice, offset: int) -> tuple[MachHeader, bytes]:
    """Return the header at an offset of the collection, and what begins with it, load commands included."""
    inside = offset + _HEADER <= image.size  # what lies beyond may be more than `pread` takes
    header = mach_header(os.pread(descriptor, _HEADER, image.offset + offset)) if inside else None
    if header is None or not header.fits(min(image.size - offset - header.size, _MAX_COMMANDS)):
        raise MachOError(f"no Mach-O header lies at {offset:#x} of its kernel collection")
    return header, os.pread(descriptor, header.commands_end, image.offset + offset)
