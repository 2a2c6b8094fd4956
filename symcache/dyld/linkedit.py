"""A new __LINKEDIT for one image, out of the one that all images of a cache share.

Source: symtab_command, dysymtab_command, linkedit_data_command, dyld_info_command (<mach-o/loader.h>), the exports trie
flags of <mach-o/loader.h> (EXPORT_SYMBOL_FLAGS_REEXPORT).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.exports import place_exports, read_exports, single_reexports
from symcache.dyld.linkedit_source import LinkeditSource, need
from symcache.dyld.load_commands import LC, Command, MachImage
from symcache.dyld.symbols import NLIST_32, NLIST_64, SymbolSource, gather_strings
from symcache.errors import SharedCacheError

__all__ = ["DROPPED", "Linkedit", "rebuild"]

DROPPED = frozenset(
    {
        LC.CODE_SIGNATURE,
        LC.SEGMENT_SPLIT_INFO,
        LC.ENCRYPTION_INFO,
        LC.ENCRYPTION_INFO_64,
        LC.DYLIB_CODE_SIGN_DRS,
        LC.LINKER_OPTIMIZATION_HINT,
        LC.ATOM_INFO,
        LC.FUNCTION_VARIANTS,
        LC.FUNCTION_VARIANT_FIXUPS,
        LC.NOTE,
        LC.SYMSEG,
        LC.TWOLEVEL_HINTS,
        LC.DYLD_CHAINED_FIXUPS,
    }
)
"""Commands whose payload is not carried over: what stayed of them would point nowhere."""
_INDIRECT_LOCAL = 0x8000_0000
_INDIRECT_LOCAL_OR_ABS = np.uint32(0xC000_0000)
_N_INDR_EXT = 0x0B


@dataclass(slots=True)
class Linkedit:
    """The new segment's bytes and what the self-check expects of them."""

    data: bytes = b""
    symbols: int = 0
    pieces: list[bytes] = field(default_factory=list)


def rebuild(space: AddressSpace, image: MachImage, locals_: SymbolSource | None, fileoff: int) -> Linkedit:
    """Build the new __LINKEDIT, to lie at `fileoff` of the new file, and point the image's commands at it.

    `locals_` are the image's unmapped local symbols, which are merged in. Raises SharedCacheError.
    """
    source = LinkeditSource(space, image)
    result = Linkedit()
    out = result.pieces
    align = image.layout.pointer_size
    size = 0

    def append(data: bytes | memoryview) -> int:
        """Add a payload, aligned to the pointer size; return its file offset."""
        nonlocal size
        at = size
        out.append(bytes(data))
        size += len(data)
        if pad := -size % align:
            out.append(bytes(pad))
            size += pad
        return fileoff + at

    for kind in (LC.FUNCTION_STARTS, LC.DATA_IN_CODE):
        if command := image.find(kind):
            need(command, 16, image)
            offset, length = command.u32(8), command.u32(12)
            payload = source.view(offset, length, kind.name) if length else b""
            struct.pack_into("<2I", command.data, 8, append(payload) if length else 0, length)

    exports = read_exports(image, source)
    symtab, dysymtab = image.find(LC.SYMTAB), image.find(LC.DYSYMTAB)
    if symtab:
        table = _merge(image, source, symtab, dysymtab, locals_, exports)
        result.symbols = len(table.nlists)
        symoff = append(table.nlists.tobytes())
        indirect_at = append(table.indirect.tobytes()) if len(table.indirect) else 0
        stroff = append(b"".join(table.pieces))
        struct.pack_into("<4I", symtab.data, 8, symoff, len(table.nlists), stroff, size - (stroff - fileoff))
        if dysymtab:
            _write_dysymtab(dysymtab, table, indirect_at)
    place_exports(image, exports, append)
    result.data = b"".join(out)
    out.clear()
    return result


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
    symtab: Command,
    dysymtab: Command | None,
    locals_: SymbolSource | None,
    exports: bytes,
) -> _Table:
    """Return the new symbol table: locals, defined externals with re-exports, undefined; and the indirect table."""
    need(symtab, 24, image)
    dtype = NLIST_64 if image.layout.pointer_size == 8 else NLIST_32
    symoff, nsyms, stroff, strsize = struct.unpack_from("<4I", symtab.data, 8)
    raw = source.view(symoff, nsyms * dtype.itemsize, f"symbol table of {nsyms} entries") if nsyms else b""
    nlists = np.frombuffer(raw, dtype)
    pool = np.frombuffer(source.to_end(stroff, strsize, "string pool"), np.uint8) if nsyms else np.zeros(1, np.uint8)
    local_count, defined_at, defined, undefined_at, undefined = 0, nsyms, 0, nsyms, 0
    indirect = np.zeros(0, np.uint32)
    if dysymtab:
        need(dysymtab, 80, image)
        ilocal, local_count, defined_at, defined, undefined_at, undefined = struct.unpack_from("<6I", dysymtab.data, 8)
        if (
            ilocal + local_count > nsyms
            or defined_at + defined > nsyms
            or undefined_at + undefined > nsyms
            or (undefined and undefined_at < defined_at + defined)
        ):
            raise SharedCacheError(f"{image.what}: symbol ranges of LC_DYSYMTAB lie beyond its {nsyms} symbols")
        indirect_at, indirect_count = struct.unpack_from("<2I", dysymtab.data, 56)
        if indirect_count:
            raw = source.view(indirect_at, indirect_count * 4, f"indirect table of {indirect_count} entries")
            indirect = np.frombuffer(raw, "<u4").copy()

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
            new["strx"], texts, length = gather_strings(part, size)
            arrays.append(new)
            pieces += texts
            size += length
    added = 0
    if reexports := single_reexports(image, exports):
        names, values, text = reexports
        added = len(names)
        new = np.zeros(added, dtype)
        new["type"] = _N_INDR_EXT
        new["strx"], new["value"] = names + size, values + size
        pieces.append(text)
        renamed = arrays.pop()
        arrays += [renamed[: insert_at - first], new, renamed[insert_at - first :]]

    new_locals = len(locals_.nlists) if locals_ is not None else local_count
    # An index counts from the old first symbol kept; special entries are flags, not indices.
    plain = (indirect & _INDIRECT_LOCAL_OR_ABS) == 0
    if plain.any() and int(indirect[plain].max()) >= nsyms:
        raise SharedCacheError(f"{image.what}: the indirect table names symbol {int(indirect[plain].max())} of {nsyms}")
    shift = (new_locals - first) if locals_ is not None else 0
    moved = indirect.astype(np.int64) + shift + np.where(indirect >= insert_at, added, 0)
    # One of the `<redacted>` placeholders, whose places the unmapped locals take: which local it was, nobody knows.
    moved = np.where(indirect < first, _INDIRECT_LOCAL, moved)
    indirect = np.where(plain, moved, indirect).astype(np.uint32)
    return _Table(np.concatenate(arrays), indirect, pieces, new_locals, defined + added, undefined)


def _write_dysymtab(command: Command, table: _Table, indirect_at: int) -> None:
    """Ranges anew; the tables that only object files and old linkers used are gone."""
    start = table.locals
    struct.pack_into(
        "<18I",
        command.data,
        8,
        *(0, start, start, table.defined, start + table.defined, table.undefined),
        *(0, 0, 0, 0, 0, 0),
        *(indirect_at, len(table.indirect)),
        *(0, 0, 0, 0),
    )
