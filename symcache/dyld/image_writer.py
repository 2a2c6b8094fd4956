"""From images in a cache to Mach-O files of their own, laid out and checked in memory.

What a debugger needs and Apple's own extractor leaves out is done here too: pointers are made plain, segments lie at
page-aligned offsets, the exports trie stays, and the symbol ranges are right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import Mapping
from symcache.dyld.linkedit import DROPPED, Linkedit, rebuild
from symcache.dyld.load_commands import LC, MH_DYLIB_IN_CACHE, MachImage, Segment, read_image
from symcache.dyld.slide import SlideInfo, read_slide_info
from symcache.dyld.symbols import NLIST_32, NLIST_64, LocalSymbols, read_local_symbols
from symcache.errors import SharedCacheError, SymcacheError

__all__ = ["Extractor", "NewImage"]

_ARM_PAGE, _INTEL_PAGE = 0x4000, 0x1000
_INTEL = {7, 0x0100_0007}
_DECODE_BYTES = 64 << 20
"""Data of this many bytes is decoded side by side; images are grouped so that a group stays below it."""
_MAX_FILE = 0xFFFF_FFFF
"""Section offsets are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """One extracted image: its bytes in order, as views where nothing changed."""

    image: Image
    pieces: list[bytes | memoryview]
    size: int


@dataclass(frozen=True, slots=True)
class _Pages:
    """Decoded pages of one mapping: `data[i]` is page `numbers[i]`."""

    numbers: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]


