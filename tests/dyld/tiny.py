"""Caches of a few pages, written byte by byte, for what no builder would write or no longer writes.

Independent of the code under test. Every image has one page of __TEXT, one of __DATA and its part of one __LINKEDIT;
what a test is about is given, the rest is filled in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

__all__ = ["PAGE", "Cache", "Image", "Symbol", "linkedit_command"]

PAGE = 0x4000


@dataclass
class Symbol:
    name: str
    type: int = 0x0F
    value: int = 0
    sect: int = 1
    desc: int = 0


@dataclass
class Image:
    path: str
    uuid: UUID | None = None
    locals: list[Symbol] = field(default_factory=list)
    defined: list[Symbol] = field(default_factory=list)
    undefined: list[Symbol] = field(default_factory=list)
    unmapped: list[Symbol] | None = None
    """Locals that are kept in the cache's table of its own."""
    indirect: list[int] = field(default_factory=list)
    function_starts: bytes = b""
    trie: bytes = b""
    data: bytes = b""
    data_vmsize: int | None = None
    data_vmaddr: int | None = None
    data_sections: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 16, 0)])
    """Of __DATA: offset, size and flags of each."""
    commands: list[bytes] = field(default_factory=list)
    """More load commands, or in place of the usual ones: see `without`."""
    without: set[str] = field(default_factory=set)
    """Of "symtab", "dysymtab", "linkedit", "data", "id"."""
    filetype: int = 6
    cpusubtype: int | None = None
    text: bytes = b""
    """Of __TEXT from 0x1000 on."""
    strings: bytes | None = None
    """In place of a pool of its names; `strx` count from here."""


def linkedit_command(cmd: int, offset: int = 0x1234, size: int = 0x10) -> bytes:
    return struct.pack("<4I", cmd, 16, offset, size)


