"""The header of a cache file and the tables that follow it (`dyld_cache_format.h`)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from tests.cachewriter.layout import Region
from tests.cachewriter.options import CacheOptions

ENTRY_V1, ENTRY_V2 = 0x18, 0x38


@dataclass(frozen=True)
class ImageEntry:
    """One row of the image tables. `install_name_offset` is where __TEXT holds the path, 0 if it does not."""

    path: str
    uuid: bytes
    address: int
    text_size: int
    install_name_offset: int = 0


@dataclass
class HeaderFields:
    """Values of one file's header that the layout decides."""

    uuid: bytes = bytes(16)
    region_start: int = 0
    region_size: int = 0
    max_slide: int = 0
    code_signature: tuple[int, int] = (0, 0)
    slide_info: tuple[int, int] = (0, 0)
    local_symbols: tuple[int, int] = (0, 0)
    dylibs_trie: tuple[int, int] = (0, 0)
    dyld: tuple[int, int] = (0, 0)
    symbols_uuid: bytes = bytes(16)
    dynamic_data: tuple[int, int] = (0, 0)
    subcaches: list[tuple[bytes, int, str]] = field(default_factory=list)
    sub_type: int = 0


def file_tables(
    options: CacheOptions, regions: list[Region], images: list[ImageEntry], aliases: list[tuple[str, int]],
    values: HeaderFields,
) -> bytes:  # fmt: skip
    """Header and tables of one file, from its first byte; the length depends on counts and strings alone."""
    size = options.header_size
    at = size
    mapping_at, at = at, at + 0x20 * len(regions)
    slides_at = 0
    if size >= 0x140:
        slides_at, at = at, at + 0x38 * len(regions)
    old_aliases = aliases if size < 0x140 else []
    images_at, at = at, at + 0x20 * (len(images) + len(old_aliases))
    texts_at = 0
    if size >= 0x98:
        texts_at, at = at, at + 0x20 * len(images)
    subs_at, entry = 0, ENTRY_V2 if size > 0x1C8 else ENTRY_V1
    if size >= 0x1C8:
        subs_at, at = at, at + entry * len(values.subcaches)
    tpro = [r for r in regions if r.kind == "tpro"] if size >= 0x208 else []
    tpro_at, at = at, at + 0x10 * len(tpro)
    strings, offsets = bytearray(), {}
    for path in [p for p, _ in old_aliases] + [i.path for i in images]:
        if path not in offsets:
            offsets[path] = at + len(strings)
            strings += path.encode() + b"\0"
    out = bytearray(at) + strings

    for i, r in enumerate(regions):
        struct.pack_into("<QQQII", out, mapping_at + 0x20 * i, r.address, r.size, r.file_offset, r.maxprot, r.initprot)
        if slides_at:
            slide = (r.slide_info_offset, len(r.slide_info)) if r.slide_info else (0, 0)
            struct.pack_into(
                "<QQQQQQII", out, slides_at + 0x38 * i,
                r.address, r.size, r.file_offset, *slide, r.flags, r.maxprot, r.initprot,
            )  # fmt: skip
    row = images_at
    on_disk = size < 0x1C8 and not options.simulator
    for i, image in enumerate(images):
        path_at = image.install_name_offset if size < 0x98 and image.install_name_offset else offsets[image.path]
        times = (0x5F000000 + i, 0x10000 + i) if on_disk else (0, 0)
        struct.pack_into("<QQQII", out, row, image.address, *times, path_at, 0)
        row += 0x20
    for alias, address in old_aliases:
        struct.pack_into("<QQQII", out, row, address, 0x5F000000, zlib.crc32(alias.encode()), offsets[alias], 0)
        row += 0x20
    for i, image in enumerate(images if texts_at else []):
        struct.pack_into(
            "<16sQII", out, texts_at + 0x20 * i, image.uuid, image.address, image.text_size, offsets[image.path]
        )
    for i, (uuid, offset, suffix) in enumerate(values.subcaches if subs_at else []):
        struct.pack_into("<16sQ", out, subs_at + entry * i, uuid, offset)
        if entry == ENTRY_V2:
            struct.pack_into("<32s", out, subs_at + entry * i + 0x18, suffix.encode())
    for i, r in enumerate(tpro):
        struct.pack_into("<QQ", out, tpro_at + 0x10 * i, r.address, r.size)

    count = len(images) + len(old_aliases)
    modern = size >= 0x1C8
    header = bytearray(0x238)

    def put(offset: int, layout: str, *numbers: int | bytes) -> None:
        struct.pack_into("<" + layout, header, offset, *numbers)

    put(
        0x00, "16sIIIIQ", options.magic_bytes, size, len(regions), 0 if modern else images_at, 0 if modern else count, 0
    )
    put(0x28, "QQQQQQ16s", *values.code_signature, *values.slide_info, *values.local_symbols, values.uuid)
    put(0x68, "Q", options.cache_type)
    if size >= 0x200:
        put(0x78, "QQ", *values.dyld)
    put(0x88, "QQ", texts_at if images else 0, len(images))
    bits = (
        (1 if options.header_size < 0x138 else 9)
        | (on_disk or options.simulator) << 8
        | options.simulator << 9
        | options.simulator << 10
        | (size >= 0x140) << 11
    )
    put(0xD8, "IIQQQ", options.header_platform, bits, values.region_start, values.region_size, values.max_slide)
    put(0x108, "QQ", *values.dylibs_trie)
    put(0x138, "II", slides_at, len(regions))
    major, minor, patch = options.os_version
    put(0x16C, "II", major << 16 | minor << 8 | patch, options.alt_platform)
    put(0x188, "II16s", subs_at, len(values.subcaches), values.symbols_uuid)
    put(0x1C0, "II", images_at if images else 0, count)
    put(0x1C8, "I", values.sub_type)
    put(0x1F0, "QQ", *values.dynamic_data)
    put(0x200, "II", tpro_at if tpro else 0, len(tpro))
    cputype, cpusubtype = options.cpu
    put(0x228, "II", cputype, cpusubtype)
    out[:size] = header[:size]
    return bytes(out)
