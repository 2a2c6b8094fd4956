"""From VM address to bytes, over all mappings of all files of a cache."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import Mapping
from symcache.errors import SharedCacheError

__all__ = ["AddressSpace", "Location"]


class Location(NamedTuple):
    """Where an address lies: in which file and mapping, and how many bytes follow in that mapping."""

    part: CacheFilePart
    mapping: Mapping
    offset: int
    """In the file."""
    available: int


class AddressSpace:
    """The unslid layout of one cache. Addresses are 64-bit VM addresses."""

    def __init__(self, parts: Sequence[CacheFilePart]) -> None:
        rows = sorted(
            ((m.address, m, number) for number, part in enumerate(parts) for m in part.mappings if m.size),
            key=lambda row: row[0],
        )
        for (_, before, i), (_, after, j) in pairwise(rows):
            if before.address + before.size > after.address:
                raise SharedCacheError(
                    f"{parts[j].path}: its mapping at {after.address:#x} overlaps the one at {before.address:#x}"
                    f" of {parts[i].path.name}",
                    hint="the files belong to different caches: copy them all again from one machine",
                )
        self._parts = parts
        self._rows = rows
        self._addresses = [m.address for _, m, _ in rows]
        self.size = sum(m.size for _, m, _ in rows)
        """Bytes that are mapped, over all files."""

    def locate(self, address: int) -> Location | None:
        """Return where an address lies, or None when no file backs it."""
        if not 0 <= address < 1 << 64:
            return None
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        _, mapping, number = self._rows[index]
        inside = address - mapping.address
        if inside >= mapping.size:
            return None
        return Location(self._parts[number], mapping, mapping.file_offset + inside, mapping.size - inside)

    def runs(self, address: int, size: int) -> list[tuple[Location | None, int]]:
        """Split a range where its mapping changes: (where each part lies, its size); None for what nothing backs."""
        found: list[tuple[Location | None, int]] = []
        while size > 0:
            place = self.locate(address)
            if place is None:
                after = bisect_right(self._addresses, address)
                gap = self._addresses[after] - address if after < len(self._rows) else size
                step = min(size, gap)
            else:
                step = min(size, place.available)
            found.append((place, step))
            address += step
            size -= step
        return found

    def unbacked(self, address: int, size: int) -> int:
        """Return how many bytes of a range no file backs."""
        return sum(length for place, length in self.runs(address, size) if place is None)

    def release(self) -> None:
        """Let go of the memory that holds what was read of the files; reading it again brings it back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for part in self._parts:
                part.data.madvise(mmap.MADV_DONTNEED)

    def view(self, address: int, size: int, what: str) -> memoryview:
        """Return `size` bytes at an address, all within one mapping. Raises SharedCacheError naming `what`."""
        found = self.locate(address)
        if found is None:
            raise SharedCacheError(f"{what}: address {address:#x} is in no file of the cache")
        if size > found.available:
            raise SharedCacheError(
                f"{what}: {size:#x} bytes at {address:#x} run over the end of {found.mapping.name} of"
                f" {found.part.path.name}"
            )
        return memoryview(found.part.data)[found.offset : found.offset + size]
