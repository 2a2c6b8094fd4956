"""What an image exports: by its trie, or in images that have none, by the external symbols of its symbol table.

Source: struct nlist_64 (<mach-o/nlist.h>); for the trie see `symcache.dyld.trie`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from symcache.dyld.exports import read_exports
from symcache.dyld.mach_image import MachImage, parse_image
from symcache.dyld.trie import walk_exports
from symcache.errors import SharedCacheError
from symcache.macho import LC, N, text_address

__all__ = ["ExportedSymbol", "exported_symbols"]

_UNDEFINED = 0


class ExportedSymbol(NamedTuple):
    """A name that other images may use; `offset` counts from the image's header, None where another image has it."""

    name: bytes
    offset: int | None


def exported_symbols(image: bytes) -> Iterator[ExportedSymbol]:
    """Yield what a thin image exports. Raises MachOError, SharedCacheError for what is damaged."""
    parsed = parse_image(image, "the image")

    def view(offset: int, size: int, what: str) -> memoryview:
        if offset + size > len(image):
            raise SharedCacheError(f"{what}: {size:#x} bytes at {offset:#x} lie beyond the file's end")
        return memoryview(image)[offset : offset + size]

    if trie := read_exports(parsed, view):
        yield from (ExportedSymbol(*export) for export in walk_exports(trie, "exports trie"))
    else:
        yield from _external(parsed, text_address(image) or 0, view)


def _external(image: MachImage, base: int, view: Callable[[int, int, str], memoryview]) -> Iterator[ExportedSymbol]:
    command = image.find(LC.SYMTAB)
    table = command.symtab() if command else None
    if table is None:
        return
    dtype = image.header.structs.nlist
    raw = view(table.symoff, table.nsyms * dtype.itemsize, f"symbol table of {table.nsyms} entries")
    strings = bytes(view(table.stroff, table.strsize, "names of symbols"))
    entries = np.frombuffer(raw, dtype)
    kinds = entries["n_type"]
    chosen = (kinds & N.EXT != 0) & (kinds & N.STAB == 0) & (kinds & N.TYPE != _UNDEFINED)
    for place, value in zip(entries["n_strx"][chosen].tolist(), entries["n_value"][chosen].tolist(), strict=True):
        end = strings.find(b"\0", place)
        yield ExportedSymbol(strings[place : end if end >= 0 else None], value - base)
