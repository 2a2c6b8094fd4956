"""A plain, slow reader of shared caches, straight from the format's tables, to hold the writer's output against.

It takes nothing from the writer. It trusts its input; hostile caches are not its business.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.cachewriter.plainslide import decode

# dyld_cache_header: name -> (offset, struct format)
FIELDS = {
    "magic": (0x00, "16s"), "mappingOffset": (0x10, "I"), "mappingCount": (0x14, "I"), "imagesOffsetOld": (0x18, "I"),
    "imagesCountOld": (0x1C, "I"), "dyldBaseAddress": (0x20, "Q"), "codeSignatureOffset": (0x28, "Q"),
    "codeSignatureSize": (0x30, "Q"), "slideInfoOffset": (0x38, "Q"), "slideInfoSize": (0x40, "Q"),
    "localSymbolsOffset": (0x48, "Q"), "localSymbolsSize": (0x50, "Q"), "uuid": (0x58, "16s"), "cacheType": (0x68, "Q"),
    "branchPoolsOffset": (0x70, "I"), "branchPoolsCount": (0x74, "I"), "dyldInCacheMH": (0x78, "Q"),
    "dyldInCacheEntry": (0x80, "Q"), "imagesTextOffset": (0x88, "Q"), "imagesTextCount": (0x90, "Q"),
    "platform": (0xD8, "I"), "bits": (0xDC, "I"), "sharedRegionStart": (0xE0, "Q"), "sharedRegionSize": (0xE8, "Q"),
    "maxSlide": (0xF0, "Q"), "dylibsTrieAddr": (0x108, "Q"), "dylibsTrieSize": (0x110, "Q"),
    "mappingWithSlideOffset": (0x138, "I"), "mappingWithSlideCount": (0x13C, "I"), "osVersion": (0x16C, "I"),
    "altPlatform": (0x170, "I"), "subCacheArrayOffset": (0x188, "I"), "subCacheArrayCount": (0x18C, "I"),
    "symbolFileUUID": (0x190, "16s"), "imagesOffset": (0x1C0, "I"), "imagesCount": (0x1C4, "I"),
    "cacheSubType": (0x1C8, "I"), "dynamicDataOffset": (0x1F0, "Q"), "dynamicDataMaxSize": (0x1F8, "Q"),
    "tproMappingsOffset": (0x200, "I"), "tproMappingsCount": (0x204, "I"), "cputype": (0x228, "I"),
    "cpusubtype": (0x22C, "I"),
}  # fmt: skip


@dataclass(frozen=True)
class Mapping:
    """A mapping of one file, with where its slide info lies in that file."""

    file: str
    address: int
    size: int
    offset: int
    maxprot: int
    initprot: int
    flags: int = 0
    slide_offset: int = 0
    slide_size: int = 0


@dataclass(frozen=True)
class Commands:
    """An image's header: fields, load commands (cmd, bytes), segments (name, vmaddr, vmsize, fileoff, bytes of it)."""

    address: int
    cputype: int
    cpusubtype: int
    filetype: int
    flags: int
    length: int
    commands: list[tuple[int, bytes]]
    segments: list[tuple[str, int, int, int]]
    bits64: bool

    def find(self, *kinds: int) -> bytes | None:
        return next((data for cmd, data in self.commands if cmd in kinds), None)


def text(data: bytes, at: int) -> str:
    return data[at : data.index(0, at)].decode("utf-8", "surrogateescape")


def uleb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def trie(data: bytes) -> dict[str, bytes]:
    """Name to payload of all leaves."""
    found: dict[str, bytes] = {}

    def walk(node: int, prefix: bytes) -> None:
        size, at = uleb(data, node)
        if size:
            found[prefix.decode("utf-8", "surrogateescape")] = data[at : at + size]
        at += size
        count, at = data[at], at + 1
        for _ in range(count):
            end = data.index(0, at)
            edge = data[at:end]  # perhaps a part of a character
            child, at = uleb(data, end + 1)
            walk(child, prefix + edge)

    if data:
        walk(0, b"")
    return found


