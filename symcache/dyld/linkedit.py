"""A new __LINKEDIT for one image, out of the one that all images of a cache share.

Source: symtab_command, dysymtab_command, linkedit_data_command, dyld_info_command (<mach-o/loader.h>), the exports trie
flags of <mach-o/loader.h> (EXPORT_SYMBOL_FLAGS_REEXPORT).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.load_commands import LC, Command, MachImage
from symcache.dyld.symbols import NLIST_32, NLIST_64, SymbolSource, gather_strings
from symcache.dyld.trie import uleb, walk
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
_REEXPORT = 0x08
_N_INDR_EXT = 0x0B
_DYLIB_COMMANDS = {LC.LOAD_DYLIB, LC.LOAD_WEAK_DYLIB, LC.REEXPORT_DYLIB, LC.LOAD_UPWARD_DYLIB, LC.LAZY_LOAD_DYLIB}


@dataclass(slots=True)
class Linkedit:
    """The new segment's bytes and what the self-check expects of them."""

    data: bytes = b""
    symbols: int = 0
    pieces: list[bytes] = field(default_factory=list)


class _Source:
    """The image's view of the shared __LINKEDIT: file offsets of its commands to bytes."""

    def __init__(self, space: AddressSpace, image: MachImage) -> None:
        self._space, self._image = space, image
        self._linkedit = image.linkedit

    def view(self, dataoff: int, size: int, what: str) -> memoryview:
        """Return what a command names. Offsets count from where the segment says its own file offset is."""
        name = f"{self._image.what}: {what}"
        if self._linkedit is None:
            raise SharedCacheError(f"{name}: there is no __LINKEDIT")
        return self._space.view(self._linkedit.vmaddr + dataoff - self._linkedit.fileoff, size, name)

    def to_end(self, dataoff: int, size: int, what: str) -> memoryview:
        """As `view`, but cut where the mapping ends: the shared pool may be claimed larger than it is."""
        linkedit = self._linkedit
        found = self._space.locate(linkedit.vmaddr + dataoff - linkedit.fileoff) if linkedit else None
        return self.view(dataoff, min(size, found.available) if found else size, what)


def rebuild(space: AddressSpace, image: MachImage, locals_: SymbolSource | None, fileoff: int) -> Linkedit:
    """Build the new __LINKEDIT, to lie at `fileoff` of the new file, and point the image's commands at it.

    `locals_` are the image's unmapped local symbols, which are merged in. Raises SharedCacheError.
    """
    source = _Source(space, image)
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
            _need(command, 16, image)
            offset, length = command.u32(8), command.u32(12)
            payload = source.view(offset, length, kind.name) if length else b""
            struct.pack_into("<2I", command.data, 8, append(payload) if length else 0, length)

    exports = _exports(image, source)
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
    _place_exports(image, exports, append)
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
    source: _Source,
    symtab: Command,
    dysymtab: Command | None,
    locals_: SymbolSource | None,
    exports: bytes,
) -> _Table:
    """Return the new symbol table: locals, defined externals with re-exports, undefined; and the indirect table."""
    _need(symtab, 24, image)
    dtype = NLIST_64 if image.layout.pointer_size == 8 else NLIST_32
    symoff, nsyms, stroff, strsize = struct.unpack_from("<4I", symtab.data, 8)
    raw = source.view(symoff, nsyms * dtype.itemsize, f"symbol table of {nsyms} entries") if nsyms else b""
    nlists = np.frombuffer(raw, dtype)
    pool = np.frombuffer(source.to_end(stroff, strsize, "string pool"), np.uint8) if nsyms else np.zeros(1, np.uint8)
    local_count, defined_at, defined, undefined_at, undefined = 0, nsyms, 0, nsyms, 0
    indirect = np.zeros(0, np.uint32)
    if dysymtab:
        _need(dysymtab, 80, image)
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
    if reexports := _reexports(image, exports):
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


