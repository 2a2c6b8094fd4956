"""Which file and mapping every segment goes to, and at what address."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.cachewriter.machinput import Image, Segment
from tests.cachewriter.options import KIND_SUFFIXES, CacheOptions
from tests.cachewriter.slide import Pointer

# Data kinds in mapping order, with the flags of mapping_and_slide_info.
DATA_KINDS = {"const": 0x4, "data": 0x0, "dirty": 0x2, "auth": 0x1, "auth_const": 0x5, "tpro": 0x40}
_BY_NAME = {
    "__DATA_CONST": "const",
    "__DATA_DIRTY": "dirty",
    "__AUTH": "auth",
    "__AUTH_CONST": "auth_const",
    "__TPRO_CONST": "tpro",
}
READ_ONLY_DATA = 0x20
GIB = 1 << 30


@dataclass
class Region:
    """One mapping of one file. `content` has plain pointers, `encoded` what the file holds."""

    kind: str
    file: int
    maxprot: int
    initprot: int
    flags: int = 0
    address: int = 0
    size: int = 0
    file_offset: int = 0
    content: bytearray = field(default_factory=bytearray)
    encoded: bytes | bytearray = b""
    pointers: list[Pointer] = field(default_factory=list)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    slide_info: bytes = b""
    slide_info_offset: int = 0  # in the file

    @property
    def writable(self) -> bool:
        return bool(self.maxprot & 2)


@dataclass
class Layout:
    """The plan of a cache: regions by file, and by image its file of text and the addresses of its segments."""

    regions: list[Region]
    order: list[int]
    text_file: list[int]
    addresses: list[list[int]]
    where: dict[tuple[int, int], tuple[Region, int]] = field(default_factory=dict)

    def of_file(self, file: int) -> list[Region]:
        return [r for r in self.regions if r.file == file]

    def linkedit_of(self, image: int) -> Region:
        """The region that holds the image's part of __LINKEDIT."""
        own = [r for r in self.regions if r.kind == "linkedit" and r.file == self.text_file[image]]
        return own[0] if own else next(r for r in self.regions if r.kind == "linkedit")

    def readonly(self) -> Region:
        """The region for the cache's own read-only data."""
        return next((r for r in self.regions if r.kind == "readonly"), self.main_linkedit())

    def main_linkedit(self) -> Region:
        return next(r for r in self.regions if r.kind == "linkedit")


def data_kind(segment: Segment, options: CacheOptions) -> str:
    """The group of a segment: text, readonly, or a data kind."""
    if segment.name == "__TEXT":
        return "text"
    if not segment.maxprot & 2 and not segment.initprot & 2:
        return "readonly"
    if options.header_size < 0x140:
        return "data"
    if segment.name == "__OBJC_CONST":
        return "auth_const" if options.arch.startswith("arm64e") else "const"
    return _BY_NAME.get(segment.name, "data")


def _file_of(suffixes: tuple[str, ...], kind: str) -> int | None:
    return next((i for i, s in enumerate(suffixes, 1) if f".dyld{kind}" in s), None)


