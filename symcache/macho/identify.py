"""Which images a file holds, read from its first kilobytes.

Sources: struct mach_header, mach_header_64, load_command, uuid_command, dylib_command (<mach-o/loader.h>);
struct fat_header, fat_arch, fat_arch_64 (<mach-o/fat.h>).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import MachOError
from symcache.kinds import Kind
from symcache.macho.constants import LC, MH, arch_name
from symcache.macho.load_commands import MAX_COMMANDS, mach_header
from symcache.macho.structs import FAT_ARCHES, FAT_HEADER, MAX_SLICES, STRUCTS

__all__ = ["Slice", "begins_as_macho", "identify", "identify_at", "identify_bytes"]

_HEAD = 8 << 10
"""Enough for the load commands of nearly every image in one read."""

_KINDS: dict[int, Kind] = {
    MH.EXECUTE: Kind.EXECUTABLE,
    MH.DYLIB: Kind.EXECUTABLE,
    MH.DYLINKER: Kind.EXECUTABLE,
    MH.BUNDLE: Kind.EXECUTABLE,
    MH.KEXT_BUNDLE: Kind.EXECUTABLE,
    MH.FILESET: Kind.EXECUTABLE,
    MH.DSYM: Kind.DEBUGINFO,
}
_READ = frozenset({LC.UUID, LC.ID_DYLIB, LC.ID_DYLINKER})
_MAGICS = STRUCTS.keys() | FAT_ARCHES.keys()

ReadAt = Callable[[int, int], bytes]
"""(offset, size) to bytes; shorter at the end of the file."""


class Slice(NamedTuple):
    """One Mach-O image in a file; a thin file is one slice at offset 0. Offsets and sizes in bytes."""

    offset: int
    size: int
    cputype: int
    cpusubtype: int
    """As it stands in the header, capability byte included."""
    filetype: int
    uuid: UUID | None
    arch: str
    kind: Kind | None
    """None for file types that are not served: object files, cores, stubs."""
    install_name: str | None
    """Of a dylib or the dynamic linker (LC_ID_DYLIB, LC_ID_DYLINKER)."""


def identify(path: Path) -> list[Slice]:
    """Return the images of a file, or an empty list when it is no Mach-O at all.

    Raises MachOError when it begins as one but is cut or contradictory; OSError when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(descriptor, _HEAD, 0)
        if head[:4] not in _MAGICS:
            return []
        size = os.fstat(descriptor).st_size

        def read_at(offset: int, length: int) -> bytes:
            if offset + length <= len(head):
                return head[offset : offset + length]
            return os.pread(descriptor, length, offset)

        return _identify(read_at, size, str(path))
    finally:
        os.close(descriptor)


def identify_bytes(head: bytes, size: int, name: str = "image") -> list[Slice]:
    """Return the images of a file of `size` bytes of which `head` is the beginning.

    As `identify`; load commands that reach beyond `head` are an error, and so are slices that begin beyond it.
    """
    if head[:4] not in _MAGICS:
        return []
    return _identify(lambda offset, length: head[offset : offset + length], size, name)


def identify_at(read_at: ReadAt, size: int, name: str) -> list[Slice]:
    """Return the images of a file of `size` bytes that lies elsewhere. Raises MachOError, and what `read_at` raises."""
    return _identify(read_at, size, name) if read_at(0, 4) in _MAGICS else []


def begins_as_macho(head: bytes) -> bool:
    """Return whether a file with these first 8 bytes may be Mach-O or universal; `identify` tells what it holds."""
    if head[:4] in FAT_ARCHES:
        return 0 < int.from_bytes(head[4:8], "big") <= MAX_SLICES
    return head[:4] in STRUCTS


def _identify(read_at: ReadAt, size: int, name: str) -> list[Slice]:
    head = read_at(0, FAT_HEADER.size)
    if head[:4] in STRUCTS:
        found = _image(read_at, 0, size, name)
        return [found] if found else []
    count = int.from_bytes(head[4:], "big")
    if len(head) < FAT_HEADER.size or count > MAX_SLICES:
        return []  # a Java class file, or nothing that any tool would take for a universal file
    entry = FAT_ARCHES[head[:4]]
    table = read_at(FAT_HEADER.size, entry.size * count)
    if len(table) < entry.size * count:
        raise MachOError(f"{name}: ends inside its table of {count} slices")
    slices = []
    for number, (cputype, cpusubtype, offset, length, _) in enumerate(entry.iter_unpack(table)):
        if offset < FAT_HEADER.size + len(table) or length == 0 or offset + length > size:
            raise MachOError(
                f"{name}: slice {number} ({arch_name(cputype, cpusubtype)}) at {offset:#x}, {length:#x} bytes,"
                f" lies outside the file of {size:#x} bytes",
                hint="the file is cut or damaged: copy it again",
            )
        if (found := _image(read_at, offset, length, name)) is not None:
            slices.append(found)
    return slices


def _image(read_at: ReadAt, offset: int, size: int, name: str) -> Slice | None:
    """Return the image at `offset`, or None when there is something else: a static archive may be a slice too."""
    window = read_at(offset, min(size, _HEAD))
    if len(window) < min(4, size):
        raise MachOError(f"{name}: its image at {offset:#x} lies beyond what was read", hint="read the whole file")
    if window[:4] not in STRUCTS:
        return None
    header = mach_header(window)
    if header is None:
        raise MachOError(f"{name}: ends inside its Mach-O header", hint="the file is cut: copy it again")
    if not header.fits(min(size - header.size, MAX_COMMANDS)):
        raise MachOError(
            f"{name}: {header.ncmds} load commands in {header.sizeofcmds} bytes do not fit into an image of"
            f" {size} bytes",
            hint="the file is cut or damaged: copy it again",
        )
    end = header.commands_end
    if len(window) < end:
        window = read_at(offset, end)
    if len(window) < end:
        raise MachOError(f"{name}: ends inside its load commands", hint="the file is cut: copy it again")
    uuid = install_name = None
    try:
        for command in header.load_commands(window, _READ):
            if named := command.install_name():
                install_name = named.decode("utf-8", "replace")
            elif uuid is None:
                uuid = command.uuid()
    except MachOError as error:
        raise MachOError(f"{name}: {error}", hint=error.hint) from None
    arch = arch_name(header.cputype, header.cpusubtype)
    kind = _KINDS.get(header.filetype)
    return Slice(offset, size, header.cputype, header.cpusubtype, header.filetype, uuid, arch, kind, install_name)
