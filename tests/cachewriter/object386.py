"""i386 object files, laid out and relocated as a dylib's sections (<mach-o/reloc.h>).

Thread-local variables and absolute addresses in code are refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from tests.cachewriter import machinput
from tests.cachewriter.machinput import Section

VANILLA, PAIR, SECTDIFF, LOCAL_SECTDIFF = 0, 1, 2, 4
STUB = bytes.fromhex("e800000000588b8000000000ffe0")  # call . ; pop eax ; mov eax, [eax + d] ; jmp eax
PAGE = 0x1000
HEADER_ROOM = 0x600


@dataclass
class Output:
    """One section of the dylib being made."""

    name: str
    segment: str
    flags: int
    align: int
    content: bytearray
    size: int
    address: int = 0
    reserved: tuple[int, int] = (0, 0)


@dataclass
class ObjectFile:
    """The object file: its sections with their bytes, symbols and indirect table."""

    data: bytes
    sections: list[Section]
    relocations: list[tuple[int, int]]
    contents: list[bytes]
    indirect_first: list[int]
    symbols: list[tuple[str, int, int, int, int]]  # name, type, sect, desc, value
    indirect: tuple[int, ...]
    data_in_code: bytes


@dataclass
class Link:
    """The state of one run of the linker."""

    obj: ObjectFile
    outputs: list[Output] = field(default_factory=list)
    place: dict[int, tuple[Output, int]] = field(default_factory=dict)  # object section -> output, offset
    imports: list[str] = field(default_factory=list)
    stubs: dict[str, int] = field(default_factory=dict)
    pointers: dict[str, int] = field(default_factory=dict)
    rebases: list[int] = field(default_factory=list)
    binds: list[tuple[int, str, int]] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)

    def section_at(self, address: int) -> int:
        """Index of the object's section at an address of the object."""
        inside = [i for i, s in enumerate(self.obj.sections) if s.addr <= address < s.addr + s.size]
        ends = [i for i, s in enumerate(self.obj.sections) if s.addr + s.size == address]
        found = [i for i in inside + ends if i in self.place]
        if not found:
            raise ValueError(f"{address:#x} lies in no section of the object")
        return found[0]

    def moved(self, address: int) -> int:
        index = self.section_at(address)
        output, offset = self.place[index]
        return output.address + offset + address - self.obj.sections[index].addr

    def segment(self, address: int) -> str:
        return self.place[self.section_at(address)][0].segment

    def symbol(self, name: str) -> int | None:
        """Address in the dylib of a symbol that the object defines."""
        for other, kind, sect, _, value in self.obj.symbols:
            if other == name and kind & 0x0E == 0x0E and not kind & 0xE0:
                output, offset = self.place[sect - 1]
                return output.address + offset + value - self.obj.sections[sect - 1].addr
        return None


def read_object(path: Path) -> ObjectFile:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 16)
    sections, symbols, indirect, dice, at = [], [], (), b"", 28
    for _ in range(count):
        cmd, size = struct.unpack_from("<II", data, at)
        if cmd == 0x1:
            sections = machinput._segment(data, at, False).sections
        elif cmd == 0x2:
            symoff, nsyms, stroff, _ = struct.unpack_from("<4I", data, at + 8)
            for i in range(nsyms):
                strx, kind, sect, desc, value = struct.unpack_from("<IBBHI", data, symoff + 12 * i)
                name = data[stroff + strx : data.index(0, stroff + strx)].decode()
                symbols.append((name, kind, sect, desc, value))
        elif cmd == 0xB:
            offset, number = struct.unpack_from("<II", data, at + 56)
            indirect = struct.unpack_from(f"<{number}I", data, offset)
        elif cmd == 0x29:
            offset, number = struct.unpack_from("<II", data, at + 8)
            dice = data[offset : offset + number]
        at += size
    contents, relocations, firsts = [], [], []
    for s in sections:
        offset, _, reloff, nreloc, _, first = struct.unpack_from("<6I", data, s.where + 40)
        contents.append(bytes(s.size) if s.zerofill else data[offset : offset + s.size])
        relocations.append((reloff, nreloc))
        firsts.append(first)
    return ObjectFile(data, sections, relocations, contents, firsts, symbols, indirect, dice)


