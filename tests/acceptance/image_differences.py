"""What differs between two extractions of one image, of which Apple's leaves pointers as the cache has them.

The forms of these pointers are those of dyld_cache_slide_info2, 3 and 5 (`dyld_cache_format.h`), read here again, so
that our own decoding is not compared with itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.dyld.macho_reader import LC_DATA_IN_CODE, LC_FUNCTION_STARTS, MachO, Segment

__all__ = ["image_differences"]

Words = npt.NDArray[np.uint64]
_SUBTYPE = 0x00FF_FFFF
_INDIRECT = 0xA
_NO_SYMBOL = 0x8000_0000, 0x4000_0000
_LOW_34, _LOW_32, _LOW_43 = (np.uint64((1 << n) - 1) for n in (34, 32, 43))
_DELTAS = np.uint64(0x00FF_FF00_0000_0000), np.uint64(0xFFFF_0000_0000_0000)


def image_differences(ours: MachO, apples: MachO, base: int, text_from: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, what it is about).

    `base` is the address of the cache, `text_from` how many bytes of header and load commands the image has there.
    """
    if (ours.uuid, ours.cputype, ours.cpusubtype & _SUBTYPE) != (
        apples.uuid,
        apples.cputype,
        apples.cpusubtype & _SUBTYPE,
    ):
        yield "another UUID or architecture", {}
    own = [s for s in ours.segments if s.name != "__LINKEDIT"]
    theirs = [s for s in apples.segments if s.name != "__LINKEDIT"]
    if [(s.name, s.vmaddr, s.vmsize) for s in own] != [(s.name, s.vmaddr, s.vmsize) for s in theirs]:
        yield "other segments", {"ours": len(own), "apples": len(theirs)}
        return
    for one, other in zip(own, theirs, strict=True):
        skip = text_from if one.name == "__TEXT" else 0
        if found := _bytes_differing(ours, one, apples, other, base, skip):
            yield "bytes differ", {"segment": one.name, **found}
    yield from _symbols(ours, apples)
    for kind, number in (("function starts differ", LC_FUNCTION_STARTS), ("data in code differs", LC_DATA_IN_CODE)):
        if ours.payload(number) != apples.payload(number):
            yield kind, {"ours": len(ours.payload(number)), "apples": len(apples.payload(number))}


def _bytes_differing(
    ours: MachO, one: Segment, apples: MachO, other: Segment, base: int, skip: int
) -> dict[str, int] | None:
    """Return how many words of a segment differ and where the first is, but for pointers that mean the same."""
    size = -(-one.vmsize // 8) * 8
    a = np.frombuffer(ours.bytes_of(one).ljust(size, b"\0"), "<u8")
    b = np.frombuffer(apples.bytes_of(other).ljust(size, b"\0"), "<u8")
    where = np.flatnonzero(a != b)
    where = where[where * 8 >= skip]
    if one.name != "__TEXT" and where.size:
        where = where[~_same_pointers(a[where], b[where], np.uint64(base))]
    return {"words": int(where.size), "first_offset": int(where[0]) * 8} if where.size else None


def _same_pointers(plain: Words, raw: Words, base: np.uint64) -> npt.NDArray[np.bool_]:
    """Return which of `raw`, words of a cache, mean the addresses in `plain`."""
    signed = raw >> np.uint64(63) != 0
    offset = base + (raw & _LOW_34)
    top = (raw >> np.uint64(34) & np.uint64(0xFF)) << np.uint64(56)
    meant = [np.where(signed, offset, offset | top)]  # slide info 5
    top = (raw >> np.uint64(43) & np.uint64(0xFF)) << np.uint64(56)
    meant.append(np.where(signed, base + (raw & _LOW_32), raw & _LOW_43 | top))  # 3
    for delta in _DELTAS:
        value = raw & ~delta
        meant += [value, value + base]  # 2
    same = np.zeros(len(raw), bool)
    for address in meant:
        same |= plain == address
    return same


def _symbols(ours: MachO, apples: MachO) -> Iterator[tuple[str, dict[str, Any]]]:
    own, theirs = Counter(_lines(ours)), Counter(_lines(apples))
    if own != theirs:
        yield "symbols differ", {"only_ours": (own - theirs).total(), "only_apples": (theirs - own).total()}
    names, others = _indirect(ours), _indirect(apples)
    # What is flagged as local names no symbol; Apple's extractor moves its low bits all the same.
    wrong = sum(a != b for a, b in zip(names, others, strict=False))
    if len(names) != len(others) or wrong:
        yield "indirect symbols differ", {"ours": len(names), "apples": len(others), "wrong": wrong}


def _lines(image: MachO) -> Iterator[tuple[str | int, ...]]:
    for s in image.symbols:
        value = image.string(s.value) if s.type & 0xE == _INDIRECT else s.value
        yield s.name, s.type, s.sect, s.desc, value


def _indirect(image: MachO) -> list[str]:
    symbols = image.symbols
    return ["" if any(i & flag for flag in _NO_SYMBOL) else symbols[i].name for i in image.indirect]
