"""Where one image's original addresses lie in the cache, and where its instructions are."""

from __future__ import annotations

import bisect
import itertools
import struct

from tests.cachewriter.fixups import uleb
from tests.cachewriter.machinput import Image, Section


class Mover:
    """Where original addresses of one image lie in the cache: a segment's addresses move by its own distance."""

    def __init__(self, image: Image, addresses: list[int]) -> None:
        self.image = image
        self.addresses = addresses
        order = sorted(range(len(addresses)), key=lambda i: image.segments[i].vmaddr)
        self._starts = [image.segments[i].vmaddr for i in order]
        self._order = order
        self.text_delta = self.delta(next(i for i, s in enumerate(image.segments) if s.name == "__TEXT"))

    def delta(self, segment: int) -> int:
        return self.addresses[segment] - self.image.segments[segment].vmaddr

    def segment(self, address: int) -> int:
        """Index of the segment of an original address; the end of a segment belongs to it when nothing follows."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at >= 0:
            segment = self.image.segments[self._order[at]]
            if segment.vmaddr <= address <= segment.vmaddr + segment.vmsize:
                return self._order[at]
        raise ValueError(f"{self.image.path}: {address:#x} lies in no segment")

    def moved(self, address: int) -> int:
        return address + self.delta(self.segment(address))


def spans(image: Image, section: Section) -> list[tuple[int, int]]:
    """Stretches of instructions: between function starts, without what LC_DATA_IN_CODE names."""
    starts = set()
    at, address = 0, image.text.vmaddr
    payload = image.function_starts or b""
    while at < len(payload):
        delta, at = uleb(payload, at)
        if not delta:
            break
        address += delta
        starts.add(address)
    holes = []
    for offset, length, _ in struct.iter_unpack("<IHH", image.data_in_code or b""):
        begin = image.text.vmaddr + offset - image.text.fileoff
        holes.append((begin, begin + length))
    if section.flags & 0xFF == 8:  # S_SYMBOL_STUBS: each stub for itself
        starts.clear()
    low, high = section.addr, section.addr + section.size
    edges = sorted(
        {low, high, *(a for a in starts if low < a < high), *(e for h in holes for e in h if low < e < high)}
    )
    inside = [(a, b) for a, b in itertools.pairwise(edges)]
    return [(a, b) for a, b in inside if not any(x <= a < y for x, y in holes)]