def _exports(image: MachImage, source: _Source) -> bytes:
    """Return the exports trie, from its own command or from LC_DYLD_INFO."""
    if command := image.find(LC.DYLD_EXPORTS_TRIE):
        _need(command, 16, image)
        if command.u32(12):
            return bytes(source.view(command.u32(8), command.u32(12), "exports trie"))
    if command := image.find(LC.DYLD_INFO, LC.DYLD_INFO_ONLY):
        _need(command, 48, image)
        if command.u32(44):
            return bytes(source.view(command.u32(40), command.u32(44), "exports trie"))
    return b""


def _place_exports(image: MachImage, exports: bytes, append: Callable[[bytes], int]) -> None:
    """Carry the exports trie over, under one command only: LLDB stops at a file that has both."""
    own = image.find(LC.DYLD_EXPORTS_TRIE)
    at = append(exports) if exports else 0
    if own:
        struct.pack_into("<2I", own.data, 8, at, len(exports))
    if info := image.find(LC.DYLD_INFO, LC.DYLD_INFO_ONLY):
        # Rebase, bind, weak and lazy opcodes were applied when the cache was built.
        struct.pack_into("<10I", info.data, 8, *([0] * 8), 0 if own else at, 0 if own else len(exports))


def _reexports(image: MachImage, exports: bytes) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], bytes] | None:
    """Return (name offsets, target-name offsets, text) of the individually re-exported symbols, or None.

    Whole re-exported dylibs (LC_REEXPORT_DYLIB) are not meant: their symbols are found through the command.
    """
    if not _may_reexport(exports):
        return None
    dylibs = [c.cmd for c in image.commands if c.cmd in _DYLIB_COMMANDS]
    what = f"{image.what}: exports trie"
    names: list[int] = []
    targets: list[int] = []
    text = bytearray()
    for name, payload in walk(exports, what):
        flags, position = uleb(payload, 0, what)
        if not flags & _REEXPORT:
            continue
        ordinal, position = uleb(payload, position, what)
        if 0 < ordinal <= len(dylibs) and dylibs[ordinal - 1] == LC.REEXPORT_DYLIB:
            continue
        imported = payload[position:].partition(b"\0")[0] or name
        names.append(len(text))
        text += name + b"\0"
        targets.append(len(text))
        text += imported + b"\0"
    if not names:
        return None
    return np.array(names, np.uint32), np.array(targets, np.uint32), bytes(text)


def _may_reexport(trie: bytes) -> bool:
    """Return False when no terminal of the trie can be a re-export, without walking its names.

    Such a terminal is a size, a flags byte with bit 3 set, an ordinal and a text that ends in NUL with the payload.
    All places that could be one are looked at together, so that a walk is needed for few images.
    """
    data = np.frombuffer(trie, np.uint8)
    if len(data) < 4:
        return False
    for size_bytes in (1, 2):
        flags_at = np.flatnonzero(data[size_bytes:] & 0xF8 == _REEXPORT) + size_bytes
        size = data[flags_at - size_bytes].astype(np.int64)
        if size_bytes == 2:
            long = (size >= 0x80) & (data[flags_at - 1] < 0x80)
            flags_at, size = flags_at[long], size[long] & 0x7F | data[flags_at[long] - 1].astype(np.int64) << 7
        last = flags_at + size - 1
        fits = (size >= 3) & (last < len(data))
        flags_at, last = flags_at[fits], last[fits]
        ends = data[last] == 0
        # Behind flags and ordinal (one byte, rarely two) such a payload is a name, and some edge leads to its node.
        for flags, end in zip(flags_at[ends].tolist(), last[ends].tolist(), strict=True):
            if b"\0" not in trie[flags + 3 : end] and _has_edge_to(trie, flags - size_bytes):
                return True
    return False


def _has_edge_to(trie: bytes, node: int) -> bool:
    """Return whether an edge, which ends in NUL, is followed by the offset of this node; it may be padded."""
    offset = bytearray()
    while True:
        offset.append(node & 0x7F)
        node >>= 7
        if not node:
            break
        offset[-1] |= 0x80
    padded = offset[:-1] + bytes([offset[-1] | 0x80])
    return b"\0" + offset in trie or b"\0" + padded in trie


def _need(command: Command, size: int, image: MachImage) -> None:
    if len(command.data) < size:
        raise SharedCacheError(f"{image.what}: load command {command.cmd:#x} has {len(command.data)} bytes, not {size}")
