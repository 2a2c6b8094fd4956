"""A new __LINKEDIT for one image, out of the one that all images of a cache share.

Source: symtab_command, dysymtab_command, linkedit_data_command (<mach-o/loader.h>), nlist, nlist_64 (<mach-o/nlist.h>).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.exports import place_exports, read_exports, single_reexports
from symcache.dyld.linkedit_source import LinkeditSource
from symcache.dyld.mach_image import MachImage
from symcache.dyld.symbols import SymbolSource, gather_strings
from symcache.errors import SharedCacheError
from symcache.macho import LC, Dysymtab, N, Symtab

__all__ = ["Linkedit", "rebuild"]

_INDIRECT_LOCAL = 0x8000_0000
_INDIRECT_LOCAL_OR_ABS = np.uint32(0xC000_0000)


@dataclass(slots=True)
class Linkedit:
    """The content of the new segment, and how many symbols its table has."""

    data: bytes
    symbols: int


def rebuild(space: AddressSpace, image: MachImage, locals_: SymbolSource | None, fileoff: int) -> Linkedit:
    """Build the new __LINKEDIT, to lie at `fileoff` of the new file, and point the image's commands at it.

    `locals_` are the image's unmapped local symbols, which are merged in. Raises SharedCacheError.
    """
    source = LinkeditSource(space, image)
    out: list[bytes] = []
    structs = image.header.structs
    size = symbols = 0

    def append(data: bytes | memoryview) -> int:
        """Add a payload, aligned to the pointer size; return its file offset."""
        nonlocal size
        at = size
        out.append(bytes(data))
        size += len(data)
        if pad := -size % structs.pointer_size:
            out.append(bytes(pad))
            size += pad
        return fileoff + at

    for kind in (LC.FUNCTION_STARTS, LC.DATA_IN_CODE):
        if (command := image.find(kind)) and (old := command.linkedit_data()):
            at = append(source.view(*old, kind.name)) if old.datasize else 0
            structs.linkedit_data.pack_into(image.data, command.body, at, old.datasize)

    exports = read_exports(image, source.view)
    if (command := image.find(LC.SYMTAB)) and (symtab := command.symtab()):
        ranges = image.find(LC.DYSYMTAB)
        table = _merge(image, source, symtab, ranges.dysymtab() if ranges else None, locals_, exports)
        symbols = len(table.nlists)
        symoff = append(table.nlists.tobytes())
        indirect_at = append(table.indirect.tobytes()) if len(table.indirect) else 0
        stroff = append(b"".join(table.pieces))
        new = symoff, symbols, stroff, size - (stroff - fileoff)
        structs.symtab.pack_into(image.data, command.body, *new)
        if ranges:
            start, defined = table.locals, table.defined
            places = 0, start, start, defined, start + defined, table.undefined, indirect_at, len(table.indirect)
            structs.dysymtab.pack_into(image.data, ranges.body, *places)
    place_exports(image, exports, append)
    return Linkedit(b"".join(out), symbols)


@dataclass(slots=True)
class _Table:
    nlists: npt.NDArray[np.void]
    indirect: npt.NDArray[np.uint32]
    pieces: list[bytes]
    locals: int
    defined: int
    undefined: int


def _merge(
    image: MachImage,
    source: LinkeditSource,
    symtab: Symtab,
    dysymtab: Dysymtab | None,
    locals_: SymbolSource | None,
    exports: bytes,
) -> _Table:
    """Return the new symbol table: locals, defined externals with re-exports, undefined; and the indirect table."""
    dtype = image.header.structs.nlist
    nsyms = symtab.nsyms
    raw = source.view(symtab.symoff, nsyms * dtype.itemsize, f"symbol table of {nsyms} entries") if nsyms else b""
    nlists = np.frombuffer(raw, dtype)
    pool = np.zeros(1, np.uint8)
    if nsyms:
        pool = np.frombuffer(source.to_end(symtab.stroff, symtab.strsize, "string pool"), np.uint8)
    local_count, defined_at, defined, undefined_at, undefined = _ranges(dysymtab, nsyms, image.what)
    indirect = np.zeros(0, np.uint32)
    if dysymtab and (count := dysymtab.nindirectsyms):
        raw = source.view(dysymtab.indirectsymoff, count * 4, f"indirect table of {count} entries")
        indirect = np.frombuffer(raw, "<u4")
        index = indirect[indirect & _INDIRECT_LOCAL_OR_ABS == 0]
        if len(index) and (last := int(index.max())) >= nsyms:
            raise SharedCacheError(f"{image.what}: the indirect table names symbol {last} of {nsyms}")

    # The re-exports join the other defined externals, before what is undefined.
    insert_at = undefined_at if undefined else nsyms
    first = defined_at if locals_ is not None else 0
    own = SymbolSource(nlists[first:], pool, f"{image.what}: symbols")
    arrays: list[npt.NDArray[np.void]] = []
    pieces: list[bytes] = [b"\0"]
    size = 1
    for part in (locals_, own):
        if part is not None:
            new = part.nlists.copy()
            new["n_strx"], texts, length = gather_strings(part, size)
            arrays.append(new)
            pieces += texts
            size += length
    added = 0
    if reexports := single_reexports(image, exports):
        names, values, text = reexports
        added = len(names)
        new = np.zeros(added, dtype)
        new["n_type"] = N.INDR | N.EXT
        new["n_strx"], new["n_value"] = names + size, values + size
        pieces.append(text)
        renamed = arrays.pop()
        arrays += [renamed[: insert_at - first], new, renamed[insert_at - first :]]

    new_locals = len(locals_.nlists) if locals_ is not None else local_count
    # An index counts from the old first symbol kept; special entries are flags, not indices.
    shift = (new_locals - first) if locals_ is not None else 0
    moved = indirect.astype(np.int64) + shift + np.where(indirect >= insert_at, added, 0)
    # One of the `<redacted>` placeholders, whose places the unmapped locals take: which local it was, nobody knows.
    moved = np.where(indirect < first, _INDIRECT_LOCAL, moved)
    indirect = np.where(indirect & _INDIRECT_LOCAL_OR_ABS == 0, moved, indirect).astype(np.uint32)
    return _Table(np.concatenate(arrays), indirect, pieces, new_locals, defined + added, undefined)


def _ranges(dysymtab: Dysymtab | None, nsyms: int, what: str) -> tuple[int, int, int, int, int]:
    """Return the number of locals, then start and number of the defined externals, and of the undefined ones.

    Raises SharedCacheError for ranges that do not lie within the symbol table, or not in this order.
    """
    if dysymtab is None:
        return 0, nsyms, 0, nsyms, 0
    local_at, local, defined_at, defined, undefined_at, undefined = dysymtab[:6]
    last = max(local_at + local, defined_at + defined, undefined_at + undefined)
    if last > nsyms or (undefined and undefined_at < defined_at + defined):
        raise SharedCacheError(f"{what}: symbol ranges of LC_DYSYMTAB lie beyond its {nsyms} symbols")
    return local, defined_at, defined, undefined_at, undefined