class PlainCache:
    """A cache's files, found by its own header."""

    def __init__(self, main: Path) -> None:
        self.main = main
        self.files = {"": main.read_bytes()}
        size = self.header("mappingOffset")
        self.subcaches: list[tuple[str, bytes, int]] = []
        base = main.name.removesuffix(".development")
        if size >= 0x1C8:
            stride = 0x38 if size > 0x1C8 else 0x18
            for i in range(self.header("subCacheArrayCount")):
                at = self.header("subCacheArrayOffset") + stride * i
                uuid, offset = struct.unpack_from("<16sQ", self.files[""], at)
                suffix = text(self.files[""], at + 0x18) if stride == 0x38 else f".{i + 1}"
                self.subcaches.append((suffix, uuid, offset))
                self.files[suffix] = main.with_name(base + suffix).read_bytes()
            if any(self.header("symbolFileUUID")):
                self.files[".symbols"] = main.with_name(base + ".symbols").read_bytes()

    def header(self, name: str, file: str = "") -> Any:
        """A header field, 0 (or zeros) where this file's header is too old for it."""
        offset, form = FIELDS[name]
        (size,) = struct.unpack_from("<I", self.files[file], 0x10)
        if offset + struct.calcsize("<" + form) > size:
            return bytes(16) if form == "16s" else 0
        return struct.unpack_from("<" + form, self.files[file], offset)[0]

    @cached_property
    def mappings(self) -> list[Mapping]:
        result = []
        for file, data in self.files.items():
            at, count = self.header("mappingOffset", file), self.header("mappingCount", file)
            for i in range(count if file != ".symbols" else 0):
                address, size, offset, maxprot, initprot = struct.unpack_from("<QQQII", data, at + 0x20 * i)
                flags = slide_at = slide_size = 0
                if wide := self.header("mappingWithSlideOffset", file):
                    row = struct.unpack_from("<QQQQQQII", data, wide + 0x38 * i)
                    assert row[:3] == (address, size, offset) and row[6:] == (maxprot, initprot)
                    slide_at, slide_size, flags = row[3:6]
                elif i == 1:
                    slide_at, slide_size = self.header("slideInfoOffset"), self.header("slideInfoSize")
                result.append(Mapping(file, address, size, offset, maxprot, initprot, flags, slide_at, slide_size))
        return result

    @cached_property
    def memory(self) -> list[tuple[Mapping, bytes]]:
        """All mappings with plain pointers."""
        base = self.mappings[0].address
        result = []
        for m in self.mappings:
            content = bytearray(self.files[m.file][m.offset : m.offset + m.size])
            if m.slide_offset:
                info = self.files[m.file][m.slide_offset : m.slide_offset + m.slide_size]
                for at, value, width in decode(info, content, base, self.bits64):
                    content[at : at + width] = value.to_bytes(width, "little")
            result.append((m, bytes(content)))
        return result

    def read(self, address: int, size: int) -> bytes:
        for m, content in self.memory:
            if m.address <= address < m.address + m.size:
                assert address + size <= m.address + m.size, f"{address:#x}+{size:#x} leaves its mapping"
                return content[address - m.address :][:size]
        raise AssertionError(f"{address:#x} is not mapped")

    @cached_property
    def rows(self) -> list[tuple[str, int]]:
        """(path, address) of every row of the image table, aliases included."""
        modern = self.header("mappingOffset") >= 0x1C8
        at, count = (
            (self.header("imagesOffset"), self.header("imagesCount"))
            if modern
            else (self.header("imagesOffsetOld"), self.header("imagesCountOld"))
        )
        data, result = self.files[""], []
        for i in range(count):
            address, _, _, path, _ = struct.unpack_from("<QQQII", data, at + 0x20 * i)
            result.append((text(data, path), address))
        return result

    @cached_property
    def images(self) -> dict[str, int]:
        """Path to address, one path for each address: the first."""
        seen: dict[int, str] = {}
        for path, address in self.rows:
            seen.setdefault(address, path)
        return {path: address for address, path in seen.items()}

    @cached_property
    def image_texts(self) -> list[tuple[bytes, int, int, str]]:
        at, data = self.header("imagesTextOffset"), self.files[""]
        rows = [struct.unpack_from("<16sQII", data, at + 0x20 * i) for i in range(self.header("imagesTextCount"))]
        return [(uuid, address, size, text(data, path)) for uuid, address, size, path in rows]

    @cached_property
    def paths(self) -> dict[str, int]:
        """The dylibs trie: path to image index."""
        size = self.header("dylibsTrieSize")
        data = self.read(self.header("dylibsTrieAddr"), size) if size else b""
        return {path: uleb(payload, 0)[0] for path, payload in trie(data).items()}

    @cached_property
    def bits64(self) -> bool:
        m = self.mappings[0]
        at, data = self.rows[0][1], b""
        for m in self.mappings:
            if m.address <= at < m.address + m.size:
                data = self.files[m.file][m.offset + at - m.address :][:4]
        return data == b"\xcf\xfa\xed\xfe"

    def commands(self, address: int) -> Commands:
        width = 32 if self.bits64 else 28
        head = struct.unpack("<7I", self.read(address, 28))
        data = self.read(address, width + head[5])
        commands, segments, at = [], [], width
        for _ in range(head[4]):
            cmd, size = struct.unpack_from("<II", data, at)
            commands.append((cmd, data[at : at + size]))
            if cmd in (0x1, 0x19):
                name = text(data[at + 8 : at + 24] + b"\0", 0)
                vmaddr, vmsize, fileoff = struct.unpack_from("<QQQ" if cmd == 0x19 else "<III", data, at + 24)
                segments.append((name, vmaddr, vmsize, fileoff))
            at += size
        assert at == len(data), "sizeofcmds"
        return Commands(address, head[1], head[2], head[3], head[6], len(data), commands, segments, self.bits64)

    def linkedit(self, image: Commands, offset: int, size: int) -> bytes:
        """Bytes at a file offset of the file that holds the image's __LINKEDIT."""
        vmaddr, fileoff = next((v, f) for name, v, _, f in image.segments if name == "__LINKEDIT")
        return self.read(vmaddr + offset - fileoff, size) if size else b""

    def symbols(self, image: Commands) -> tuple[list[str], list[str]]:
        """(lines `value type section desc name`, names of the indirect table), local symbols merged in."""
        symtab, dysymtab = image.find(0x2), image.find(0xB)
        assert symtab and dysymtab
        symoff, count, stroff, strsize = struct.unpack_from("<4I", symtab, 8)
        ranges = struct.unpack_from("<18I", dysymtab, 8)
        form = "<IBBHQ" if self.bits64 else "<IBBHI"
        width = struct.calcsize(form)
        strings = self.linkedit(image, stroff, strsize)
        table = self.linkedit(image, symoff, count * width)
        entries = [struct.unpack_from(form, table, width * i) for i in range(count)]
        lines = [f"{v:x} {t:02x} {s} {d:04x} {text(strings, x)}" for x, t, s, d, v in entries]
        names = [line.split(" ", 4)[4] for line in lines]
        own = self.local_symbols(image.address)
        if own is not None:
            lines = own + lines[ranges[2] :]
        indirect = []
        for (i,) in struct.iter_unpack("<I", self.linkedit(image, ranges[12], 4 * ranges[13])):
            special = "+".join(w for bit, w in ((0x80000000, "LOCAL"), (0x40000000, "ABS")) if i & bit)
            indirect.append(special or names[i])
        return lines, indirect

    def local_symbols(self, address: int) -> list[str] | None:
        file = ".symbols" if ".symbols" in self.files else ""
        start = self.header("localSymbolsOffset", file)
        if not start:
            return None
        data = self.files[file]
        nlists, _, strings, _, rows, count = struct.unpack_from("<6I", data, start)
        row = "<QII" if self.header("mappingOffset", file) >= 0x190 else "<III"
        form = "<IBBHQ" if self.bits64 else "<IBBHI"
        for i in range(count):
            key, first, number = struct.unpack_from(row, data, start + rows + struct.calcsize(row) * i)
            if key == address - self.mappings[0].address:
                lines = []
                for n in range(first, first + number):
                    x, t, s, d, v = struct.unpack_from(form, data, start + nlists + struct.calcsize(form) * n)
                    lines.append(f"{v:x} {t:02x} {s} {d:04x} {text(data, start + strings + x)}")
                return lines
        return []

    def payload(self, image: Commands, *kinds: int) -> bytes:
        """What a linkedit_data_command points at; of LC_DYLD_INFO the exports."""
        command = image.find(*kinds)
        if command is None:
            return b""
        pair = struct.unpack_from("<II", command, 40 if kinds[0] & 0xFF == 0x22 else 8)
        return self.linkedit(image, *pair)

    def broken_pages(self, file: str) -> list[int]:
        """Numbers of the pages whose hash in the code signature is wrong."""
        data = self.files[file]
        start = self.header("codeSignatureOffset", file)
        magic, _, _, kind, offset = struct.unpack_from(">5I", data, start)
        directory = data[start + offset :]
        words = struct.unpack_from(">9I4B", directory)
        assert magic == 0xFADE0CC0 and kind == 0 and words[0] == 0xFADE0C02
        hashes, slots, limit, shift = words[4], words[7], words[8], words[12]
        assert limit == start and slots == -(-limit >> shift)
        return [
            i
            for i in range(slots)
            if hashlib.sha256(data[i << shift : min((i + 1) << shift, limit)]).digest()
            != directory[hashes + 32 * i : hashes + 32 * i + 32]
        ]