class Extractor:
    """Makes images of one opened cache. Not for several threads at once."""

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self._slides: dict[tuple[str, int], SlideInfo | None] = {}
        holder = cache.symbols if cache.symbols else cache.main
        self._locals: LocalSymbols | None = read_local_symbols(holder)
        self._wide_locals = holder.header.has_wide_local_symbols

    def one(self, image: Image) -> NewImage:
        """Make one image. Raises SharedCacheError."""
        made = next(iter(self.many([image])))[1]
        if isinstance(made, SymcacheError):
            raise made
        return made

    def many(self, images: Sequence[Image]) -> Iterator[tuple[Image, NewImage | SymcacheError]]:
        """Make images in turn; one that cannot be made comes as its error, the others go on."""
        group: list[tuple[Image, MachImage]] = []
        size = 0
        for image in images:
            try:
                parsed = read_image(self._cache.space, image.address, image.path)
                data_size = self._check_segments(parsed)
            except SymcacheError as error:
                yield image, error
                continue
            if group and size + data_size > _DECODE_BYTES:
                yield from self._group(group)
                group, size = [], 0
            group.append((image, parsed))
            size += data_size
        yield from self._group(group)

    def _check_segments(self, parsed: MachImage) -> int:
        """Look at every segment before memory is taken for any; return the bytes that must be decoded."""
        total = 0
        for segment in parsed.segments:
            if segment.name == "__LINKEDIT" or not segment.vmsize:
                continue
            what = f"{parsed.what}: segment {segment.name}"
            self._cache.space.view(segment.vmaddr, segment.vmsize, what)
            if self._slide_of(segment) is not None:
                total += segment.vmsize
        if sum(s.vmsize for s in parsed.segments if s.name != "__LINKEDIT") > _MAX_FILE:
            raise SharedCacheError(f"{parsed.what}: its segments are larger than 4 GiB together")
        return total

    def _group(self, group: list[tuple[Image, MachImage]]) -> Iterator[tuple[Image, NewImage | SymcacheError]]:
        try:
            decoded = self._decode([s for _, parsed in group for s in parsed.segments])
        except SymcacheError as error:
            if len(group) == 1:
                yield group[0][0], error
                return
            for member in group:  # find out which of them it is
                yield from self._group([member])
            return
        for image, parsed in group:
            try:
                yield image, self._assemble(image, parsed, decoded)
            except SymcacheError as error:
                yield image, error
            except (struct.error, ValueError, IndexError, OverflowError) as error:
                yield image, SharedCacheError(f"{image.path}: contradictory load commands: {error}")

    def _slide_of(self, segment: Segment) -> tuple[CacheFilePart, Mapping, SlideInfo] | None:
        if segment.name == "__LINKEDIT" or not segment.vmsize:
            return None
        found = self._cache.space.locate(segment.vmaddr)
        if found is None:
            return None
        key = (str(found.part.path), found.mapping.address)
        if key not in self._slides:
            self._slides[key] = read_slide_info(found.part, found.mapping)
        slide = self._slides[key]
        return (found.part, found.mapping, slide) if slide is not None and slide.page_size else None

    def _decode(self, segments: Sequence[Segment]) -> dict[int, _Pages]:
        """Decode every page that the segments touch: by the address of the mapping."""
        wanted: dict[int, tuple[CacheFilePart, Mapping, SlideInfo, list[npt.NDArray[np.int64]]]] = {}
        for segment in segments:
            if found := self._slide_of(segment):
                part, mapping, slide = found
                first = (segment.vmaddr - mapping.address) // slide.page_size
                last = (segment.vmaddr + segment.vmsize - 1 - mapping.address) // slide.page_size
                wanted.setdefault(mapping.address, (part, mapping, slide, []))[3].append(np.arange(first, last + 1))
        decoded = {}
        pointer_size = 4 if self._is_32_bit() else 8
        for address, (part, mapping, slide, ranges) in wanted.items():
            numbers = np.unique(np.concatenate(ranges))
            source = np.frombuffer(memoryview(part.data)[mapping.file_offset :][: mapping.size], np.uint8)
            data = np.zeros((len(numbers), slide.page_size), np.uint8)
            runs = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1)
            for run in runs:
                begin = int(numbers[run[0]]) * slide.page_size
                piece = source[begin : begin + len(run) * slide.page_size]
                data[run[0] : run[-1] + 1].reshape(-1)[: len(piece)] = piece
                slide.decode(data[run[0] : run[-1] + 1], int(numbers[run[0]]), pointer_size)
            decoded[address] = _Pages(numbers, data)
        return decoded

    def _is_32_bit(self) -> bool:
        images = self._cache.images
        if not images:
            return False
        magic = self._cache.space.view(images[0].address, 4, images[0].path)
        return bytes(magic) == b"\xce\xfa\xed\xfe"

    def _assemble(self, image: Image, parsed: MachImage, decoded: dict[int, _Pages]) -> NewImage:
        page = _INTEL_PAGE if parsed.cputype in _INTEL else _ARM_PAGE
        bodies: list[memoryview] = []
        offset = 0
        pieces: list[bytes | memoryview] = []
        for segment in parsed.segments:
            if segment.name == "__LINKEDIT":
                continue
            body = self._body(segment, parsed, decoded) if segment.vmsize else memoryview(b"")
            parsed.set_segment(segment, offset if segment.vmsize else 0, len(body), segment.vmsize)
            bodies.append(body)
            pieces.append(body)
            offset += len(body)
            if pad := -offset % page:
                pieces.append(bytes(pad))
                offset += pad
        key = image.address - self._cache.base
        if not self._wide_locals:
            found = self._cache.space.locate(image.address)
            key = found.offset if found else key
        dtype = NLIST_64 if parsed.layout.pointer_size == 8 else NLIST_32
        locals_ = self._locals.of(key, dtype, image.path) if self._locals else None
        linkedit = rebuild(self._cache.space, parsed, locals_, offset)
        if parsed.linkedit:
            size = len(linkedit.data)
            parsed.set_segment(parsed.linkedit, offset, size, size + -size % page)
        head = _head(parsed)
        _check(image, parsed, linkedit, head, bodies[0])
        pieces[0] = bodies[0][len(head) :]
        pieces.insert(0, head)
        pieces.append(linkedit.data)
        total = offset + len(linkedit.data)
        if pad := -total % page:
            pieces.append(bytes(pad))
        return NewImage(image, pieces, total + pad)

    def _body(self, segment: Segment, parsed: MachImage, decoded: dict[int, _Pages]) -> memoryview:
        found = self._slide_of(segment)
        if found is None:
            return self._cache.space.view(segment.vmaddr, segment.vmsize, f"{parsed.what}: segment {segment.name}")
        _, mapping, slide = found
        pages = decoded[mapping.address]
        inside = segment.vmaddr - mapping.address
        row = int(np.searchsorted(pages.numbers, inside // slide.page_size))
        start = row * slide.page_size + inside % slide.page_size
        return pages.data.reshape(-1)[start : start + segment.vmsize].data


def _head(parsed: MachImage) -> bytes:
    """Return header and load commands as they will stand, padded to the length that they had."""
    kept = [c for c in parsed.commands if c.cmd not in DROPPED]
    commands = b"".join(bytes(c.data) for c in kept)
    flags = struct.unpack_from("<I", parsed.header, 24)[0] & ~MH_DYLIB_IN_CACHE
    header = parsed.header[:16] + struct.pack("<3I", len(kept), len(commands), flags) + parsed.header[28:]
    return (header + commands).ljust(parsed.commands_end, b"\0")


def _check(image: Image, parsed: MachImage, linkedit: Linkedit, head: bytes, text: memoryview) -> None:
    """Hold the new image against the cache before anybody sees it. Raises SharedCacheError."""
    if len(head) > len(text):
        raise SharedCacheError(f"{image.path}: its load commands are longer than its __TEXT")
    command = parsed.find(LC.UUID)
    raw = bytes(command.data[8:24]) if command else b""
    uuid = UUID(bytes=raw) if len(raw) == 16 and any(raw) else None
    if uuid != image.uuid:
        raise SharedCacheError(f"{image.path}: LC_UUID {uuid} where the cache's own table says {image.uuid}")
    if not linkedit.symbols:
        return
    dtype = NLIST_64 if parsed.layout.pointer_size == 8 else NLIST_32
    symtab = parsed.find(LC.SYMTAB)
    at = parsed.linkedit.fileoff if parsed.linkedit else 0
    symoff, nsyms, stroff, strsize = struct.unpack_from("<4I", symtab.data, 8) if symtab else (0, 0, 0, 0)
    base = _linkedit_offset(parsed)
    table = np.frombuffer(linkedit.data, dtype, nsyms, symoff - base)
    start, size = linkedit.strings
    if (
        nsyms != linkedit.symbols
        or stroff - base != start
        or strsize != size
        or int(table["strx"].max()) >= size
        or linkedit.data[start + size - 1] != 0
    ):
        raise SharedCacheError(f"{image.path}: the new symbol table of {nsyms} symbols at {at:#x} is not consistent")


def _linkedit_offset(parsed: MachImage) -> int:
    linkedit = parsed.linkedit
    if linkedit is None:
        return 0
    return int(parsed.layout.segment.unpack_from(linkedit.command.data, 8)[3])
