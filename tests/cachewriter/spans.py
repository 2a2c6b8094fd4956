"""Where an image's instructions are."""

from __future__ import annotations

import itertools
import struct

from tests.cachewriter.fixups import uleb
from tests.cachewriter.machinput import Image, Section

__all__ = ["spans"]


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
