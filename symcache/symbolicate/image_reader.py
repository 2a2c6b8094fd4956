"""What the load commands of one image lead to that names its code: symbols, exports, function starts.

Sources: struct nlist_64 (<mach-o/nlist.h>), LC_FUNCTION_STARTS, S_SYMBOL_STUBS, the exports trie (<mach-o/loader.h>).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld import MachImage, SymbolSource, gather_strings, parse_image, read_exports, walk_exports
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import LC, N, S, Section

__all__ = ["ImageReader", "NamedOffsets", "function_starts"]

_MAX_OFFSET = 0xFFFF_FFFF
_CODE = S.ATTR_PURE_INSTRUCTIONS | S.ATTR_SOME_INSTRUCTIONS
_UNDERSCORE = ord("_")


@dataclass(frozen=True)
class NamedOffsets:
    """Names by offset from the image's header, each offset once, in ascending order."""

    offsets: npt.NDArray[np.uint32]
    names: npt.NDArray[np.uint32]
    """Where each begins in `pool`, without the underscore that C puts in front, and ends with NUL."""
    pool: bytes


class ImageReader:
    """One thin image; offsets are bytes from its header in memory. Raises MachOError."""

    def __init__(self, data: memoryview, what: str) -> None:
        self._what, self.data = what, data
        try:
            self._image: MachImage = parse_image(self.data, what)
        except SharedCacheError as error:
            raise MachOError(str(error)) from None
        text = next((s for s in self._image.segments if s.segname == "__TEXT"), None)
        if text is None:
            raise MachOError(f"{what}: has no __TEXT segment")
        self._base = text.vmaddr
        self._sections: list[Section] = [s for c in self._image.segments.values() for s in c.sections()]
        self._read_symtab()

    def view(self, start: int, size: int, what: str) -> memoryview:
        """Return bytes that a load command names. Raises SharedCacheError where they do not lie in the file."""
        if start + size > len(self.data):
            raise SharedCacheError(f"{self._what}: {what}: {size} bytes at {start:#x} lie outside of the file")
        return self.data[start : start + size]

    def code(self) -> npt.NDArray[np.uint32]:
        """Return (start, end) of each section that has instructions, in ascending order, none over another."""
        bounds = sorted(
            (s.addr - self._base, min(s.addr - self._base + s.size, _MAX_OFFSET))
            for s in self._sections
            if s.flags & _CODE and s.addr >= self._base and s.size
        )
        apart: list[tuple[int, int]] = []
        for start, end in bounds:
            start = max(start, apart[-1][1] if apart else 0)  # noqa: PLW2901
            if start < end:
                apart.append((start, end))
        return np.array(apart, np.uint32).reshape(-1, 2)

    def starts(self) -> npt.NDArray[np.uint32]:
        """Return where functions begin, by LC_FUNCTION_STARTS; none where nothing tells, or it is damaged."""
        command = self._image.find(LC.FUNCTION_STARTS)
        place = command.linkedit_data() if command else None
        try:
            return function_starts(self.view(*place, "function starts")) if place else np.zeros(0, np.uint32)
        except SharedCacheError:
            return np.zeros(0, np.uint32)

    def symbols(self) -> NamedOffsets:
        """Return the symbols that are defined in sections; of several at one place an external one."""
        kind = self._nlists["n_type"]
        # Kernel extensions lie in the upper half, where signed numbers are negative.
        offsets = (self._nlists["n_value"].astype(np.uint64) - np.uint64(self._base)).view(np.int64)
        rows = np.flatnonzero(kind & (N.STAB | N.TYPE) == N.SECT)
        rows = rows[np.argsort(kind[rows] & N.EXT == 0, kind="stable")]
        return self._named(rows, offsets[rows])

    def stubs(self) -> NamedOffsets:
        """Return the stubs through which functions of other images are called, by the names of these."""
        indirect = self._indirect()
        rows, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for section in self._sections:
            inside = 0 <= section.addr - self._base < _MAX_OFFSET
            if inside and section.flags & S.TYPE == S.SYMBOL_STUBS and section.reserved2:
                called = indirect[section.reserved1 :][: section.size // section.reserved2]
                rows.append(called)
                places.append(section.addr - self._base + np.arange(len(called)) * section.reserved2)
        return self._named(np.concatenate(rows), np.concatenate(places))

    def _indirect(self) -> npt.NDArray[np.int64]:
        """Return the indirect symbol table: row numbers of the symbol table, or INDIRECT_SYMBOL_LOCAL and _ABS."""
        command = self._image.find(LC.DYSYMTAB)
        table = command.dysymtab() if command else None
        try:
            raw = self.view(table.indirectsymoff, 4 * table.nindirectsyms, "indirect symbols") if table else b""
        except SharedCacheError:
            raw = b""
        return np.frombuffer(raw, np.dtype(self._image.header.structs.order + "u4")).astype(np.int64)

    def _read_symtab(self) -> None:
        """Set `_nlists` and `_pool`: empty where there is no symbol table, or it is damaged."""
        layout = self._image.header.structs.nlist
        self._nlists, self._pool = np.zeros(0, layout), np.zeros(0, np.uint8)
        command = self._image.find(LC.SYMTAB)
        if command and (table := command.symtab()):
            with suppress(SharedCacheError):
                raw = self.view(table.symoff, table.nsyms * layout.itemsize, "symbol table")
                self._pool = np.frombuffer(self.view(table.stroff, table.strsize, "names of symbols"), np.uint8)
                self._nlists = np.frombuffer(raw, layout)

    def _named(self, rows: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> NamedOffsets:
        """Return the names of symbols at these offsets; at each offset, the first row counts."""
        kept = (rows < len(self._nlists)) & (offsets >= 0) & (offsets < _MAX_OFFSET)
        rows, offsets = rows[kept], offsets[kept]
        places = self._nlists["n_strx"][rows]
        kept = (places < len(self._pool)) & (places > 0)
        offsets, first = np.unique(offsets[kept], return_index=True)
        nlists = self._nlists[rows[kept][first]]
        try:
            places, pieces, _ = gather_strings(SymbolSource(nlists, self._pool, self._what), 0)
        except SharedCacheError:
            return _NOTHING
        gathered = b"".join(pieces) + b"\0"
        names = places + (np.frombuffer(gathered, np.uint8)[places] == _UNDERSCORE)
        return NamedOffsets(offsets.astype(np.uint32), names.astype(np.uint32), gathered)

    def exports(self) -> NamedOffsets:
        """Return the exports that have an address in this image; none where the trie is damaged."""
        try:
            trie = read_exports(self._image, self.view)
            exports = list(walk_exports(trie, self._what)) if trie else []
        except SharedCacheError:
            return _NOTHING
        named: dict[int, bytes] = {}
        for offset, name in sorted((at, name.removeprefix(b"_")) for name, at in exports if at is not None):
            if offset < _MAX_OFFSET and name:
                named.setdefault(offset, name)
        sizes = np.fromiter((len(name) + 1 for name in named.values()), np.int64, len(named))
        return NamedOffsets(
            np.fromiter(named, np.uint32, len(named)),
            (np.cumsum(sizes) - sizes).astype(np.uint32),
            b"".join(name + b"\0" for name in named.values()),
        )


def function_starts(data: memoryview | bytes) -> npt.NDArray[np.uint32]:
    """Return what LC_FUNCTION_STARTS tells: the offset of each function from the header.

    ULEB128 numbers, each the distance from the one before; one of zero ends them.
    """
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 0x80)
    if not len(last):
        return np.zeros(0, np.uint32)
    first = np.concatenate(([0], last[:-1] + 1))
    sizes = last - first + 1
    if len(damaged := np.flatnonzero(sizes > 5)):  # no function is that far away
        first, sizes = first[: damaged[0]], sizes[: damaged[0]]
    values = np.zeros(len(first), np.int64)
    for byte in range(int(sizes.max(initial=0))):
        some = np.flatnonzero(sizes > byte)
        values[some] |= (raw[first[some] + byte].astype(np.int64) & 0x7F) << 7 * byte
    if len(zeros := np.flatnonzero(values == 0)):
        values = values[: zeros[0]]
    offsets = np.cumsum(values)
    return offsets[offsets < _MAX_OFFSET].astype(np.uint32)


_NOTHING = NamedOffsets(np.zeros(0, np.uint32), np.zeros(0, np.uint32), b"")
