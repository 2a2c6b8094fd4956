"""Thin Mach-O dylibs and dylinkers as the cache writer needs them: commands, segments, symbols, fixups.

Structures are those of <mach-o/loader.h> and <mach-o/nlist.h>.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.cachewriter.fixups import Bind, Rebase, chained_fixups, opcode_fixups

MH_MAGIC, MH_MAGIC_64 = 0xFEEDFACE, 0xFEEDFACF
MH_DYLIB_IN_CACHE = 0x80000000
LC_SEGMENT, LC_SYMTAB, LC_DYSYMTAB, LC_ID_DYLIB, LC_SEGMENT_64, LC_UUID = 0x1, 0x2, 0xB, 0xD, 0x19, 0x1B
LC_CODE_SIGNATURE, LC_SEGMENT_SPLIT_INFO, LC_FUNCTION_STARTS, LC_DATA_IN_CODE = 0x1D, 0x1E, 0x26, 0x29
LC_DYLD_INFO, LC_DYLD_INFO_ONLY = 0x22, 0x80000022
LC_DYLD_EXPORTS_TRIE, LC_DYLD_CHAINED_FIXUPS = 0x80000033, 0x80000034
LC_LOAD_DYLIB, LC_LOAD_WEAK, LC_REEXPORT, LC_LAZY_LOAD, LC_UPWARD = 0xC, 0x80000018, 0x8000001F, 0x20, 0x80000023
DEPENDENTS = (LC_LOAD_DYLIB, LC_LOAD_WEAK, LC_REEXPORT, LC_LAZY_LOAD, LC_UPWARD)
ZEROFILL_TYPES = (0x1, 0xC, 0x12)  # S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL
N_STAB, N_TYPE, N_EXT, N_SECT = 0xE0, 0x0E, 0x01, 0x0E
# Stabs whose n_value is an address: N_FUN, N_STSYM, N_LCSYM, N_BNSYM.
ADDRESS_STABS = (0x24, 0x26, 0x28, 0x2E)

NLIST = {
    True: np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u8")]),
    False: np.dtype([("strx", "<u4"), ("type", "u1"), ("sect", "u1"), ("desc", "<u2"), ("value", "<u4")]),
}


@dataclass
class Section:
    """One section; `where` is the offset of its structure inside the load commands."""

    name: str
    segment: str
    addr: int
    size: int
    align: int
    flags: int
    where: int

    @property
    def zerofill(self) -> bool:
        return self.flags & 0xFF in ZEROFILL_TYPES

    @property
    def code(self) -> bool:
        return bool(self.flags & 0x80000400)


@dataclass
class Segment:
    """One segment; `content` has `size` bytes: file content, then zeros, trimmed to the last section."""

    name: str
    vmaddr: int
    vmsize: int
    fileoff: int
    filesize: int
    maxprot: int
    initprot: int
    where: int
    sections: list[Section] = field(default_factory=list)
    content: bytes = b""

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def align(self) -> int:
        return max((1 << s.align for s in self.sections), default=1)


@dataclass
class Image:
    """A parsed dylib."""

    path: str
    data: bytes
    is64: bool
    cputype: int
    cpusubtype: int
    filetype: int
    uuid: bytes
    header: bytes  # mach_header and load commands
    commands: list[tuple[int, int, int]]  # (cmd, offset in `header`, size)
    segments: list[Segment]  # without __LINKEDIT
    linkedit: Segment | None
    symbols: np.ndarray[Any, Any]
    names: list[bytes]
    dysymtab: tuple[int, ...]
    indirect: np.ndarray[Any, Any]
    function_starts: bytes | None
    data_in_code: bytes | None
    exports: bytes
    split_info: bytes
    dependents: list[tuple[int, str]]
    rebases: list[Rebase] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)

    @property
    def pointer_size(self) -> int:
        return 8 if self.is64 else 4

    @property
    def text(self) -> Segment:
        return next(s for s in self.segments if s.name == "__TEXT")

    @property
    def sections(self) -> list[Section]:
        """All sections in n_sect order (the first is number 1)."""
        every = self.segments + ([self.linkedit] if self.linkedit else [])
        return [s for segment in sorted(every, key=lambda s: s.where) for s in segment.sections]

    def segment_of(self, address: int) -> int | None:
        """Index of the segment that holds an original address, or None."""
        for index, segment in enumerate(self.segments):
            if segment.vmaddr <= address < segment.vmaddr + segment.vmsize:
                return index
        return None


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode()


def _segment(header: bytes, where: int, is64: bool) -> Segment:
    layout, one = ("<16sQQQQiiII", 80) if is64 else ("<16sIIIIiiII", 68)
    name, vmaddr, vmsize, fileoff, filesize, maxprot, initprot, nsects, _ = struct.unpack_from(
        layout, header, where + 8
    )
    segment = Segment(_text(name), vmaddr, vmsize, fileoff, filesize, maxprot, initprot, where)
    at = where + 8 + struct.calcsize(layout)
    for _ in range(nsects):
        sect, seg, addr, size, _, align, _, _, flags = struct.unpack_from(
            "<16s16sQQIIIII" if is64 else "<16s16sIIIIIII", header, at
        )
        segment.sections.append(Section(_text(sect), _text(seg), addr, size, align, flags, at))
        at += one
    return segment


def _trimmed(data: bytes, segment: Segment) -> bytes:
    """The segment's bytes up to the end of its last section, as Apple's builder trims them."""
    size = max((s.addr + s.size - segment.vmaddr for s in segment.sections), default=segment.filesize)
    content = data[segment.fileoff : segment.fileoff + min(segment.filesize, size)]
    return content + bytes(size - len(content))


def parse(path: str, file: Path) -> Image:
    """Parse a thin dylib or dylinker that is to lie in the cache under `path`."""
    data = file.read_bytes()
    magic, cputype, cpusubtype, filetype, ncmds, sizeofcmds, _ = struct.unpack_from("<7I", data)
    if magic not in (MH_MAGIC, MH_MAGIC_64):
        raise ValueError(f"{file} is not a thin little-endian Mach-O file")
    if filetype == 8:
        filetype = 6  # bundles of Python wheels differ from dylibs in this and in LC_ID_DYLIB only
    if filetype not in (6, 7):
        raise ValueError(f"{file} is neither a dylib nor a dylinker, but filetype {filetype}")
    is64 = magic == MH_MAGIC_64
    start = 32 if is64 else 28
    header = data[: start + sizeofcmds]
    commands, at = [], start
    for _ in range(ncmds):
        cmd, size = struct.unpack_from("<II", header, at)
        commands.append((cmd, at, size))
        at += size

    def blob(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    segments: list[Segment] = []
    linkedit = None
    image = Image(
        path, data, is64, cputype, cpusubtype, filetype, bytes(16), header, commands, segments, None,
        np.empty(0, NLIST[is64]), [], (0,) * 18, np.empty(0, "<u4"), None, None, b"", b"", [],
    )  # fmt: skip
    opcodes = chained = None
    for cmd, at, size in commands:
        if cmd in (LC_SEGMENT, LC_SEGMENT_64):
            segment = _segment(header, at, is64)
            if segment.name == "__LINKEDIT":
                linkedit = segment
            else:
                segment.content = _trimmed(data, segment)
                segments.append(segment)
        elif cmd == LC_UUID:
            image.uuid = header[at + 8 : at + 24]
        elif cmd == LC_SYMTAB:
            symoff, nsyms, stroff, strsize = struct.unpack_from("<4I", header, at + 8)
            image.symbols = np.frombuffer(data, NLIST[is64], nsyms, symoff).copy()
            strings = blob(stroff, strsize) + b"\0"
            image.names = [strings[x : strings.index(0, x)] for x in image.symbols["strx"].tolist()]
        elif cmd == LC_DYSYMTAB:
            image.dysymtab = struct.unpack_from("<18I", header, at + 8)
            image.indirect = np.frombuffer(data, "<u4", image.dysymtab[13], image.dysymtab[12])
        elif cmd in DEPENDENTS:
            (name,) = struct.unpack_from("<I", header, at + 8)
            image.dependents.append((cmd, _text(header[at + name : at + size])))
        elif cmd in (LC_DYLD_INFO, LC_DYLD_INFO_ONLY):
            pairs = struct.unpack_from("<10I", header, at + 8)
            opcodes = [blob(o, n) for o, n in zip(pairs[0:8:2], pairs[1:8:2], strict=True)]
            image.exports = blob(*pairs[8:10]) or image.exports
        elif cmd in (
            LC_FUNCTION_STARTS, LC_DATA_IN_CODE, LC_DYLD_EXPORTS_TRIE, LC_DYLD_CHAINED_FIXUPS, LC_SEGMENT_SPLIT_INFO,
        ):  # fmt: skip
            payload = blob(*struct.unpack_from("<II", header, at + 8))
            if cmd == LC_FUNCTION_STARTS:
                image.function_starts = payload
            elif cmd == LC_DATA_IN_CODE:
                image.data_in_code = payload
            elif cmd == LC_DYLD_EXPORTS_TRIE:
                image.exports = payload
            elif cmd == LC_SEGMENT_SPLIT_INFO:
                image.split_info = payload
            else:
                chained = payload
    image.linkedit = linkedit
    everything = sorted([*segments, *([linkedit] if linkedit else [])], key=lambda s: s.where)
    vmaddrs = [s.vmaddr for s in everything]
    base = image.text.vmaddr

    def pointer(address: int) -> int:
        segment = next(s for s in everything if s.vmaddr <= address < s.vmaddr + s.vmsize)
        offset = segment.fileoff + address - segment.vmaddr
        return int.from_bytes(data[offset : offset + image.pointer_size], "little")

    if chained:
        image.rebases, image.binds = chained_fixups(chained, data, [(s.vmaddr, s.fileoff) for s in everything], base)
    elif opcodes:
        image.rebases, image.binds = opcode_fixups(opcodes, vmaddrs, image.pointer_size, pointer)
    return image