@dataclass
class Cache:
    images: list[Image]
    arch: str = "x86_64"
    header_size: int = 0x200
    base: int = 0x7FF8_0000_0000
    uuid: UUID | None = field(default_factory=lambda: UUID(int=0xC0FFEE))
    aliases: list[tuple[str, int]] = field(default_factory=list)
    """Records of the image table that repeat the address of an image."""
    aliases_first: bool = False
    paths_in_images: bool = False
    """As until 10.12: an image's record points at the string in its own LC_ID_DYLIB."""
    slide: bytes = b""
    trie: bytes = b""
    room: int = 0x40000
    """Size of __LINKEDIT."""
    linkedit_gap: int = 0x2000_0000
    """From the base to __LINKEDIT."""
    patches: dict[int, bytes] = field(default_factory=dict)
    """Last of all: bytes of the main file to overwrite."""
    extra_mappings: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(address, size, file offset, protection)"""

    @property
    def wide(self) -> bool:
        return self.arch not in {"i386", "arm64_32"}

    @property
    def cpu(self) -> tuple[int, int]:
        return {
            "i386": (7, 3), "x86_64": (0x01000007, 3), "x86_64h": (0x01000007, 8), "arm64": (0x0100000C, 0),
            "arm64e": (0x0100000C, 0x80000002), "arm64_32": (0x0200000C, 1), "arm64ex1": (0x0100000C, 0x8000000C),
        }[self.arch]  # fmt: skip

    def text_address(self, number: int) -> int:
        return self.base + (1 + number) * PAGE

    def data_address(self, number: int) -> int:
        return self.base + 0x1000_0000 + number * PAGE

    @property
    def linkedit_address(self) -> int:
        return self.base + self.linkedit_gap

    def write(self, folder: Path, name: str | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (name or f"dyld_shared_cache_{self.arch}")
        path.write_bytes(self.build())
        return path

    def build(self) -> bytes:
        count = len(self.images)
        data_at = (1 + count) * PAGE
        link_at = data_at + count * PAGE
        link = bytearray(8)
        slide_at = link_at + len(link) if self.slide else 0
        link += self.slide + bytes(-len(self.slide) % 8)
        trie_address = self.linkedit_address + len(link)
        link += self.trie + bytes(-len(self.trie) % 8)
        bodies = [self._image(number, link, link_at) for number in range(count)]
        locals_at = link_at + self.room if any(i.unmapped is not None for i in self.images) else 0
        local_symbols = self._unmapped_locals() if locals_at else b""
        assert len(link) <= self.room
        mappings = [
            (self.base, data_at, 0, 0, 0, 5),
            (self.base + 0x1000_0000, count * PAGE, data_at, slide_at, len(self.slide), 3),
            (self.linkedit_address, self.room, link_at, 0, 0, 1),
            *((a, s, o, 0, 0, p) for a, s, o, p in self.extra_mappings),
        ]
        out = bytearray(self._head(mappings, bodies, trie_address, locals_at, len(local_symbols)))
        assert len(out) <= PAGE
        out = out.ljust(PAGE, b"\0")
        for body in bodies:
            out += body.ljust(PAGE, b"\0")
        for image in self.images:
            out += image.data.ljust(PAGE, b"\0")[:PAGE]
        out += link.ljust(self.room, b"\0") + local_symbols
        for place, data in self.patches.items():
            out[place : place + len(data)] = data
        return bytes(out)

    def _nlists(self, symbols: list[Symbol], pool: bytearray) -> bytes:
        out = b""
        for symbol in symbols:
            out += struct.pack(
                "<IBBHQ" if self.wide else "<IBBHI",
                len(pool) if symbol.name else 0, symbol.type, symbol.sect, symbol.desc, symbol.value,
            )  # fmt: skip
            if symbol.name:
                pool += symbol.name.encode() + b"\0"
        return out

    def _image(self, number: int, link: bytearray, link_at: int) -> bytes:
        image = self.images[number]

        def append(data: bytes) -> int:
            at = link_at + len(link)
            link.extend(data + bytes(-len(data) % 8))
            return at if data else 0

        pool = bytearray(b"\0")
        symbols = image.locals + image.defined + image.undefined
        nlists = self._nlists(symbols, pool)
        starts_at, trie_at = append(image.function_starts), append(image.trie)
        symbols_at = append(nlists)
        indirect_at = append(struct.pack(f"<{len(image.indirect)}I", *image.indirect))
        pool = bytearray(image.strings) if image.strings is not None else pool
        pool_at = append(bytes(pool))
        address = self.text_address(number)
        data_address = image.data_vmaddr or self.data_address(number)
        data_size = PAGE if image.data_vmsize is None else image.data_vmsize
        commands = [self._segment(b"__TEXT", address, PAGE, (1 + number) * PAGE, [(0x1000, 0x1000, 0)])]
        if "data" not in image.without:
            commands.append(self._segment(b"__DATA", data_address, data_size, 0x7777, image.data_sections))
        if "linkedit" not in image.without:
            commands.append(self._segment(b"__LINKEDIT", self.linkedit_address, self.room, link_at))
        if "id" not in image.without:
            text = image.path.encode() + b"\0"
            text += bytes(-len(text) % 8)
            commands.append(struct.pack("<6I", 0xD, 24 + len(text), 24, 0, 0, 0) + text)
        if image.uuid:
            commands.append(struct.pack("<2I16s", 0x1B, 24, image.uuid.bytes))
        if "symtab" not in image.without:
            commands.append(struct.pack("<6I", 2, 24, symbols_at, len(symbols), pool_at, len(pool)))
        if "dysymtab" not in image.without:
            n, d, u = len(image.locals), len(image.defined), len(image.undefined)
            ranges = (0, n, n, d, n + d, u)
            tables = (0,) * 6 + (indirect_at, len(image.indirect)) + (0,) * 4
            commands.append(struct.pack("<20I", 0xB, 80, *ranges, *tables))
        if image.function_starts:
            commands.append(linkedit_command(0x26, starts_at, len(image.function_starts)))
        if image.trie:
            commands.append(linkedit_command(0x80000033, trie_at, len(image.trie)))
        commands += image.commands
        raw = b"".join(commands)
        cputype, cpusubtype = self.cpu
        head = (0xFEEDFACF if self.wide else 0xFEEDFACE, cputype, image.cpusubtype or cpusubtype)
        head += (image.filetype, len(commands), len(raw), 0x8000_0085) + ((0,) if self.wide else ())
        body = struct.pack(f"<{len(head)}I", *head) + raw
        assert len(body) <= 0x1000
        return (body.ljust(0x1000, b"\xcc") + image.text).ljust(PAGE, b"\x90")

    def _segment(
        self, name: bytes, vmaddr: int, vmsize: int, fileoff: int, sections: Sequence[tuple[int, int, int]] = ()
    ) -> bytes:
        raw = b""
        for number, (offset, size, flags) in enumerate(sections):
            shape = "<16s16s2Q8I" if self.wide else "<16s16s2I7I"
            own = name.lower() + (b"%d" % number if number else b"")
            values = ((fileoff + offset) & 0xFFFFFFFF, 0, 0, 0, flags, 0, 0) + ((0,) if self.wide else ())
            raw += struct.pack(shape, own, name, vmaddr + offset, size, *values)
        shape = "<2I16s4Q4I" if self.wide else "<2I16s8I"
        command = 0x19 if self.wide else 1
        size_of = struct.calcsize(shape) + len(raw)
        head = struct.pack(shape, command, size_of, name, vmaddr, vmsize, fileoff, vmsize, 3, 3, len(sections), 0)
        return head + raw

    def _unmapped_locals(self) -> bytes:
        wide_entries = self.header_size >= 0x190
        pool, nlists, entries, count = bytearray(b"\0"), b"", b"", 0
        for number, image in enumerate(self.images):
            symbols = image.unmapped or []
            nlists += self._nlists(symbols, pool)
            offset = (1 + number) * PAGE  # file offset and VM offset are the same in the main file's first mapping
            entries += struct.pack("<Q2I" if wide_entries else "<3I", offset, count, len(symbols))
            count += len(symbols)
        at_entries = 24
        at_nlists = at_entries + len(entries)
        at_strings = at_nlists + len(nlists)
        head = struct.pack("<6I", at_nlists, count, at_strings, len(pool), at_entries, len(self.images))
        return head + entries + nlists + bytes(pool)

    def _head(
        self, mappings: list[tuple[int, ...]], bodies: list[bytes], trie_address: int, locals_at: int, locals_size: int
    ) -> bytes:
        size = self.header_size
        head = bytearray(0x400)
        head[:16] = b"dyld_v1" + self.arch.encode().rjust(8) + b"\0"
        struct.pack_into("<2I", head, 0x10, size, len(mappings))
        tables = size + len(mappings) * 0x20
        with_slide = tables if size >= 0x140 else 0
        tables += len(mappings) * 0x38 if with_slide else 0
        records = [(self.text_address(n), image.path) for n, image in enumerate(self.images)]
        aliases = [(self.text_address(n), path) for path, n in self.aliases]
        records = aliases + records if self.aliases_first else records + aliases
        images_at, texts_at = tables, tables + len(records) * 0x20
        strings_at = texts_at + (len(self.images) * 0x20 if size >= 0x98 else 0)
        table, strings = b"", b""
        place_of: dict[tuple[int, str], int] = {}
        for address, path in records:
            at = strings_at + len(strings)
            number = (address - self.text_address(0)) // PAGE
            if self.paths_in_images and self.images[number].path == path:
                at = (1 + number) * PAGE + bodies[number].index(path.encode())
            else:
                strings += path.encode() + b"\0"
            place_of[address, path] = at
            table += struct.pack("<3Q2I", address, 0, 0, at, 0)
        if size >= 0x98:
            for number, image in enumerate(self.images):
                uuid = image.uuid.bytes if image.uuid else bytes(16)
                at = place_of[self.text_address(number), image.path]
                table += struct.pack("<16sQ2I", uuid, self.text_address(number), PAGE, at)
        values: list[tuple[int, str, tuple[int, ...]]] = [
            (0x38, "<2Q", (mappings[1][3], mappings[1][4]) if size < 0x140 else (0, 0)),
            (0x48, "<2Q", (locals_at, locals_size)),
            (0x88, "<2Q", (texts_at, len(self.images))),
            (0xD8, "<I", (1,)),
            (0x108, "<2Q", (trie_address, len(self.trie)) if self.trie else (0, 0)),
            (0x138, "<2I", (with_slide, len(mappings))),
            (0x16C, "<I", (0x000D_0601,)),
            (0x1C0, "<2I", (images_at, len(records))),
        ]
        if size < 0x1C8:
            struct.pack_into("<2I", head, 0x18, images_at, len(records))
        for offset, shape, numbers in values:
            if offset + struct.calcsize(shape) <= size:
                struct.pack_into(shape, head, offset, *numbers)
        if self.uuid and size >= 0x68:
            head[0x58:0x68] = self.uuid.bytes
        out = bytes(head[:size])
        for address, length, offset, _, _, protection in mappings:
            out += struct.pack("<3Q2I", address, length, offset, protection, protection)
        if with_slide:
            for address, length, offset, slide_at, slide_size, protection in mappings:
                out += struct.pack("<6Q2I", address, length, offset, slide_at, slide_size, 0, protection, protection)
        return out + table + strings