def lay_out(link: Link) -> None:
    obj = link.obj
    text: list[Output] = []
    data: list[Output] = []
    zero: list[Output] = []
    for i, s in enumerate(obj.sections):
        if s.segment == "__LD" or (s.segment, s.name) == ("__TEXT", "__eh_frame") or not s.size:
            continue
        # __IMPORT,__pointers of the object are non-lazy pointers of the dylib's __DATA.
        segment = "__TEXT" if s.segment == "__TEXT" else "__DATA"
        name = "__nl_symbol_ptr" if s.segment == "__IMPORT" else s.name
        output = Output(name, segment, s.flags, s.align, bytearray(obj.contents[i]), s.size)
        link.place[i] = (output, 0)
        (text if segment == "__TEXT" else zero if s.zerofill else data).append(output)
    called = _called(link)
    if called:
        stubs = Output("__symbol_stub", "__TEXT", 0x80000408, 1, bytearray(STUB * len(called)), len(STUB) * len(called))
        lazy = Output("__la_symbol_ptr", "__DATA", 0x7, 2, bytearray(4 * len(called)), 4 * len(called))
        text.append(stubs)
        data.append(lazy)
    at = HEADER_ROOM
    for group in (text, data + zero):
        for output in group:
            at = (at + (1 << output.align) - 1) & -(1 << output.align)
            output.address = at
            at += output.size
        at = (at + PAGE - 1) & -PAGE
    link.outputs = text + data + zero
    for i, name in enumerate(called):
        link.stubs[name], link.pointers[name] = stubs.address + len(STUB) * i, lazy.address + 4 * i
        struct.pack_into("<i", stubs.content, len(STUB) * i + 8, lazy.address + 4 * i - (link.stubs[name] + 5))
        link.splits.append(link.stubs[name] + 8)
        link.binds.append((lazy.address + 4 * i, name, 0))


def _relocations(link: Link, index: int) -> list[tuple[int, ...]]:
    """(address, type, pcrel, extern, symbol or section or value, value of the PAIR) of a section of the object."""
    offset, count = link.obj.relocations[index]
    words = struct.unpack_from(f"<{2 * count}I", link.obj.data, offset)
    result: list[tuple[int, ...]] = []
    i = 0
    while i < count:
        first, second = words[2 * i], words[2 * i + 1]
        if first >> 31:
            kind, pair = first >> 24 & 0xF, 0
            if kind in (SECTDIFF, LOCAL_SECTDIFF):
                i += 1
                pair = words[2 * i + 1]
            result.append((first & 0xFFFFFF, kind, first >> 30 & 1, -1, second, pair))
        else:
            result.append((first, second >> 28, second >> 24 & 1, second >> 27 & 1, second & 0xFFFFFF, 0))
        i += 1
    return result


def _called(link: Link) -> list[str]:
    """Undefined functions that code calls."""
    names = {}
    for index, (output, _) in link.place.items():
        for _, kind, pcrel, extern, number, _ in _relocations(link, index):
            if extern == 1 and kind == VANILLA and pcrel and output.segment == "__TEXT":
                name, symbol_type, *_ = link.obj.symbols[number]
                if symbol_type & 0x0E == 0:
                    names[name] = True
    return list(names)


def relocate(link: Link, index: int) -> None:
    obj, (output, _) = link.obj, link.place[index]
    start = obj.sections[index].addr
    for at, kind, pcrel, extern, number, pair in _relocations(link, index):
        (value,) = struct.unpack_from("<i", output.content, at)
        here = output.address + at
        if kind in (SECTDIFF, LOCAL_SECTDIFF):
            value += (link.moved(number) - number) - (link.moved(pair) - pair)
            if link.segment(number) != link.segment(pair):
                link.splits.append(here)
        elif kind != VANILLA:
            raise ValueError(f"relocation of type {kind}")
        elif pcrel:
            target = value + start + at + 4
            if extern == 1:
                name = obj.symbols[number][0]
                own = link.symbol(name)
                target += own if own is not None else link.stubs[name]
            else:
                target = link.moved(target)
            value = target - (here + 4)
        elif output.segment == "__TEXT":
            raise ValueError("an absolute address in the code of a dylib")
        elif extern == 1:
            name = obj.symbols[number][0]
            own = link.symbol(name)
            if own is None:
                link.binds.append((here, name, value))
            else:
                link.rebases.append(here)
                value += own
        else:
            target = number if extern < 0 else value
            value += link.moved(target) - target
            link.rebases.append(here)
        struct.pack_into("<I", output.content, at, value & 0xFFFFFFFF)


def non_lazy_pointers(link: Link) -> None:
    obj = link.obj
    for index, (output, _) in link.place.items():
        if output.flags & 0xFF != 6:
            continue
        for slot in range(output.size // 4):
            entry, here = obj.indirect[obj.indirect_first[index] + slot], output.address + 4 * slot
            (value,) = struct.unpack_from("<I", output.content, 4 * slot)
            own = link.moved(value) if entry & 0x80000000 else link.symbol(obj.symbols[entry][0])
            if own is None:
                link.binds.append((here, obj.symbols[entry][0], 0))
            else:
                link.rebases.append(here)
                struct.pack_into("<I", output.content, 4 * slot, own)
