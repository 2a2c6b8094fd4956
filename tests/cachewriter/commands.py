"""The load commands of an image as they stand in a cache."""

from __future__ import annotations

import struct

from tests.cachewriter.layout import Layout, Region
from tests.cachewriter.linkedit import Tables
from tests.cachewriter.machinput import (
    LC_CODE_SIGNATURE,
    LC_DATA_IN_CODE,
    LC_DYLD_CHAINED_FIXUPS,
    LC_DYLD_EXPORTS_TRIE,
    LC_DYLD_INFO,
    LC_DYLD_INFO_ONLY,
    LC_DYSYMTAB,
    LC_FUNCTION_STARTS,
    LC_SEGMENT,
    LC_SEGMENT_64,
    LC_SEGMENT_SPLIT_INFO,
    LC_SYMTAB,
    MH_DYLIB_IN_CACHE,
    Image,
    Segment,
)  # fmt: skip
from tests.cachewriter.options import CacheOptions

LC_RPATH, LC_DYLIB_CODE_SIGN_DRS, LC_ENCRYPTION = 0x8000001C, 0x2B, (0x21, 0x2C)


def _dropped(cmd: int, options: CacheOptions) -> bool:
    return cmd in (
        LC_RPATH, LC_CODE_SIGNATURE, LC_DYLIB_CODE_SIGN_DRS, LC_DYLD_CHAINED_FIXUPS, LC_SEGMENT_SPLIT_INFO,
    ) or (cmd in LC_ENCRYPTION and options.header_size >= 0x208)  # fmt: skip


def _put_segment(out: bytearray, where: int, image: Image, segment: Segment, region: Region, address: int) -> None:
    size = region.size if segment.name == "__LINKEDIT" else segment.size
    fileoff = region.file_offset + address - region.address
    struct.pack_into("<QQQQ" if image.is64 else "<IIII", out, where + 24, address, size, fileoff, size)
    for section in segment.sections:
        at = where + section.where - segment.where
        addr = address + section.addr - segment.vmaddr
        struct.pack_into("<Q" if image.is64 else "<I", out, at + 32, addr)
        offset = 0 if section.zerofill else fileoff + section.addr - segment.vmaddr
        struct.pack_into("<I", out, at + (48 if image.is64 else 40), offset & 0xFFFFFFFF)
        struct.pack_into("<II", out, at + (56 if image.is64 else 48), 0, 0)


def header_in_cache(number: int, image: Image, layout: Layout, tables: Tables, options: CacheOptions) -> bytes:
    """mach_header and load commands with cache addresses and the file offsets of the files that hold the parts."""
    linkedit = layout.linkedit_of(number)
    start = 32 if image.is64 else 28
    segments = {s.where: i for i, s in enumerate(image.segments)}
    commands: list[bytes] = []

    def placed(pair: tuple[int, int]) -> tuple[int, int]:
        return (linkedit.file_offset + pair[0], pair[1]) if pair[1] else (0, 0)

    for cmd, at, size in image.commands:
        if _dropped(cmd, options):
            continue
        out = bytearray(image.header[at : at + size])
        if cmd in (LC_SEGMENT, LC_SEGMENT_64):
            if at in segments:
                segment = segments[at]
                region, _ = layout.where[number, segment]
                _put_segment(out, 0, image, image.segments[segment], region, layout.addresses[number][segment])
            elif image.linkedit:
                _put_segment(out, 0, image, image.linkedit, linkedit, linkedit.address)
        elif cmd == LC_SYMTAB:
            struct.pack_into("<4I", out, 8, *placed(tables.symbols), *placed(tables.strings))
        elif cmd == LC_DYSYMTAB:
            struct.pack_into("<18I", out, 8, *tables.dysymtab, *(0,) * 6, *placed(tables.indirect), *(0,) * 4)
        elif cmd in (LC_DYLD_INFO, LC_DYLD_INFO_ONLY):
            struct.pack_into("<10I", out, 8, *(0,) * 8, *placed(tables.exports))
        elif cmd == LC_DYLD_EXPORTS_TRIE:
            struct.pack_into("<2I", out, 8, *placed(tables.exports))
        elif cmd == LC_FUNCTION_STARTS:
            struct.pack_into("<2I", out, 8, *placed(tables.function_starts))
        elif cmd == LC_DATA_IN_CODE:
            struct.pack_into("<2I", out, 8, *placed(tables.data_in_code))
        commands.append(bytes(out))
    for cmd, offset, size in options.commands:
        commands.append(struct.pack("<4I", cmd, 16, linkedit.file_offset + offset, size))
    body = b"".join(commands)
    assert start + len(body) <= min(s.addr for s in image.text.sections) - image.text.vmaddr, "no room for commands"
    head = bytearray(image.header[:start])
    (flags,) = struct.unpack_from("<I", head, 24)
    struct.pack_into("<III", head, 4, image.cputype, image.cpusubtype, image.filetype)
    struct.pack_into("<III", head, 16, len(commands), len(body), flags | MH_DYLIB_IN_CACHE)
    return (bytes(head) + body).ljust(len(image.header), b"\0")
