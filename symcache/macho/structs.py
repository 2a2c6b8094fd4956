"""The structs of <mach-o/loader.h> and <mach-o/fat.h>, as tuples with Apple's names, and how they lie in a file.

Of a load command they are what follows its `cmd` and `cmdsize`. Sizes are in bytes, and file offsets count from the
start of the image. Universal files are always big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from symcache.macho.constants import LC, MH, S

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FAT_ARCHES",
    "FAT_HEADER",
    "LITTLE_64",
    "MAX_SLICES",
    "STRUCTS",
    "DyldInfo",
    "Dysymtab",
    "FatArch",
    "LinkeditData",
    "Note",
    "Section",
    "Segment",
    "Structs",
    "Symtab",
    "fat_table",
    "is_zerofill",
]

_TYPE, _ZEROFILL = int(S.TYPE), frozenset({S.ZEROFILL, S.GB_ZEROFILL, S.THREAD_LOCAL_ZEROFILL})


class Segment(NamedTuple):
    """struct segment_command, segment_command_64."""

    segname: str
    vmaddr: int
    vmsize: int
    fileoff: int
    filesize: int
    maxprot: int
    initprot: int
    nsects: int
    flags: int


class Section(NamedTuple):
    """struct section, section_64."""

    sectname: str
    segname: str
    addr: int
    size: int
    offset: int
    align: int
    """As a power of two."""
    reloff: int
    nreloc: int
    flags: int
    reserved1: int = 0
    reserved2: int = 0

    @property
    def zerofill(self) -> bool:
        """See `is_zerofill`."""
        return is_zerofill(self.flags)


def is_zerofill(flags: int) -> bool:
    """Return whether a section with these flags is of a type that has no bytes in the file."""
    return flags & _TYPE in _ZEROFILL


class Symtab(NamedTuple):
    """struct symtab_command."""

    symoff: int
    nsyms: int
    stroff: int
    strsize: int


class Dysymtab(NamedTuple):
    """struct dysymtab_command, without the tables of object files and old linkers, which are written as zeros."""

    ilocalsym: int
    nlocalsym: int
    iextdefsym: int
    nextdefsym: int
    iundefsym: int
    nundefsym: int
    indirectsymoff: int
    nindirectsyms: int


class LinkeditData(NamedTuple):
    """struct linkedit_data_command."""

    dataoff: int
    datasize: int


class DyldInfo(NamedTuple):
    """struct dyld_info_command."""

    rebase_off: int
    rebase_size: int
    bind_off: int
    bind_size: int
    weak_bind_off: int
    weak_bind_size: int
    lazy_bind_off: int
    lazy_bind_size: int
    export_off: int
    export_size: int


class Note(NamedTuple):
    """struct note_command; `offset` counts from the start of the file."""

    data_owner: str
    offset: int
    size: int


class Structs:
    """How the structs lie in an image of one byte order (`<` or `>`) and width (`wide`: 64 bit)."""

    def __init__(self, order: str, *, wide: bool) -> None:
        word = "Q" if wide else "I"
        self.order, self.wide = order, wide
        self.pointer_size, self.nlist_size = (8, 16) if wide else (4, 12)
        self.magic = struct.pack(order + "I", MH.MAGIC_64 if wide else MH.MAGIC)
        self.lc_segment = LC.SEGMENT_64 if wide else LC.SEGMENT
        self.header = struct.Struct(order + ("4x7I" if wide else "4x6I"))
        self.load_command = struct.Struct(order + "2I")
        self.segment = struct.Struct(f"{order}16s4{word}4I")
        self.section = struct.Struct(f"{order}16s16s2{word}7I" + ("4x" if wide else ""))
        self.symtab = struct.Struct(order + "4I")
        self.dysymtab = struct.Struct(order + "6I24x2I16x")
        self.linkedit_data = struct.Struct(order + "2I")
        self.dyld_info = struct.Struct(order + "10I")
        self.lc_str = struct.Struct(order + "I")
        self.dylib = struct.Struct(order + "4I")
        self.note = struct.Struct(order + "16s2Q")

    @cached_property
    def nlist(self) -> np.dtype[np.void]:
        """struct nlist or nlist_64 (<mach-o/nlist.h>), as numpy has it."""
        import numpy as np  # noqa: PLC0415 (takes its time to import)

        names = ("n_strx", "n_type", "n_sect", "n_desc", "n_value")
        types = ("u4", "u1", "u1", "u2", "u8" if self.wide else "u4")
        return np.dtype([(name, self.order + kind) for name, kind in zip(names, types, strict=True)])

    def command(self, cmd: int, body: bytes) -> bytes:
        """Return a load command; `body` is what follows its `cmd` and `cmdsize`."""
        return self.load_command.pack(cmd, self.load_command.size + len(body)) + body

    def segment_command(self, segment: Segment, sections: Sequence[Section] = ()) -> bytes:
        """Return the load command of a segment with these sections, which are counted here."""
        body = self.segment.pack(*_encoded(segment._replace(nsects=len(sections))))
        return self.command(self.lc_segment, body + b"".join(self.section.pack(*_encoded(s)) for s in sections))


def _encoded(fields: Iterable[str | int]) -> list[bytes | int]:
    return [field.encode() if isinstance(field, str) else field for field in fields]


STRUCTS = {s.magic: s for s in (Structs(order, wide=wide) for order in "<>" for wide in (False, True))}
"""By the first four bytes of an image."""
LITTLE_64 = STRUCTS[struct.pack("<I", MH.MAGIC_64)]
"""Of all that runs on macOS since 10.15."""

_FAT_MAGIC, _FAT_MAGIC_64 = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"
FAT_HEADER = struct.Struct(">4sI")
"""struct fat_header: magic, nfat_arch."""
FAT_ARCHES = {_FAT_MAGIC: struct.Struct(">5I"), _FAT_MAGIC_64: struct.Struct(">2I2QI4x")}
"""struct fat_arch and fat_arch_64, by the first four bytes of the file."""
MAX_SLICES = 40
"""A Java class file starts with the same magic; its next word is the version, 45 or more."""


class FatArch(NamedTuple):
    """struct fat_arch, fat_arch_64: one image, its place in the file in bytes."""

    cputype: int
    cpusubtype: int
    offset: int
    size: int
    align: int
    """Of `offset`, as a power of two."""


def fat_table(arches: Sequence[FatArch]) -> bytes:
    """Return what a universal file of these images begins with: fat_arch_64 where one ends beyond 4 GiB."""
    wide = any(arch.offset + arch.size >= 1 << 32 for arch in arches)
    magic = _FAT_MAGIC_64 if wide else _FAT_MAGIC
    return FAT_HEADER.pack(magic, len(arches)) + b"".join(FAT_ARCHES[magic].pack(*arch) for arch in arches)
