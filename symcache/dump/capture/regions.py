"""Which memory a dump keeps: the stacks of all threads, or everything that can be read."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from symcache.dump.capture.task import Region, ThreadCapture

__all__ = ["Kept", "choose"]

_RED_ZONE = 128
"""Both ABIs let a function use this much below its stack pointer."""
_MAX_STACK = 64 << 20
_PAGE = 0x4000
_READ = 1


class Kept(NamedTuple):
    """A region, or a part of one, and whether its content is kept."""

    address: int
    size: int
    protection: int
    kept: bool


def choose(regions: Iterable[Region], threads: Sequence[ThreadCapture], *, everything: bool = False) -> list[Kept]:
    """Return all regions in order of address, with those marked whose content is wanted.

    A stack is the region of a thread's stack pointer and what is tagged as stack right behind it; of one that is
    absurdly large only the part from the stack pointer on is kept.
    """
    ordered = sorted(r for r in regions if r.size)
    if everything:
        return [Kept(r.address, r.size, r.protection, bool(r.protection & _READ)) for r in ordered]
    starts = [r.address for r in ordered]
    wanted: dict[int, int] = {}
    """Number of the region to the lowest address that is wanted of it."""
    for thread in threads:
        lowest = max(thread.stack_pointer - _RED_ZONE, 0)
        number = bisect.bisect_right(starts, lowest) - 1
        if number < 0 or lowest >= ordered[number].end:  # the stack pointer is at the very start of its region, or wild
            lowest = thread.stack_pointer
            number = bisect.bisect_right(starts, lowest) - 1
            if number < 0 or lowest >= ordered[number].end:
                continue
        size = 0
        while number < len(ordered) and size < _MAX_STACK:
            region = ordered[number]
            if not region.protection & _READ:
                break
            wanted[number] = min(wanted.get(number, lowest), lowest)
            size += region.size
            number += 1
            if number < len(ordered) and not (ordered[number].is_stack and ordered[number].address == region.end):
                break
    chosen: list[Kept] = []
    for number, region in enumerate(ordered):
        address, size, protection, _ = region
        if number not in wanted:
            chosen.append(Kept(address, size, protection, False))
        elif size <= _MAX_STACK:
            chosen.append(Kept(address, size, protection, True))
        else:
            begin = max(address, wanted[number] - wanted[number] % _PAGE)
            end = min(begin + _MAX_STACK, region.end)
            parts = ((address, begin, False), (begin, end, True), (end, region.end, False))
            chosen += [Kept(a, b - a, protection, kept) for a, b, kept in parts if b > a]
    return chosen
