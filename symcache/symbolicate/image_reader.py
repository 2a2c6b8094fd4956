"""What the load commands of one image lead to that names its code: symbols, exports, function starts.

Sources: struct nlist_64 (<mach-o/nlist.h>), LC_FUNCTION_STARTS, S_SYMBOL_STUBS, the exports trie (<mach-o/loader.h>).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.dyld import MachImage, SymbolSource, gather_strings, parse_image, read_exports, uleb, walk
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import LC, N, S, Section, Slice

__all__ = ["ImageReader", "NamedOffsets", "function_starts"]

_MAX_OFFSET = 0xFFFF_FFFF
_CODE = S.ATTR_PURE_INSTRUCTIONS | S.ATTR_SOME_INSTRUCTIONS
_REEXPORT, _ABSOLUTE, _KIND = 0x08, 0x02, 0x03
_INDIRECT_LOCAL = 0x8000_0000 | 0x4000_0000  # INDIRECT_SYMBOL_LOCAL, INDIRECT_SYMBOL_ABS
_UNDERSCORE = ord("_")


@dataclass(frozen=True)
class NamedOffsets:
    """Names by offset from the image's header, each offset once, in ascending order."""

    offsets: npt.NDArray[np.uint32]
    names: npt.NDArray[np.uint32]
    """Where each begins in `pool`, without the underscore that C puts in front, and ends with NUL."""
    pool: bytes


class ImageReader:
    """One image in a file that is mapped; offsets are bytes from its header in memory. Raises MachOError."""

    def __init__(self, data: mmap.mmap, image: Slice, what: str) -> None:
        self._what, self.data = what, memoryview(data)[image.offset : image.offset + image.size]
        try:
            self._image: MachImage = parse_image(self.data, what)
        except SharedCacheError as error:
            raise MachOError(str(error)) from None
        text = next((s for s in self._image.segments if s.segname == "__TEXT"), None)
        if text is None:
            raise MachOError(f"{what}: has no __TEXT segment")
        self.text_size = min(text.vmsize, _MAX_OFFSET)
        self._base = text.vmaddr
        self._sections: list[Section] = [s for c in self._image.segments.values() for s in c.sections()]

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
        """Return the symbols that are defined in sections, and those of stubs; of several at one place an external one.

        None where the table is damaged.
        """
        command = self._image.find(LC.SYMTAB)
        table = command.symtab() if command else None
        if not table:
            return _NOTHING
        layout = self._image.header.structs.nlist
        try:
            raw = self.view(table.symoff, table.nsyms * layout.itemsize, "symbol table")
            pool = self.view(table.stroff, table.strsize, "names of symbols")
        except SharedCacheError:
            return _NOTHING
        nlists = np.frombuffer(raw, layout)
        offsets = nlists["n_value"].astype(np.int64) - np.int64(self._base)
        kind = nlists["n_type"]
        kept = (kind & (N.STAB | N.TYPE) == N.SECT) & (nlists["n_strx"] < len(pool)) & (nlists["n_strx"] > 0)
        kept &= (offsets >= 0) & (offsets < _MAX_OFFSET)
        rows = np.flatnonzero(kept)
        rows = rows[np.lexsort((rows, kind[rows] & N.EXT == 0, offsets[rows]))]
        return self._distinct(nlists[rows], offsets[rows], np.frombuffer(pool, np.uint8))

    def _distinct(
        self, nlists: npt.NDArray[np.void], offsets: npt.NDArray[np.int64], pool: npt.NDArray[np.uint8]
    ) -> NamedOffsets:
        """Return the first name at each of the sorted `offsets`."""
        first = np.flatnonzero(np.diff(offsets, prepend=-1))
        nlists, offsets = nlists[first], offsets[first]
        try:
            places, pieces, _ = gather_strings(SymbolSource(nlists, pool, self._what), 0)
        except SharedCacheError:
            return _NOTHING
        gathered = b"".join(pieces) + b"\0"
        names = places + (np.frombuffer(gathered, np.uint8)[places] == _UNDERSCORE)
        return NamedOffsets(offsets.astype(np.uint32), names.astype(np.uint32), gathered)

    def exports(self) -> NamedOffsets:
        """Return the exports that have an address in this image; none where the trie is damaged."""
        entries: list[tuple[int, bytes]] = []
        try:
            trie = read_exports(self._image, self.view)
            for name, payload in walk(trie, self._what) if trie else ():
                flags, position = uleb(payload, 0, self._what)
                if not flags & _REEXPORT and flags & _KIND != _ABSOLUTE:
                    entries.append((uleb(payload, position, self._what)[0], name.removeprefix(b"_")))
        except SharedCacheError:
            return _NOTHING
        named: dict[int, bytes] = {}
        for offset, name in sorted(entries):
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
