"""A second, plain reader of Mach-O files for tests: struct only, nothing of the code under test.

Source: <mach-o/loader.h>, <mach-o/nlist.h>.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

__all__ = ["MachO", "Section", "Segment", "Symbol", "read"]

LC_SYMTAB, LC_DYSYMTAB, LC_UUID, LC_ID_DYLIB = 0x2, 0xB, 0x1B, 0xD
LC_FUNCTION_STARTS, LC_DATA_IN_CODE, LC_EXPORTS_TRIE = 0x26, 0x29, 0x80000033
LC_DYLD_INFO = (0x22, 0x80000022)


@dataclass
class Section:
    name: str
    addr: int
    size: int
    offset: int
    flags: int


@dataclass
class Segment:
    name: str
    vmaddr: int
    vmsize: int
    fileoff: int
    filesize: int
    sections: list[Section] = field(default_factory=list)


@dataclass(frozen=True)
class Symbol:
    name: str
    type: int
    sect: int
    desc: int
    value: int


@dataclass
class MachO:
    data: bytes
    cputype: int
    cpusubtype: int
    filetype: int
    flags: int
    commands: list[tuple[int, bytes]]
    commands_end: int
    wide: bool
    segments: list[Segment]

    def command(self, *kinds: int) -> bytes | None:
        return next((data for cmd, data in self.commands if cmd in kinds), None)

    @property
    def uuid(self) -> UUID | None:
        found = self.command(LC_UUID)
        return UUID(bytes=found[8:24]) if found else None

    def segment(self, name: str) -> Segment:
        return next(s for s in self.segments if s.name == name)

    def bytes_of(self, segment: Segment) -> bytes:
        """The segment as it would be in memory: what the file has, then zeros."""
        return self.data[segment.fileoff : segment.fileoff + segment.filesize].ljust(segment.vmsize, b"\0")

    def at(self, address: int, size: int) -> bytes:
        """Bytes at a VM address."""
        segment = next(s for s in self.segments if s.vmaddr <= address < s.vmaddr + s.vmsize)
        return self.bytes_of(segment)[address - segment.vmaddr :][:size]

    @property
    def symtab(self) -> tuple[int, int, int, int]:
        found = self.command(LC_SYMTAB)
        return struct.unpack_from("<4I", found, 8) if found else (0, 0, 0, 0)

    def string(self, offset: int) -> str:
        _, _, stroff, strsize = self.symtab
        assert offset < strsize, f"name at {offset} of a pool of {strsize}"
        start = stroff + offset
        end = self.data.index(b"\0", start)
        assert end < stroff + strsize
        return self.data[start:end].decode("utf-8", "surrogateescape")

    @property
    def symbols(self) -> list[Symbol]:
        symoff, nsyms, _, _ = self.symtab
        shape = struct.Struct("<IBBHQ" if self.wide else "<IBBHI")
        found = []
        for i in range(nsyms):
            strx, kind, sect, desc, value = shape.unpack_from(self.data, symoff + i * shape.size)
            found.append(Symbol(self.string(strx), kind, sect, desc, value))
        return found

    @property
    def dysymtab(self) -> tuple[int, ...]:
        found = self.command(LC_DYSYMTAB)
        return struct.unpack_from("<18I", found, 8) if found else (0,) * 18

    @property
    def indirect(self) -> list[int]:
        offset, count = self.dysymtab[12:14]
        return list(struct.unpack_from(f"<{count}I", self.data, offset))

    def payload(self, kind: int) -> bytes:
        """What a linkedit_data_command names."""
        found = self.command(kind)
        if not found:
            return b""
        offset, size = struct.unpack_from("<2I", found, 8)
        assert offset + size <= len(self.data)
        return self.data[offset : offset + size]

    @property
    def exports_trie(self) -> bytes:
        if found := self.payload(LC_EXPORTS_TRIE):
            return found
        if found := self.command(*LC_DYLD_INFO):
            offset, size = struct.unpack_from("<2I", found, 40)
            return self.data[offset : offset + size]
        return b""

    def exports(self) -> dict[str, bytes]:
        """Exported names and their terminal payloads."""
        found: dict[str, bytes] = {}
        trie = self.exports_trie

        def uleb(at: int) -> tuple[int, int]:
            value = shift = 0
            while True:
                value |= (trie[at] & 0x7F) << shift
                shift += 7
                at += 1
                if trie[at - 1] < 0x80:
                    return value, at

        def visit(at: int, name: bytes) -> None:
            size, at = uleb(at)
            if size:
                found[name.decode()] = trie[at : at + size]
            at += size
            children = trie[at]
            at += 1
            for _ in range(children):
                end = trie.index(b"\0", at)
                child, after = uleb(end + 1)
                visit(child, name + trie[at:end])
                at = after

        if trie:
            visit(0, b"")
        return found


def read(source: Path | bytes) -> MachO:
    data = source if isinstance(source, bytes) else source.read_bytes()
    magic, cputype, cpusubtype, filetype, ncmds, sizeofcmds, flags = struct.unpack_from("<7I", data)
    wide = magic == 0xFEEDFACF
    assert wide or magic == 0xFEEDFACE, hex(magic)
    position = 32 if wide else 28
    end = position + sizeofcmds
    commands, segments = [], []
    for _ in range(ncmds):
        cmd, size = struct.unpack_from("<2I", data, position)
        raw = data[position : position + size]
        commands.append((cmd, raw))
        position += size
        if cmd == (0x19 if wide else 0x1):
            segments.append(_segment(raw, wide))
    assert position == end, "sizeofcmds is not the sum of the commands"
    return MachO(data, cputype, cpusubtype, filetype, flags, commands, end, wide, segments)


def _segment(raw: bytes, wide: bool) -> Segment:
    shape = struct.Struct("<16s4Q4I" if wide else "<16s8I")
    name, vmaddr, vmsize, fileoff, filesize, _, _, nsects, _ = shape.unpack_from(raw, 8)
    segment = Segment(_text(name), vmaddr, vmsize, fileoff, filesize)
    section = struct.Struct("<16s16s2Q6I" if wide else "<16s16s2I6I")
    stride = 80 if wide else 68
    for i in range(nsects):
        values = section.unpack_from(raw, 8 + shape.size + i * stride)
        segment.sections.append(Section(_text(values[0]), values[2], values[3], values[4], values[8]))
    return segment


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode()
