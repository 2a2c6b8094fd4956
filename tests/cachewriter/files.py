"""The files of a cache, byte by byte, once every region has its place and content."""

from __future__ import annotations

import struct

from tests.cachewriter.layout import Region
from tests.cachewriter.linkedit import Locals
from tests.cachewriter.signature import code_signature
from tests.cachewriter.tables import HeaderFields, ImageEntry, file_tables
from tests.cachewriter.work import Work

TEXT_STUBS = 0x8  # a flag of mapping_and_slide_info


def _entries(work: Work, file: int) -> list[ImageEntry]:
    """The image table of one file: the main file's, repeated in every subcache of x86_64."""
    if file and work.options.arch not in ("x86_64", "x86_64h"):
        return []
    entries = []
    for number in work.layout.order:
        image = work.images[number]
        text = image.segments.index(image.text)
        address = work.layout.addresses[number][text]
        region = work.layout.where[number, text][0] if work.layout.where else None
        offset = 0
        if region:
            at = address - region.address
            name_at = bytes(region.content[at : at + len(image.header)]).find(image.path.encode() + b"\0")
            offset = region.file_offset + at + name_at if name_at >= 0 else 0
        entries.append(ImageEntry(image.path, image.uuid, address, image.text.size, offset))
    return entries


def header_areas(work: Work) -> list[int]:
    sizes = []
    for file in range(len(work.options.suffixes) + 1):
        values = HeaderFields()
        if not file:
            suffixes = [*work.options.suffixes, *([work.stub] if work.stub else [])]
            values.subcaches = [(bytes(16), 0, s) for s in suffixes]
        aliases = [(a, 0) for a in work.options.aliases] if not file else []
        sizes.append(len(file_tables(work.options, work.layout.of_file(file), _entries(work, file), aliases, values)))
    return sizes


def _local_symbols(work: Work, unmapped: Locals, holder_size: int) -> bytes:
    """The local-symbols info: header, nlist entries, entries by image, strings."""
    nlists, rows, first = bytearray(), bytearray(), 0
    wide = holder_size >= 0x190
    by_image = dict(unmapped.entries)
    for number in work.layout.order:
        if number not in by_image:
            continue
        image, entries = work.images[number], by_image[number]
        key = work.layout.addresses[number][image.segments.index(image.text)] - work.base
        rows += struct.pack("<QII" if wide else "<III", key, first, len(entries))
        nlists += entries.tobytes()
        first += len(entries)
    count = len(rows) // (16 if wide else 12)
    # Newer builders put the entries first.
    parts = [bytes(rows), bytes(nlists)] if wide else [bytes(nlists), bytes(rows)]
    second = (0x18 + len(parts[0]) + 7) & ~7
    strings_at = second + len(parts[1])
    rows_at, nlists_at = (0x18, second) if wide else (second, 0x18)
    strings = bytes(unmapped.pool.data)
    head = struct.pack("<6I", nlists_at, first, strings_at, len(strings), rows_at, count)
    return (head + parts[0]).ljust(second, b"\0") + parts[1] + strings


def header_values(work: Work, file: int, trie_at: tuple[int, int]) -> HeaderFields:
    options, regions = work.options, work.layout.of_file(file)
    values = HeaderFields(uuid=work.uuids[("", *options.suffixes)[file]], region_start=regions[0].address)
    values.sub_type = options.sub_type if options.cache_type == 2 else 0
    if options.header_size < 0x140:
        slid = next((r for r in regions if r.slide_info), None)
        if slid:
            values.slide_info = (slid.slide_info_offset, len(slid.slide_info))
    if file:
        return values
    values.region_size = work.end + options.page - work.base
    values.dynamic_data = (work.end - work.base, options.page)
    values.max_slide = 0x20000000 if options.is64 else 0x1000000
    values.dylibs_trie = trie_at
    for number, image in enumerate(work.images):
        if image.filetype == 7:
            values.dyld = (work.layout.addresses[number][image.segments.index(image.text)], 0)
    first = {i: work.layout.of_file(i)[0].address for i in range(len(options.suffixes) + 1)}
    values.subcaches = [
        (work.uuids[suffix], first[i] - work.base, suffix) for i, suffix in enumerate(options.suffixes, 1)
    ]
    if work.stub:
        values.subcaches.append((work.uuids[work.stub], work.stub_address - work.base, work.stub))
    if options.unmapped_locals == ".symbols":
        values.symbols_uuid = work.uuids[".symbols"]
    return values


def file_bytes(work: Work, file: int, values: HeaderFields, unmapped: Locals) -> bytes:
    """The bytes of one cache file."""
    options, regions = work.options, work.layout.of_file(file)
    out = bytearray(max(r.file_offset + work.align(r.size) for r in regions))
    if options.unmapped_locals == "same-file" and not file:
        info = _local_symbols(work, unmapped, options.header_size)
        values.local_symbols = (len(out), len(info))
        out += info.ljust(work.align(len(info)), b"\0")
    aliases = []
    if not file and options.header_size < 0x140:
        where = {i.path: i.address for i in _entries(work, 0)}
        aliases = [(a, where[p]) for a, p in options.aliases.items()]
    signed = options.header_size >= 0x48
    if signed:
        values.code_signature = (len(out), code_signature(len(out)))
    head = file_tables(options, regions, _entries(work, file), aliases, values)
    for region in regions:
        data = region.encoded if region.writable else region.content
        out[region.file_offset : region.file_offset + len(data)] = data
    out[: len(head)] = head
    if regions[0].kind == "text":
        regions[0].content[: len(head)] = head
    if signed:
        out += code_signature(bytes(out), options.page)
    return bytes(out)


def symbols_file(work: Work, unmapped: Locals) -> bytes:
    """The `.symbols` file: a header with one mapping behind all others, and the local symbols."""
    options = work.options
    end = work.end + options.page
    region = Region("text", 0, 5, 5, address=end, size=0x4000)
    info = _local_symbols(work, unmapped, options.header_size)
    out = bytearray(0x4000) + info.ljust(work.align(len(info)), b"\0")
    values = HeaderFields(uuid=work.uuids[".symbols"], region_start=end, local_symbols=(0x4000, len(info)))
    values.code_signature = (len(out), code_signature(len(out)))
    head = file_tables(options, [region], [], [], values)
    out[: len(head)] = head
    return bytes(out) + code_signature(bytes(out), options.page)


def stub_file(work: Work, suffix: str) -> tuple[bytes, Region]:
    """A subcache of branch islands: one mapping of code that belongs to no image."""
    options = work.options
    region = Region("text", 0, 5, 5, flags=TEXT_STUBS, address=work.stub_address, size=options.page)
    values = HeaderFields(uuid=work.uuids[suffix], region_start=region.address)
    values.code_signature = (region.size, code_signature(region.size))
    head = file_tables(options, [region], [], [], values)
    region.content = bytearray(head.ljust(0x1000, b"\0"))
    while len(region.content) < options.page:  # adrp x16, .; add x16, x16, #0; br x16; brk #1
        region.content += bytes.fromhex("100000901002009100021fd6200020d4")
    return bytes(region.content) + code_signature(bytes(region.content), options.page), region
