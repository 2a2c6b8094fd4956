"""The header of a thin Mach-O image, and its load commands one after the other, in either byte order and width.

Sources: struct mach_header, mach_header_64, load_command, and those of the commands (<mach-o/loader.h>).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from symcache.errors import MachOError
from symcache.macho.constants import LC
from symcache.macho.structs import (
    STRUCTS,
    DyldInfo,
    Dysymtab,
    LinkeditData,
    Note,
    Section,
    Segment,
    Structs,
    Symtab,
)

__all__ = ["MAX_COMMANDS", "Buffer", "LoadCommand", "MachHeader", "mach_header", "pack_thread_states"]

MAX_COMMANDS = 16 << 20
"""Bytes of load commands: more than any known image has."""
Buffer = bytes | bytearray | memoryview | mmap.mmap

_LINKEDIT_DATA = frozenset({LC.FUNCTION_STARTS, LC.DATA_IN_CODE, LC.DYLD_EXPORTS_TRIE})
_DYLD_INFO = frozenset({LC.DYLD_INFO, LC.DYLD_INFO_ONLY})
_NAMES = frozenset({LC.ID_DYLIB, LC.ID_DYLINKER})
# Members of an enumeration take their time to be looked up before Python 3.12.
_SYMTAB, _DYSYMTAB, _ID_DYLIB, _UUID, _NOTE = LC.SYMTAB, LC.DYSYMTAB, LC.ID_DYLIB, LC.UUID, LC.NOTE
_HEADER = 8
"""Size of struct load_command."""
_RAW_UUID = struct.Struct("16s")
_STATE = struct.Struct("<2I")
_MAX_NAME = 4096
"""Four times PATH_MAX."""


@dataclass(slots=True)
class LoadCommand:
    """struct load_command, in the image that it lies in.

    Each method below reads one kind of command, and returns None for all others. It raises MachOError for a command
    that is too short for its struct.
    """

    cmd: int
    offset: int
    """Of the command in `image`."""
    cmdsize: int
    image: Buffer
    structs: Structs

    @property
    def data(self) -> bytes:
        """All of it."""
        return bytes(self.image[self.offset : self.offset + self.cmdsize])

    @property
    def body(self) -> int:
        """Offset in `image` of what follows `cmd` and `cmdsize`."""
        return self.offset + _HEADER

    def segment(self) -> Segment | None:
        """LC_SEGMENT_64 of a 64-bit image, LC_SEGMENT of another."""
        if self.cmd != self.structs.lc_segment:
            return None
        name, *numbers = self._fields(self.structs.segment)
        return Segment(_text(name), *numbers)

    def section_offsets(self) -> range:
        """Return where in `image` the sections of a segment are; empty for another command.

        Raises MachOError where they do not fit into the command.
        """
        if self.cmd != self.structs.lc_segment:
            return range(0)
        nsects = self._fields(self.structs.segment)[-2]
        size, start = self.structs.section.size, self.body + self.structs.segment.size
        end = start + nsects * size
        if end > self.offset + self.cmdsize:
            raise MachOError(f"{nsects} sections do not fit into a segment command of {self.cmdsize} bytes")
        return range(start, end, size)

    def sections(self) -> list[Section]:
        """Return the sections of a segment. As `section_offsets`."""
        places = self.section_offsets()
        found = self.structs.section.iter_unpack(self.image[places.start : places.stop])
        return [Section(_text(name), _text(owner), *numbers) for name, owner, *numbers in found]

    def symtab(self) -> Symtab | None:
        """LC_SYMTAB."""
        return Symtab(*self._fields(self.structs.symtab)) if self.cmd == _SYMTAB else None

    def dysymtab(self) -> Dysymtab | None:
        """LC_DYSYMTAB."""
        return Dysymtab(*self._fields(self.structs.dysymtab)) if self.cmd == _DYSYMTAB else None

    def linkedit_data(self) -> LinkeditData | None:
        """LC_FUNCTION_STARTS, LC_DATA_IN_CODE, LC_DYLD_EXPORTS_TRIE.

        Others of this struct are not read: Apple's extractor leaves them in images whose files lack what they name.
        """
        return LinkeditData(*self._fields(self.structs.linkedit_data)) if self.cmd in _LINKEDIT_DATA else None

    def dyld_info(self) -> DyldInfo | None:
        """LC_DYLD_INFO, LC_DYLD_INFO_ONLY."""
        return DyldInfo(*self._fields(self.structs.dyld_info)) if self.cmd in _DYLD_INFO else None

    def uuid(self) -> UUID | None:
        """LC_UUID (struct uuid_command); None as well for one of zeros."""
        if self.cmd != _UUID:
            return None
        (raw,) = self._fields(_RAW_UUID)
        return UUID(bytes=raw) if any(raw) else None

    def current_version(self) -> int | None:
        """LC_ID_DYLIB (struct dylib_command): 16 bits major, 8 minor, 8 patch."""
        return int(self._fields(self.structs.dylib)[2]) if self.cmd == _ID_DYLIB else None

    def install_name(self) -> bytes | None:
        """LC_ID_DYLIB, LC_ID_DYLINKER (struct dylinker_command); empty where the name does not lie in the command."""
        if self.cmd not in _NAMES:
            return None
        (start,) = self._fields(self.structs.lc_str)
        if start < _HEADER + self.structs.lc_str.size:
            return b""
        end = self.offset + min(self.cmdsize, start + _MAX_NAME)
        return bytes(self.image[self.offset + start : end]).partition(b"\0")[0]

    def note(self) -> Note | None:
        """LC_NOTE."""
        if self.cmd != _NOTE:
            return None
        owner, offset, size = self._fields(self.structs.note)
        return Note(_text(owner), offset, size)

    def _fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        if self.cmdsize < _HEADER + layout.size:
            name, expected = LC(self.cmd).name, _HEADER + layout.size
            raise MachOError(f"LC_{name} of {self.cmdsize} bytes where {expected} were expected")
        return layout.unpack_from(self.image, self.offset + _HEADER)


@dataclass(slots=True)
class MachHeader:
    """struct mach_header, mach_header_64, of a thin image of any byte order."""

    structs: Structs
    """Of this byte order and width."""
    cputype: int
    cpusubtype: int
    filetype: int
    ncmds: int
    sizeofcmds: int
    flags: int
    reserved: int = 0

    @property
    def size(self) -> int:
        """Of the header in bytes: where the load commands begin."""
        return self.structs.header.size

    @property
    def commands_end(self) -> int:
        """Bytes that header and load commands take together."""
        return self.structs.header.size + self.sizeofcmds

    def fits(self, size: int) -> bool:
        """Return whether `ncmds` commands fit into `sizeofcmds`, and those into the `size` bytes behind the header."""
        return self.ncmds * _HEADER <= self.sizeofcmds <= size

    def packed(self) -> bytes:
        """Return the header as it lies in a file."""
        reserved = [self.reserved] if self.structs.wide else []
        fields = self.cputype, self.cpusubtype, self.filetype, self.ncmds, self.sizeofcmds, self.flags
        return self.structs.magic + self.structs.header.pack(*fields, *reserved)[4:]

    def load_commands(self, image: Buffer, only: Container[int] | None = None) -> Iterator[LoadCommand]:
        """Yield the load commands of the image that begins with `image`; of these kinds `only`, if they are given.

        Raises MachOError at the first that does not lie whole in `image` and `sizeofcmds`; those before it were
        yielded.
        """
        structs = self.structs
        start, unpack = structs.header.size, structs.load_command.unpack_from
        position, end = start, min(start + self.sizeofcmds, len(image))
        for number in range(self.ncmds):
            if position + _HEADER > end:
                raise MachOError(f"load command {number} of {self.ncmds} lies beyond sizeofcmds {end - start}")
            cmd, cmdsize = unpack(image, position)
            if cmdsize < _HEADER or position + cmdsize > end:
                raise MachOError(f"load command {number} ({cmd:#x}) has an impossible size of {cmdsize}")
            if only is None or cmd in only:
                yield LoadCommand(cmd, position, cmdsize, image, structs)
            position += cmdsize


def mach_header(head: Buffer) -> MachHeader | None:
    """Return the Mach-O header at the start of `head`; None if it is no thin image, or is cut inside its header."""
    structs = STRUCTS.get(bytes(head[:4]))
    if structs is None or len(head) < structs.header.size:
        return None
    return MachHeader(structs, *structs.header.unpack_from(head))


def pack_thread_states(states: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the body of a thread_command, little-endian: states by flavor, each with its size in 4-byte words."""
    return b"".join(_STATE.pack(flavor, len(state) // 4) + state for flavor, state in states)


@lru_cache(1024)
def _text(name: bytes) -> str:
    """Decode a name field of 16 bytes, which may lack its NUL. Cached: most images use the same names."""
    return name.partition(b"\0")[0].decode("utf-8", "replace")