def plan(images: list[Image], options: CacheOptions) -> Layout:
    """Assign every segment to a region; addresses come later."""
    rng = random.Random(options.layout_seed)
    order = list(range(len(images)))
    if options.layout_seed:
        rng.shuffle(order)
    suffixes = options.suffixes
    text_files = [0, *(i for i, s in enumerate(suffixes, 1) if not any(k in s for k in KIND_SUFFIXES))]
    text_file = [0] * len(images)
    for position, image in enumerate(order):
        text_file[image] = text_files[position * len(text_files) // len(images)]
    by_kind = len(text_files) < len(suffixes) + 1
    data_file, readonly_file = _file_of(suffixes, "data"), _file_of(suffixes, "readonly")
    linkedit_file = _file_of(suffixes, "linkedit") or 0

    groups: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for image in order:
        for number, segment in enumerate(images[image].segments):
            kind, file = data_kind(segment, options), text_file[image]
            if by_kind and kind == "readonly":
                file = readonly_file or linkedit_file
            elif by_kind and kind != "text":
                file = data_file or 0
            if kind == "readonly" and not readonly_file:
                kind = "linkedit"
                file = linkedit_file if by_kind else file
            groups.setdefault((file, kind), []).append((image, number))

    if options.layout_seed:
        # Data need not lie in the order of code.
        for (_, kind), pieces in groups.items():
            if kind != "text":
                rng.shuffle(pieces)
    regions = []
    for file in range(len(suffixes) + 1):
        regions.append(Region("text", file, 5, 5, pieces=groups.get((file, "text"), [])))
        for kind, flags in DATA_KINDS.items():
            if pieces := groups.get((file, kind)):
                const = kind in ("const", "auth_const", "tpro") and options.header_size >= 0x140
                regions.append(Region(kind, file, 3, 1 if const else 3, flags, pieces=pieces))
        if file == readonly_file:
            regions.append(Region("readonly", file, 1, 1, READ_ONLY_DATA, pieces=groups.get((file, "readonly"), [])))
        elif file == linkedit_file if by_kind else True:
            regions.append(Region("linkedit", file, 1, 1, pieces=groups.get((file, "linkedit"), [])))
        elif options.slide and any(r.file == file and r.writable for r in regions):
            regions.append(Region("slide", file, 1, 1))
    return Layout(regions, order, text_file, [[0] * len(i.segments) for i in images])


def default_base(options: CacheOptions) -> int:
    """The unslid base that macOS of that era used for the architecture."""
    if options.base is not None:
        return options.base
    if options.arch == "i386":
        return 0x90000000
    if options.arch == "arm64_32":
        return 0x1A000000
    if not options.intel:
        return 0x180000000
    if options.header_size < 0xF8:
        return 0x7FFF80000000
    return 0x7FFF20000000 if options.header_size < 0x1C8 else 0x7FF800000000


def _linkedit_bound(images: list[Image], options: CacheOptions, layout: Layout) -> int:
    """No linkedit or read-only region gets larger than this."""
    strings = sum(len(i.path) for i in images) + sum(len(a) for a in options.aliases)
    data = sum(r.size for r in layout.regions if r.writable)
    pointers = sum(len(i.rebases) + len(i.binds) for i in images)
    return (
        0x20000 + 8 * strings + 2 * sum(i.linkedit.filesize if i.linkedit else 0 for i in images) + data + 4 * pointers
    )


def _start(region: Region, file_base: int, cursor: int, options: CacheOptions) -> int:
    """Where a region begins: classic Intel caches keep code, data and linkedit in fixed places, others go on."""
    if region.kind == "text":
        return cursor
    first_data = region.writable and cursor <= file_base + GIB // 2
    spread = (
        options.intel
        and options.split != "v2-kinds"
        and not any(k in s for s in options.suffixes for k in KIND_SUFFIXES)
    )
    if options.arch == "i386":
        offset = 0x10000000 if first_data else 0x20000000 if not region.writable else 0
        return max(cursor, file_base + offset)
    if spread and options.header_size >= 0x1C8:
        offset = GIB if first_data else 2 * GIB if not region.writable else 0
        return max(cursor, file_base + offset)
    if spread and options.header_size >= 0xF8:
        offset = 0x60000000 if region.writable else 0xA0000000
        return max(cursor, file_base + offset)
    gap = {"const": 0, "data": 1, "auth": 1, "linkedit": 1}.get(region.kind, 0)
    return cursor + gap * (0x400000 if options.arch == "arm64_32" else 0x2000000)


def place(images: list[Image], options: CacheOptions, layout: Layout, header_area: list[int], packed: set[int]) -> None:
    """Give every region and segment its address.

    `header_area` is the size of each file's header and tables; the data of the images in `packed` may lie at any
    multiple of 16, that of others at pages of 4 KB.
    """
    rng = random.Random(options.layout_seed * 7919 + 1)
    page = options.page

    def rounded(size: int, unit: int = page) -> int:
        return (size + unit - 1) // unit * unit

    base = cursor = default_base(options)
    for file in range(len(options.suffixes) + 1):
        if file and options.intel and options.is64 and not any(k in s for s in options.suffixes for k in KIND_SUFFIXES):
            cursor = base + file * 4 * GIB
        file_base = cursor
        below = options.arch == "x86_64" and options.header_size < 0x98 and options.base is None
        for region in layout.of_file(file):
            if below and region.writable:
                region.address = file_base - 0x10000000
            else:
                region.address = _start(region, file_base, cursor, options)
            at = 0
            if region.kind == "text":
                at = rounded(header_area[file])
                if options.arch == "arm64_32":
                    at = max(at, 0x8000)
            for image, number in region.pieces:
                segment = images[image].segments[number]
                unit = max(segment.align, 16)
                if region.kind == "text" or image not in packed:
                    unit = max(unit, 0x1000)
                if options.layout_seed:
                    at += rng.randrange(4) * unit
                at = (at + unit - 1) // unit * unit
                layout.addresses[image][number] = region.address + at
                layout.where[image, number] = (region, at)
                at += segment.size
            region.size = rounded(max(at, 1))
            region.content = bytearray(region.size)
            if region.kind in ("linkedit", "readonly", "slide"):
                region.content = bytearray(at)
                cursor = region.address + rounded(at + _linkedit_bound(images, options, layout))
            elif not (below and region.writable):
                cursor = region.address + region.size
