"""Lays Mach-O dylibs out as a dyld shared cache."""

from __future__ import annotations

import itertools
from dataclasses import replace

from tests.cachewriter.adrp_flow import Pair, adrp_pairs
from tests.cachewriter.binding import Decorator, Linker, pointers_of
from tests.cachewriter.built import BuiltCache
from tests.cachewriter.commands import header_in_cache
from tests.cachewriter.files import file_bytes, header_areas, header_values, stub_file, symbols_file
from tests.cachewriter.layout import Layout, Region, place, plan
from tests.cachewriter.linkedit import Linkedit, Locals, Tables
from tests.cachewriter.machinput import parse
from tests.cachewriter.mover import Mover
from tests.cachewriter.options import CacheOptions, DylibInput
from tests.cachewriter.recode import recode_text
from tests.cachewriter.recode_arm64 import pages_hold
from tests.cachewriter.slide import SlideOptions, encode
from tests.cachewriter.trie import trie_bytes, uleb_bytes
from tests.cachewriter.work import Work, file_uuids

__all__ = ["build_cache"]

# How much arm64 code of one image is looked through for adrps: more takes long, and its data keeps to whole pages.
PACKED_CODE = 0x40000


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


def _place(work: Work) -> None:
    """Place all segments, as close together as the code of their images bears."""
    options, images = work.options, work.images
    pairs: list[list[Pair] | None] = [None] * len(images)
    packed = set() if options.page_aligned else set(range(len(images)))
    if not options.intel:
        for number in sorted(packed):
            pairs[number] = adrp_pairs(images[number]) if images[number].text.size <= PACKED_CODE else None
        packed = {n for n in packed if pairs[n] is not None}
    area = header_areas(work)
    while True:
        place(images, options, work.layout, area, packed)
        work.movers = [Mover(*three) for three in zip(images, work.layout.addresses, pairs, strict=True)]
        torn = {n for n in packed if not pages_hold(pairs[n] or [], work.movers[n])}
        if not torn:
            return
        packed -= torn


def _fill(work: Work) -> None:
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


def _encode_pointers(work: Work) -> None:
    options = work.options
    how = _slide_options(options, work.base)
    for region in work.layout.regions:
        if region.writable:
            encoded = bytearray(region.content)
            if options.slide:
                region.slide_info = encode(encoded, region.pointers, how)
            region.encoded = encoded


def _offsets(work: Work, file: int) -> int:
    """Give the file's regions their offsets, in mapping order; return the end of the last."""
    at = 0
    for region in work.layout.of_file(file):
        region.file_offset = at
        at += work.align(region.size)
    return at


def _linkedit(work: Work, unmapped: Locals) -> tuple[dict[int, Tables], tuple[int, int]]:
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


def _add_twin(work: Work, files: dict[str, bytes], trie_at: tuple[int, int], unmapped: Locals) -> None:
    """The second main file of a universal cache, with a stub subcache of its own and all others shared."""
    values = header_values(work, 0, trie_at)
    values.uuid, values.sub_type = work.uuids[".development"], 0
    if work.stub:
        suffix = work.stub + ".development"
        files[suffix], _ = stub_file(work, suffix)
        _, offset, _ = values.subcaches[-1]
        values.subcaches[-1] = (work.uuids[suffix], offset, suffix)
    kept = bytes(work.layout.regions[0].content)
    files[".development"] = file_bytes(work, 0, values, unmapped)
    work.layout.regions[0].content[:] = kept


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
    work = Work(options, images, plan(images, options), [], [], file_uuids(options, images))
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
        suffix: file_bytes(work, file, header_values(work, file, trie_at), unmapped)
        for file, suffix in enumerate(("", *options.suffixes))
    }
    if options.unmapped_locals == ".symbols":
        files[".symbols"] = symbols_file(work, unmapped)
    stubs = []
    if work.stub:
        files[work.stub], stub = stub_file(work, work.stub)
        stubs.append(stub)
    if options.development:
        _add_twin(work, files, trie_at, unmapped)
    return BuiltCache(
        options, files, work.uuids[""], work.base, images, work.movers, work.layout, work.missing, work.uuids, stubs
    )
