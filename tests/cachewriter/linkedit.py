"""The shared __LINKEDIT region: every image's symbols, tries and tables, and one string pool for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.cachewriter.machinput import ADDRESS_STABS, N_SECT, N_STAB, N_TYPE, Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.trie import Export, exports_of, trie_bytes

REDACTED = b"<redacted>"


@dataclass
class Tables:
    """What the load commands of one image point at: offsets in the linkedit region, and sizes."""

    symbols: tuple[int, int] = (0, 0)  # offset, count
    strings: tuple[int, int] = (0, 0)  # offset, size
    indirect: tuple[int, int] = (0, 0)  # offset, count
    function_starts: tuple[int, int] = (0, 0)
    data_in_code: tuple[int, int] = (0, 0)
    exports: tuple[int, int] = (0, 0)
    dysymtab: tuple[int, ...] = ()  # ilocalsym, nlocalsym, iextdefsym, nextdefsym, iundefsym, nundefsym


class StringPool:
    """Strings by content; offset 0 is the empty string."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets: dict[bytes, int] = {b"": 0}

    def add(self, name: bytes) -> int:
        at = self._offsets.get(name)
        if at is None:
            at = self._offsets[name] = len(self.data)
            self.data += name + b"\0"
        return at


def moved_symbols(image: Image, mover: Mover) -> np.ndarray[Any, Any]:
    """The image's nlist entries with cache addresses; n_strx still means the original string table."""
    symbols = image.symbols.copy()
    deltas = np.zeros(256, dtype=np.int64)
    for number, section in enumerate(image.sections, 1):
        segment = image.segment_of(section.addr)
        if segment is None:  # an empty section at the end of its segment
            segment = next((i for i, s in enumerate(image.segments) if section in s.sections), None)
        if segment is not None and number < 256:
            deltas[number] = mover.delta(segment)
    stab = (symbols["type"] & N_STAB) != 0
    moves = np.where(stab, np.isin(symbols["type"], ADDRESS_STABS), (symbols["type"] & N_TYPE) == N_SECT)
    moves &= symbols["sect"] != 0
    value = symbols["value"].astype(np.int64) + np.where(moves, deltas[symbols["sect"]], 0)
    symbols["value"] = value.astype(symbols["value"].dtype)
    return symbols


def moved_exports(image: Image, mover: Mover) -> dict[str, Export]:
    """The image's exports with addresses relative to the header's new place."""
    header = image.text.vmaddr
    result = {}
    for name, export in exports_of(image.exports).items():
        if export.reexport or export.flags & 3 == 2:
            result[name] = export
            continue
        address = mover.moved(header + export.address) - mover.text_delta - header
        resolver = export.resolver and mover.moved(header + export.resolver) - mover.text_delta - header
        result[name] = Export(export.flags, address, resolver)
    return result


@dataclass
class Locals:
    """Local symbols taken out of the images: nlist entries by image, one string pool."""

    entries: list[tuple[int, np.ndarray[Any, Any]]] = field(default_factory=list)
    pool: StringPool = field(default_factory=StringPool)


@dataclass
class Linkedit:
    """Builds one linkedit region; `content` may already hold read-only segments."""

    content: bytearray
    unmap: bool = False
    redact: bool = True
    pool: StringPool = field(default_factory=StringPool)

    def append(self, data: bytes, align: int = 8) -> int:
        self.content += bytes(-len(self.content) % align)
        at = len(self.content)
        self.content += data
        return at

    def _symbols(self, number: int, image: Image, mover: Mover, unmapped: Locals) -> tuple[Any, Any, tuple[int, ...]]:
        """(nlist entries, indirect table, first six dysymtab fields) as the region holds them."""
        symbols, names = moved_symbols(image, mover), image.names
        ranges = image.dysymtab[:6]
        if not self.unmap:
            symbols["strx"] = [self.pool.add(n) for n in names]
            return symbols, image.indirect, ranges
        first, count = ranges[0], ranges[1]
        local = symbols[first : first + count].copy()
        local["strx"] = [unmapped.pool.add(n) for n in names[first : first + count]]
        unmapped.entries.append((number, local))
        kept = local[(local["sect"] == 1) & ((local["type"] & N_STAB) == 0)].copy() if self.redact else local[:0].copy()
        kept["strx"] = self.pool.add(REDACTED) if len(kept) else 0
        rest = np.concatenate([symbols[:first], symbols[first + count :]])
        rest["strx"] = [self.pool.add(n) for n in names[:first] + names[first + count :]]
        shift = len(kept) - count
        indirect = image.indirect.astype(np.int64)
        special = indirect >= 0x40000000
        moved = np.where(indirect >= first + count, indirect + shift, 0)
        fields = (0, len(kept), ranges[2] + shift, ranges[3], ranges[4] + shift, ranges[5])
        return np.concatenate([kept, rest]), np.where(special, indirect, moved).astype("<u4"), fields

    def add_images(self, images: list[tuple[int, Image, Mover]], unmapped: Locals) -> dict[int, Tables]:
        """Append what all images of this region need, table by table, and the string pool last."""
        tables = {number: Tables() for number, _, _ in images}
        for number, image, mover in images:
            trie = trie_bytes(
                {n.encode("utf-8", "surrogateescape"): e.payload() for n, e in moved_exports(image, mover).items()}
            )
            if trie:
                tables[number].exports = (self.append(trie), len(trie))
        for number, image, _ in images:
            if image.function_starts is not None:
                at = self.append(image.function_starts)
                tables[number].function_starts = (at, len(image.function_starts))
        for number, image, _ in images:
            if image.data_in_code is not None:
                tables[number].data_in_code = (self.append(image.data_in_code), len(image.data_in_code))
        indirects = []
        for number, image, mover in images:
            symbols, indirect, fields = self._symbols(number, image, mover, unmapped)
            tables[number].symbols = (self.append(symbols.tobytes()), len(symbols))
            tables[number].dysymtab = fields
            indirects.append((number, indirect))
        for number, indirect in indirects:
            tables[number].indirect = (self.append(indirect.astype("<u4").tobytes(), 4), len(indirect))
        strings = (self.append(bytes(self.pool.data)), len(self.pool.data))
        for table in tables.values():
            table.strings = strings
        return tables
