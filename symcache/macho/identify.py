"""Which images a file holds, read from its first kilobytes.

Sources: struct mach_header, mach_header_64, load_command, uuid_command, dylib_command (<mach-o/loader.h>);
struct fat_header, fat_arch, fat_arch_64 (<mach-o/fat.h>, always big-endian).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import MachOError
from symcache.kinds import Kind
from symcache.macho.constants import (
    FAT_MAGIC,
    FAT_MAGIC_64,
    LC_ID_DYLIB,
    LC_ID_DYLINKER,
    LC_UUID,
    MH_BUNDLE,
    MH_DSYM,
    MH_DYLIB,
    MH_DYLINKER,
    MH_EXECUTE,
    MH_KEXT_BUNDLE,
    arch_name,
)
from symcache.macho.load_commands import MAGICS, MAX_COMMANDS, load_commands, mach_header

__all__ = ["Slice", "identify", "identify_bytes"]

_HEAD = 8 << 10
"""Enough for the load commands of nearly every image in one read."""
_MAX_SLICES = 40
"""A Java class file starts with the same magic; its next word is the version, 45 or more."""

_KINDS = {
    MH_EXECUTE: Kind.EXECUTABLE,
    MH_DYLIB: Kind.EXECUTABLE,
    MH_DYLINKER: Kind.EXECUTABLE,
    MH_BUNDLE: Kind.EXECUTABLE,
    MH_KEXT_BUNDLE: Kind.EXECUTABLE,
    MH_DSYM: Kind.DEBUGINFO,
}
_READ = frozenset({LC_UUID, LC_ID_DYLIB, LC_ID_DYLINKER})
_FAT = {
    struct.pack(">I", FAT_MAGIC): struct.Struct(">5I"),
    struct.pack(">I", FAT_MAGIC_64): struct.Struct(">2I2Q2I"),
}

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
    """None for what is not served: object files, cores, stubs."""
    install_name: str | None
    """Of a dylib or the dynamic linker (LC_ID_DYLIB, LC_ID_DYLINKER)."""


def identify(path: Path) -> list[Slice]:
    """Return the images of a file, or an empty list when it is no Mach-O at all.

    Raises MachOError when it begins as one but is cut or contradictory; OSError when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(descriptor, _HEAD, 0)
        if head[:4] not in MAGICS and head[:4] not in _FAT:
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
    if head[:4] not in MAGICS and head[:4] not in _FAT:
        return []
    return _identify(lambda offset, length: head[offset : offset + length], size, name)


def _identify(read_at: ReadAt, size: int, name: str) -> list[Slice]:
    magic = read_at(0, 4)
    if magic in MAGICS:
        found = _image(read_at, 0, size, name)
        return [found] if found else []
    count_bytes = read_at(4, 4)
    count = int.from_bytes(count_bytes, "big")
    if len(count_bytes) < 4 or count > _MAX_SLICES:
        return []  # a Java class file, or nothing that any tool would take for a universal file
    entry = _FAT[magic]
    table = read_at(8, entry.size * count)
    if len(table) < entry.size * count:
        raise MachOError(f"{name}: ends inside its table of {count} slices")
    slices = []
    for number, fields in enumerate(entry.iter_unpack(table)):
        cputype, cpusubtype, offset, length = fields[:4]
        if offset < 8 + len(table) or length == 0 or offset + length > size:
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
    if window[:4] not in MAGICS:
        return None
    header = mach_header(window)
    if header is None:
        raise MachOError(f"{name}: ends inside its Mach-O header", hint="the file is cut: copy it again")
    order, _, cputype, cpusubtype, filetype, ncmds, sizeofcmds, _ = header
    if sizeofcmds > min(size - header.size, MAX_COMMANDS) or ncmds * 8 > sizeofcmds:
        raise MachOError(
            f"{name}: {ncmds} load commands in {sizeofcmds} bytes do not fit into an image of {size} bytes",
            hint="the file is cut or damaged: copy it again",
        )
    commands = window[header.size : header.size + sizeofcmds]
    if len(commands) < sizeofcmds:
        commands = read_at(offset + header.size, sizeofcmds)
    if len(commands) < sizeofcmds:
        raise MachOError(f"{name}: ends inside its load commands", hint="the file is cut: copy it again")
    uuid = install_name = None
    try:
        for cmd, position, cmdsize in load_commands(commands, ncmds, 0, sizeofcmds, order):
            if cmd not in _READ:
                pass
            elif cmd == LC_UUID and uuid is None:
                if cmdsize < 24:
                    raise MachOError(f"LC_UUID of {cmdsize} bytes where 24 were expected")
                raw = commands[position + 8 : position + 24]
                uuid = UUID(bytes=raw) if any(raw) else None
            elif cmd != LC_UUID and cmdsize >= 12:
                start = int.from_bytes(commands[position + 8 : position + 12], "little" if order == "<" else "big")
                if 12 <= start < cmdsize:
                    text = commands[position + start : position + cmdsize].partition(b"\0")[0]
                    install_name = text.decode("utf-8", "replace")
    except MachOError as error:
        raise MachOError(f"{name}: {error}", hint=error.hint) from None
    arch = arch_name(cputype, cpusubtype)
    return Slice(offset, size, cputype, cpusubtype, filetype, uuid, arch, _KINDS.get(filetype), install_name)
