"""Where one image's original addresses lie in the cache."""

from __future__ import annotations

import bisect

from tests.cachewriter.adrp_flow import Pair
from tests.cachewriter.machinput import Image


class Mover:
    """Where original addresses of one image lie in the cache: a segment's addresses move by its own distance."""

    def __init__(self, image: Image, addresses: list[int], pairs: list[Pair] | None = None) -> None:
        self.image = image
        self.pairs = pairs  # of arm64 code that may move by any distance
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
