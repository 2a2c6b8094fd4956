"""Lays Mach-O dylibs out as a dyld shared cache."""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass, replace

from tests.cachewriter.adrp_flow import Pair, adrp_pairs
from tests.cachewriter.binding import Decorator, Linker, pointers_of
from tests.cachewriter.built import BuiltCache
from tests.cachewriter.commands import header_in_cache
from tests.cachewriter.layout import Layout, Region, place, plan
from tests.cachewriter.linkedit import Linkedit, Locals, Tables
from tests.cachewriter.machinput import Image, parse
from tests.cachewriter.mover import Mover
from tests.cachewriter.options import CacheOptions, DylibInput
from tests.cachewriter.recode import recode_text
from tests.cachewriter.recode_arm64 import pages_hold
from tests.cachewriter.signature import code_signature
from tests.cachewriter.slide import SlideOptions, encode
from tests.cachewriter.tables import HeaderFields, ImageEntry, file_tables
from tests.cachewriter.trie import trie_bytes, uleb_bytes

__all__ = ["build_cache"]

# How much arm64 code of one image is looked through for adrps: more takes long, and its data keeps to whole pages.
PACKED_CODE = 0x40000


@dataclass
class _Work:
    """What the steps of one build hand on to each other."""

    options: CacheOptions
    images: list[Image]
    layout: Layout
    movers: list[Mover]
    missing: list[tuple[str, str]]
    uuids: dict[str, bytes]

    @property
    def base(self) -> int:
        return self.layout.regions[0].address

    def align(self, size: int) -> int:
        return (size + self.options.page - 1) // self.options.page * self.options.page


def _slide_options(options: CacheOptions, base: int) -> SlideOptions:
    version, width = options.slide, 8 if options.is64 else 4
    mask = 0
    if version == 2:
        mask = 0x00FFFF0000000000 if options.header_size >= 0x140 or not options.intel else 0xFFFF000000000000
        mask = mask if width == 8 else 0xE0000000
    elif version == 4:
        mask = 0xC0000000
    # arm64 stores whole addresses in version 2; all others store what lies above the base.
    add = 0 if version == 1 or (version == 2 and width == 8 and not options.intel) else base
    page = 0x4000 if version in (3, 5) else 0x1000
    return SlideOptions(version, base, width, options.slide_page_size or page, options.delta_mask or mask, add)


def _uuids(options: CacheOptions, images: list[Image]) -> dict[str, bytes]:
    """A UUID for each file, of what it is made from and how."""
    seed = hashlib.sha256(repr(options).encode())
    for image in images:
        seed.update(image.path.encode() + b"\0" + hashlib.sha256(image.data).digest())

    def uuid(suffix: str) -> bytes:
        raw = bytearray(hashlib.sha256(seed.digest() + suffix.encode()).digest()[:16])
        raw[6], raw[8] = raw[6] & 0x0F | 0x30, raw[8] & 0x3F | 0x80
        return bytes(raw)

    return {suffix: uuid(suffix) for suffix in ("", *options.suffixes, ".symbols", ".development")}


def _entries(work: _Work, file: int) -> list[ImageEntry]:
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


def _header_area(work: _Work) -> list[int]:
    sizes = []
    for file in range(len(work.options.suffixes) + 1):
        values = HeaderFields()
        if not file:
            values.subcaches = [(bytes(16), 0, s) for s in work.options.suffixes]
        aliases = [(a, 0) for a in work.options.aliases] if not file else []
        sizes.append(len(file_tables(work.options, work.layout.of_file(file), _entries(work, file), aliases, values)))
    return sizes


def _place(work: _Work) -> None:
    """Place all segments, as close together as the code of their images bears."""
    options, images = work.options, work.images
    pairs: list[list[Pair] | None] = [None] * len(images)
    packed = set() if options.page_aligned else set(range(len(images)))
    if not options.intel:
        for number in sorted(packed):
            pairs[number] = adrp_pairs(images[number]) if images[number].text.size <= PACKED_CODE else None
        packed = {n for n in packed if pairs[n] is not None}
    area = _header_area(work)
    while True:
        place(images, options, work.layout, area, packed)
        work.movers = [Mover(*three) for three in zip(images, work.layout.addresses, pairs, strict=True)]
        torn = {n for n in packed if not pages_hold(pairs[n] or [], work.movers[n])}
        if not torn:
            return
        packed -= torn


