"""What an image exports: by its trie, or in images that have none, by the external symbols of its symbol table.

Source: EXPORT_SYMBOL_FLAGS_* and struct nlist_64 (<mach-o/loader.h>, <mach-o/nlist.h>).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from symcache.dyld.trie import uleb, walk
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import LC, MachHeader, N, mach_header, text_address

__all__ = ["ExportedSymbol", "exported_symbols"]

_REEXPORT, _KIND, _ABSOLUTE = 0x08, 0x03, 0x02
_UNDEFINED = 0


class ExportedSymbol(NamedTuple):
    """A name that other images may use; `offset` counts from the image's header, None where another image has it."""

    name: bytes
    offset: int | None


def exported_symbols(image: bytes) -> Iterator[ExportedSymbol]:
    """Yield what a thin image exports. Raises MachOError, SharedCacheError for what is damaged."""
    header = mach_header(image)
    if header is None:
        raise MachOError("not a thin Mach-O image")
    if trie := _trie(header, image):
        for name, payload in walk(trie, "exports trie"):
            flags, position = uleb(payload, 0, "exports trie")
            offset = None if flags & _REEXPORT else uleb(payload, position, "exports trie")[0]
            yield ExportedSymbol(name, None if flags & _KIND == _ABSOLUTE else offset)
        return
    yield from _external(header, image)


def _trie(header: MachHeader, image: bytes) -> bytes:
    place = (0, 0)
    for command in header.load_commands(image, {LC.DYLD_EXPORTS_TRIE, LC.DYLD_INFO, LC.DYLD_INFO_ONLY}):
        if (own := command.linkedit_data()) and own.datasize:
            place = own.dataoff, own.datasize
        elif (info := command.dyld_info()) and info.export_size:
            place = info.export_off, info.export_size
    if sum(place) > len(image):
        raise SharedCacheError(f"exports trie: {place[1]:#x} bytes at {place[0]:#x} lie beyond the file's end")
    return image[place[0] : sum(place)]


def _external(header: MachHeader, image: bytes) -> Iterator[ExportedSymbol]:
    base = text_address(image) or 0
    for command in header.load_commands(image, {LC.SYMTAB}):
        table = command.symtab()
        if table is None:
            continue
        if max(table.symoff + table.nsyms * header.structs.nlist_size, table.stroff + table.strsize) > len(image):
            raise MachOError(f"symbol table of {table.nsyms} entries lies beyond the file's end")
        entries = np.frombuffer(image, header.structs.nlist, table.nsyms, table.symoff)
        kinds = entries["n_type"]
        chosen = (kinds & N.EXT != 0) & (kinds & N.STAB == 0) & (kinds & N.TYPE != _UNDEFINED)
        strings = image[table.stroff : table.stroff + table.strsize]
        for place, value in zip(entries["n_strx"][chosen].tolist(), entries["n_value"][chosen].tolist(), strict=True):
            end = strings.find(b"\0", place)
            yield ExportedSymbol(strings[place : end if end >= 0 else None], value - base)
