"""The last look at an extracted image before it gets its name: read again, and held against the cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symcache.dyld.cache import Image, SharedCache
from symcache.dyld.linkedit import Linkedit
from symcache.dyld.mach_image import MachImage, parse_image
from symcache.errors import SharedCacheError
from symcache.macho import LC, MH

__all__ = ["check"]


def check(
    cache: SharedCache,
    image: Image,
    source: MachImage,
    linkedit: Linkedit,
    pieces: Sequence[bytes | memoryview],
    linkedit_at: int,
) -> None:
    """Hold the new file, `pieces` in order, against the cache. Raises SharedCacheError.

    `source` are the load commands that it was made from; `linkedit` was put at `linkedit_at`. Checked are the UUID,
    the flag, every segment's place and address, the bytes of __TEXT behind the load commands, the number of symbols,
    and that every name ends within the string pool.
    """
    new = parse_image(bytes(pieces[0]), image.path)
    command = new.find(LC.UUID)
    uuid = command.uuid() if command else None
    if image.uuid is not None and uuid != image.uuid:
        raise SharedCacheError(f"{image.path}: LC_UUID {uuid} where the cache's own table says {image.uuid}")
    total = sum(map(len, pieces))
    if new.header.flags & MH.DYLIB_IN_CACHE or len(new.segments) != len(source.segments):
        raise SharedCacheError(f"{image.path}: its new header is not what it was made to be")
    for old, segment in zip(source.segments, new.segments, strict=True):
        if segment.vmaddr != old.vmaddr or segment.fileoff + segment.filesize > total:
            raise SharedCacheError(f"{image.path}: segment {segment.segname} lies wrong in the new file")
    _check_text(cache, image, new, pieces)
    _check_symbols(image, new, linkedit, linkedit_at)


def _check_text(cache: SharedCache, image: Image, new: MachImage, pieces: Sequence[bytes | memoryview]) -> None:
    size = new.text.vmsize
    wanted = cache.space.view(image.address, size, f"{image.path}: __TEXT")
    at = len(pieces[0])
    for piece in pieces[1:]:
        length = min(len(piece), size - at)
        if length <= 0:
            break
        if not _same(piece[:length], wanted[at : at + length]):
            raise SharedCacheError(f"{image.path}: its new __TEXT differs from the cache's")
        at += length
    if at < size:
        raise SharedCacheError(f"{image.path}: its new __TEXT has {at:#x} of {size:#x} bytes")


def _same(one: bytes | memoryview, other: memoryview) -> bool:
    """Return whether two runs of bytes are equal: the very same memory, or else word by word."""
    ours, theirs = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    if len(ours) == len(theirs) and ours.__array_interface__["data"] == theirs.__array_interface__["data"]:
        return True
    return bool(np.array_equal(ours, theirs))


def _check_symbols(image: Image, new: MachImage, linkedit: Linkedit, linkedit_at: int) -> None:
    command = new.find(LC.SYMTAB)
    table = command.symtab() if command else None
    nsyms = table.nsyms if table else 0
    if nsyms != linkedit.symbols:
        raise SharedCacheError(f"{image.path}: has {nsyms} symbols where {linkedit.symbols} were expected")
    if not table or not nsyms:
        return
    dtype = new.header.structs.nlist
    symbols, strings, strsize = table.symoff - linkedit_at, table.stroff - linkedit_at, table.strsize
    if symbols < 0 or strings < 0 or max(symbols + nsyms * dtype.itemsize, strings + strsize) > len(linkedit.data):
        raise SharedCacheError(f"{image.path}: its new symbol table lies outside of __LINKEDIT")
    nlists = np.frombuffer(linkedit.data, dtype, nsyms, symbols)
    if int(nlists["n_strx"].max()) >= strsize or linkedit.data[strings + strsize - 1] != 0:
        raise SharedCacheError(f"{image.path}: a name lies outside of the new string pool of {strsize} bytes")