def _fill(work: _Work) -> None:
    """Put every segment's bytes and plain pointers into the regions."""
    linker = Linker(work.images, work.movers, work.options.aliases)
    decorate = Decorator(work.options)
    for number, (image, mover) in enumerate(zip(work.images, work.movers, strict=True)):
        for index, segment in enumerate(image.segments):
            region, at = work.layout.where[number, index]
            content = recode_text(image, mover) if segment is image.text else segment.content
            region.content[at : at + segment.size] = content
        width = image.pointer_size
        for index, found in pointers_of(number, image, mover, linker, decorate, work.missing):
            region, at = work.layout.where[number, index]
            offset = at + (found if isinstance(found, int) else found.offset)
            value = 0 if isinstance(found, int) else found.target if found.high8 < 0 else found.plain
            if not isinstance(found, int) and found.high8 >= 0:
                if not region.writable:
                    raise ValueError(f"{image.path}: a pointer in the read-only segment {image.segments[index].name}")
                region.pointers.append(replace(found, offset=offset))
            masked = value & ((1 << 8 * width) - 1)
            region.content[offset : offset + width] = masked.to_bytes(width, "little")


def _encode_pointers(work: _Work) -> None:
    options = work.options
    how = _slide_options(options, work.base)
    for region in work.layout.regions:
        if region.writable:
            encoded = bytearray(region.content)
            if options.slide:
                region.slide_info = encode(encoded, region.pointers, how)
            region.encoded = encoded


def _offsets(work: _Work, file: int) -> int:
    """Give the file's regions their offsets, in mapping order; return the end of the last."""
    at = 0
    for region in work.layout.of_file(file):
        region.file_offset = at
        at += work.align(region.size)
    return at


def _linkedit(work: _Work, unmapped: Locals) -> tuple[dict[int, Tables], tuple[int, int]]:
    """Fill the linkedit, read-only and slide regions; return the images' tables and (address, size) of the trie."""
    layout, options = work.layout, work.options
    tables: dict[int, Tables] = {}
    blobs: list[tuple[Region, Region, int]] = []
    builders: dict[int, Linkedit] = {}
    trie_at = (0, 0)
    for region in layout.regions:
        if region.kind not in ("linkedit", "readonly", "slide"):
            continue
        builder = Linkedit(region.content, options.unmapped_locals is not None, options.redact)
        builders[id(region)] = builder
        if region is layout.readonly() and options.dylibs_trie and options.header_size >= 0x138:
            paths = {work.images[n].path: i for i, n in enumerate(layout.order)}
            paths |= {a: paths[p] for a, p in options.aliases.items()}
            trie = trie_bytes({p.encode(): uleb_bytes(i) for p, i in paths.items()})
            trie_at = (region.address + builder.append(trie), len(trie))
        if region.kind != "readonly":
            for data in layout.of_file(region.file):
                if data.slide_info:
                    blobs.append((data, region, builder.append(data.slide_info)))
        if region.kind == "linkedit":
            own = [(n, work.images[n], work.movers[n]) for n in layout.order if layout.linkedit_of(n) is region]
            if own:
                tables |= builder.add_images(own, unmapped)
        region.size = work.align(max(len(region.content), 1))
    for file in range(len(options.suffixes) + 1):
        _offsets(work, file)
    for data, region, at in blobs:
        data.slide_info_offset = region.file_offset + at
    _check_room(layout)
    return tables, trie_at


def _check_room(layout: Layout) -> None:
    ordered = sorted(layout.regions, key=lambda r: r.address)
    for before, after in itertools.pairwise(ordered):
        if before.address + before.size > after.address:
            raise ValueError(f"regions {before.kind} and {after.kind} overlap at {after.address:#x}")


