"""From images in a cache to Mach-O files of their own, laid out and checked in memory.

What a debugger needs and Apple's own extractor leaves out is done here too: pointers are made plain, segments lie at
page-aligned offsets and end before their zero-fill, the exports trie stays, and the symbol ranges are right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.commands import carried_over
from symcache.dyld.linkedit import rebuild
from symcache.dyld.mach_image import MachImage, read_image
from symcache.dyld.pointers import DecodedPages, PointerDecoder
from symcache.dyld.self_check import check
from symcache.dyld.symbols import LocalSymbols, SymbolSource, read_local_symbols
from symcache.errors import MachOError, SharedCacheError, SymcacheError
from symcache.macho import CPU_TYPE, MH, Segment, arch_name

__all__ = ["Extractor", "NewImage"]

_ARM_PAGE, _INTEL_PAGE = 0x4000, 0x1000
_INTEL = {CPU_TYPE.X86, CPU_TYPE.X86_64}
_DECODE_BYTES = 48 << 20
"""Data of this many bytes is decoded side by side; images are grouped so that a group stays below it."""
_MAX_UNBACKED = 64 << 20
"""Bytes of an image that need not be in any file of the cache, zero-fill not counted."""
_MAX_FILE = 0xFFFF_FFFF
"""Section offsets are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """One extracted image: its bytes in order, as views where nothing changed."""

    image: Image
    arch: str
    pieces: list[bytes | memoryview]
    """The first is the Mach-O header with all load commands."""
    size: int
    unbacked: int
    """Bytes of its segments, zero-fill not counted, that no file of the cache backs: they are zero here."""


@dataclass(slots=True)
class _Plan:
    """What is known of an image before it is made."""

    image: Image
    parsed: MachImage
    page: int
    sizes: dict[Segment, int] = field(default_factory=dict)
    """Bytes of each segment in the new file: fewer than in memory where it ends in zero-fill. Without __LINKEDIT."""
    chained: int = 0
    """Bytes that must be decoded."""
    unbacked: int = 0


class Extractor:
    """Makes images of one opened cache. Not for several threads at once."""

    def __init__(self, cache: SharedCache) -> None:
        self._cache, self._space = cache, cache.space
        self._decoder = PointerDecoder(self._space)
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
        group: list[_Plan] = []
        size = 0
        for image in images:
            try:
                plan = self._plan(image)
            except SymcacheError as error:
                yield image, error
                continue
            if group and size + plan.chained > _DECODE_BYTES:
                yield from self._group(group)
                group, size = [], 0
            group.append(plan)
            size += plan.chained + plan.parsed.header.commands_end
        yield from self._group(group)

    def _plan(self, image: Image) -> _Plan:
        """Look at every segment of an image before memory is taken for any. Raises SharedCacheError."""
        space = self._space
        parsed = read_image(space, image.address, image.path)
        space.view(parsed.text.vmaddr, parsed.text.vmsize, f"{image.path}: segment {parsed.text.segname}")
        plan = _Plan(image, parsed, _INTEL_PAGE if parsed.header.cputype in _INTEL else _ARM_PAGE)
        backed = total = 0
        for segment in parsed.content:
            filled, last = parsed.sections_end(segment)
            absent = space.unbacked(segment.vmaddr, segment.vmsize)
            backed += segment.vmsize - absent
            if absent:  # zero-fill needs no bytes: whoever left them out has lost nothing
                plan.unbacked += absent - space.unbacked(segment.vmaddr + filled, last - filled)
            if plan.unbacked > _MAX_UNBACKED:
                raise SharedCacheError(
                    f"{image.path}: segment {segment.segname}, {segment.vmsize:#x} bytes at {segment.vmaddr:#x}, is in"
                    " no file of the cache"
                )
            size = 0 if backed > space.size else self._file_size(parsed, segment, filled, plan.page)
            total += size
            if backed > space.size or total > min(_MAX_FILE, space.size + _MAX_UNBACKED):
                raise SharedCacheError(
                    f"{image.path}: vmsize {segment.vmsize:#x} of {segment.segname} makes it larger than its cache"
                )
            plan.sizes[segment] = size
            plan.chained += self._decoder.chained_bytes(segment.vmaddr, size)
        return plan

    def _file_size(self, parsed: MachImage, segment: Segment, filled: int, page: int) -> int:
        """Return how many bytes of a segment the file needs, in whole pages: the rest of it is zero.

        As a linker does it, behind the last of its sections that has bytes, but never where the cache is not zero.
        """
        start = filled + -(segment.vmaddr + filled) % page
        if segment is parsed.text or start >= segment.vmsize:
            return segment.vmsize
        used = self._decoder.used_bytes(segment.vmaddr + start, segment.vmsize - start)
        return min(start + used + -used % page, segment.vmsize)

    def _group(self, group: list[_Plan]) -> Iterator[tuple[Image, NewImage | SymcacheError]]:
        if not group:
            return
        ranges = [(s.vmaddr, size) for plan in group for s, size in plan.sizes.items()]
        try:
            decoded = self._decoder.decode(ranges, group[0].parsed.header.structs.pointer_size)
        except SymcacheError as error:
            if len(group) == 1:
                yield group[0].image, error
                return
            for plan in group:  # find out which of them it is
                yield from self._group([plan])
            return
        for plan in group:
            try:
                yield plan.image, self._assemble(plan, decoded)
            except MachOError as error:
                yield plan.image, SharedCacheError(f"{plan.image.path}: {error}")
            except SymcacheError as error:
                yield plan.image, error
            except (struct.error, ValueError, IndexError, OverflowError) as error:
                yield plan.image, SharedCacheError(f"{plan.image.path}: contradictory load commands: {error}")

    def _assemble(self, plan: _Plan, decoded: DecodedPages) -> NewImage:
        image, parsed, page = plan.image, plan.parsed, plan.page
        pieces: list[bytes | memoryview] = []
        text: list[memoryview] = []
        offset = 0
        for segment, size in plan.sizes.items():
            body = decoded.content(segment.vmaddr, size)
            parsed.set_segment(segment, offset if segment.vmsize else 0, size, segment.vmsize)
            text = text or body
            pieces += body
            offset += size
            if pad := -offset % page:
                pieces.append(bytes(pad))
                offset += pad
        linkedit = rebuild(self._space, parsed, self._unmapped_locals(image, parsed), offset)
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
        return NewImage(image, arch, pieces, total + pad, plan.unbacked)

    def _unmapped_locals(self, image: Image, parsed: MachImage) -> SymbolSource | None:
        if self._locals is None:
            return None
        key = image.address - self._cache.base
        if not self._wide_locals:  # keyed by file offset, not by VM offset
            found = self._space.locate(image.address)
            key = found.offset if found else key
        return self._locals.of(key, parsed.header.structs.nlist, image.path)


def _head(parsed: MachImage) -> bytes:
    """Return header and load commands as they will stand, padded to the length that they had."""
    kept = carried_over(parsed)
    commands = b"".join(c.data for c in kept)
    flags = parsed.header.flags & ~MH.DYLIB_IN_CACHE
    header = replace(parsed.header, ncmds=len(kept), sizeofcmds=len(commands), flags=flags)
    return (header.packed() + commands).ljust(parsed.header.commands_end, b"\0")
