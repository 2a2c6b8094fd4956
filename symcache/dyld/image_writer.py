"""From images in a cache to Mach-O files of their own, laid out and checked in memory.

What a debugger needs and Apple's own extractor leaves out is done here too: pointers are made plain, segments lie at
page-aligned offsets, the exports trie stays, and the symbol ranges are right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.commands import carried_over
from symcache.dyld.linkedit import rebuild
from symcache.dyld.mach_image import MachImage, read_image
from symcache.dyld.pointers import DecodedPages, PointerDecoder
from symcache.dyld.self_check import check
from symcache.dyld.symbols import LocalSymbols, SymbolSource, read_local_symbols
from symcache.errors import MachOError, SharedCacheError, SymcacheError
from symcache.macho import CPU_TYPE, MH, arch_name

__all__ = ["Extractor", "NewImage"]

_ARM_PAGE, _INTEL_PAGE = 0x4000, 0x1000
_INTEL = {CPU_TYPE.X86, CPU_TYPE.X86_64}
_DECODE_BYTES = 48 << 20
"""Data of this many bytes is decoded side by side; images are grouped so that a group stays below it."""
_MAX_UNBACKED = 64 << 20
_MAX_FILE = 0xFFFF_FFFF
"""Section offsets are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """One extracted image: its bytes in order, as views where nothing changed."""

    image: Image
    arch: str
    pieces: list[bytes | memoryview]
    size: int
    unbacked: int
    """Bytes of its segments that no file of the cache backs: they are zero here."""


class Extractor:
    """Makes images of one opened cache. Not for several threads at once."""

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self._decoder = PointerDecoder(cache.space)
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
            size += data_size + parsed.header.commands_end
        yield from self._group(group)

    def _check_segments(self, parsed: MachImage) -> int:
        """Look at every segment before memory is taken for any; return the bytes that must be decoded."""
        space = self._cache.space
        text = parsed.text
        space.view(text.vmaddr, text.vmsize, f"{parsed.what}: segment {text.segname}")
        chained = unbacked = total = 0
        for segment in parsed.content:
            total += segment.vmsize
            if total > min(_MAX_FILE, space.size + _MAX_UNBACKED):
                raise SharedCacheError(
                    f"{parsed.what}: vmsize {segment.vmsize:#x} of {segment.segname} makes it larger than its cache"
                )
            unbacked += sum(n for place, n in space.runs(segment.vmaddr, segment.vmsize) if place is None)
            if unbacked > _MAX_UNBACKED:
                raise SharedCacheError(
                    f"{parsed.what}: segment {segment.segname}, {segment.vmsize:#x} bytes at {segment.vmaddr:#x}, is in"
                    " no file of the cache"
                )
            chained += self._decoder.chained_bytes(segment.vmaddr, segment.vmsize)
        return chained

    def _group(self, group: list[tuple[Image, MachImage]]) -> Iterator[tuple[Image, NewImage | SymcacheError]]:
        if not group:
            return
        ranges = [(s.vmaddr, s.vmsize) for _, parsed in group for s in parsed.content if s.vmsize]
        try:
            decoded = self._decoder.decode(ranges, group[0][1].header.structs.pointer_size)
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
            except MachOError as error:
                yield image, SharedCacheError(f"{image.path}: {error}")
            except SymcacheError as error:
                yield image, error
            except (struct.error, ValueError, IndexError, OverflowError) as error:
                yield image, SharedCacheError(f"{image.path}: contradictory load commands: {error}")

    def _assemble(self, image: Image, parsed: MachImage, decoded: DecodedPages) -> NewImage:
        page = _INTEL_PAGE if parsed.header.cputype in _INTEL else _ARM_PAGE
        pieces: list[bytes | memoryview] = []
        text: list[memoryview] = []
        offset = unbacked = 0
        for segment in parsed.content:
            body, missing = decoded.content(segment.vmaddr, segment.vmsize)
            unbacked += missing
            parsed.set_segment(segment, offset if segment.vmsize else 0, segment.vmsize, segment.vmsize)
            text = text or body
            pieces += body
            offset += segment.vmsize
            if pad := -offset % page:
                pieces.append(bytes(pad))
                offset += pad
        linkedit = rebuild(self._cache.space, parsed, self._unmapped_locals(image, parsed), offset)
        if parsed.linkedit:
            size = len(linkedit.data)
            parsed.set_segment(parsed.linkedit, offset, size, size + -size % page)
        head = _head(parsed)
        if not text or len(head) > len(text[0]):
            raise SharedCacheError(f"{image.path}: its load commands are longer than its __TEXT")
        pieces[0] = text[0][len(head) :]
        pieces.insert(0, head)
        pieces.append(linkedit.data)
        total = offset + len(linkedit.data)
        if pad := -total % page:
            pieces.append(bytes(pad))
        check(self._cache, image, parsed, linkedit, pieces, offset)
        arch = arch_name(parsed.header.cputype, parsed.header.cpusubtype)
        return NewImage(image, arch, pieces, total + pad, unbacked)

    def _unmapped_locals(self, image: Image, parsed: MachImage) -> SymbolSource | None:
        if self._locals is None:
            return None
        key = image.address - self._cache.base
        if not self._wide_locals:  # keyed by file offset, not by VM offset
            found = self._cache.space.locate(image.address)
            key = found.offset if found else key
        return self._locals.of(key, parsed.header.structs.nlist, image.path)


def _head(parsed: MachImage) -> bytes:
    """Return header and load commands as they will stand, padded to the length that they had."""
    kept = carried_over(parsed)
    commands = b"".join(c.data for c in kept)
    flags = parsed.header.flags & ~MH.DYLIB_IN_CACHE
    header = replace(parsed.header, ncmds=len(kept), sizeofcmds=len(commands), flags=flags)
    return (header.packed() + commands).ljust(parsed.header.commands_end, b"\0")