def _local_symbols(work: _Work, unmapped: Locals, holder_size: int) -> bytes:
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


def _values(work: _Work, file: int, trie_at: tuple[int, int]) -> HeaderFields:
    options, regions = work.options, work.layout.of_file(file)
    values = HeaderFields(uuid=work.uuids[("", *options.suffixes)[file]], region_start=regions[0].address)
    values.sub_type = options.sub_type if options.cache_type == 2 else 0
    if options.header_size < 0x140:
        slid = next((r for r in regions if r.slide_info), None)
        if slid:
            values.slide_info = (slid.slide_info_offset, len(slid.slide_info))
    if file:
        return values
    end = max(r.address + r.size for r in work.layout.regions)
    values.region_size = end + options.page - work.base
    values.dynamic_data = (end - work.base, options.page)
    values.max_slide = 0x20000000 if options.is64 else 0x1000000
    values.dylibs_trie = trie_at
    for number, image in enumerate(work.images):
        if image.filetype == 7:
            values.dyld = (work.layout.addresses[number][image.segments.index(image.text)], 0)
    first = {i: work.layout.of_file(i)[0].address for i in range(len(options.suffixes) + 1)}
    values.subcaches = [
        (work.uuids[suffix], first[i] - work.base, suffix) for i, suffix in enumerate(options.suffixes, 1)
    ]
    if options.unmapped_locals == ".symbols":
        values.symbols_uuid = work.uuids[".symbols"]
    return values


def _file(work: _Work, file: int, values: HeaderFields, unmapped: Locals) -> bytes:
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


def _symbols_file(work: _Work, unmapped: Locals) -> bytes:
    """The `.symbols` file: a header with one mapping behind all others, and the local symbols."""
    options = work.options
    end = max(r.address + r.size for r in work.layout.regions) + options.page
    region = Region("text", 0, 5, 5, address=end, size=0x4000)
    info = _local_symbols(work, unmapped, options.header_size)
    out = bytearray(0x4000) + info.ljust(work.align(len(info)), b"\0")
    values = HeaderFields(uuid=work.uuids[".symbols"], region_start=end, local_symbols=(0x4000, len(info)))
    values.code_signature = (len(out), code_signature(len(out)))
    head = file_tables(options, [region], [], [], values)
    out[: len(head)] = head
    return bytes(out) + code_signature(bytes(out), options.page)


def build_cache(inputs: list[DylibInput], options: CacheOptions) -> BuiltCache:
    """Lay `inputs` out as a shared cache.

    Imports between the dylibs are bound; those that nothing in the cache exports become null and are listed in
    `BuiltCache.missing` as (path, symbol). Raises ValueError for what the format or the code cannot express.
    """
    options.check()
    images = [parse(i.path, i.file) for i in inputs]
    for image in images:
        if image.cputype != options.cpu[0]:
            raise ValueError(f"{image.path} is for cputype {image.cputype:#x}, not for {options.arch}")
        image.cpusubtype = options.cpu[1]
    work = _Work(options, images, plan(images, options), [], [], _uuids(options, images))
    _place(work)
    _fill(work)
    _encode_pointers(work)
    unmapped = Locals()
    tables, trie_at = _linkedit(work, unmapped)
    for number, image in enumerate(images):
        region, at = work.layout.where[number, image.segments.index(image.text)]
        header = header_in_cache(number, image, work.layout, tables[number], options)
        region.content[at : at + len(header)] = header
    files = {
        suffix: _file(work, file, _values(work, file, trie_at), unmapped)
        for file, suffix in enumerate(("", *options.suffixes))
    }
    if options.unmapped_locals == ".symbols":
        files[".symbols"] = _symbols_file(work, unmapped)
    if options.development:
        values = _values(work, 0, trie_at)
        values.uuid, values.sub_type = work.uuids[".development"], 0
        kept = bytes(work.layout.regions[0].content)
        files[".development"] = _file(work, 0, values, unmapped)
        work.layout.regions[0].content[:] = kept
    return BuiltCache(
        options, files, work.uuids[""], work.base, images, work.movers, work.layout, work.missing, work.uuids
    )
