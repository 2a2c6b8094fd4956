"""Which memory is kept."""

from __future__ import annotations

import pytest

from symcache.dump.capture import Region, ThreadCapture
from symcache.dump.capture.regions import Kept, choose

RW, RX = 3, 5
MIB = 1 << 20


def _thread(pointer: int) -> ThreadCapture:
    return ThreadCapture(1, pointer, ())


def test_only_stacks_are_kept() -> None:
    regions = [Region(0x1000, 0x1000, RX), Region(0x8000, 0x4000, RW, True), Region(0x20000, 0x1000, RW)]
    assert choose(regions, [_thread(0x9000)]) == [
        Kept(0x1000, 0x1000, RX, False),
        Kept(0x8000, 0x4000, RW, True),
        Kept(0x20000, 0x1000, RW, False),
    ]


def test_a_stack_in_several_tagged_regions_is_kept_whole() -> None:
    regions = [
        Region(0x4000, 0x4000, 0, True),
        Region(0x8000, 0x4000, RW, True),
        Region(0xC000, 0x4000, RW, True),
        Region(0x10000, 0x4000, RW),
    ]
    assert [k.kept for k in choose(regions, [_thread(0x9000)])] == [False, True, True, False]


def test_a_stack_pointer_at_the_very_start_of_its_region_counts() -> None:
    regions = [Region(0x8000, 0x4000, RW)]
    assert [k.kept for k in choose(regions, [_thread(0x8000)])] == [True]


@pytest.mark.parametrize("pointer", [0, 1, 0x7FFF, 0xC000, (1 << 64) - 1])
def test_a_wild_stack_pointer_keeps_nothing_and_harms_nothing(pointer: int) -> None:
    assert [k.kept for k in choose([Region(0x8000, 0x1000, RW)], [_thread(pointer)])] == [False]


def test_an_absurdly_large_stack_is_kept_from_its_pointer_on() -> None:
    region = Region(1 << 32, 1024 * MIB, RW, True)
    pointer = (1 << 32) + 512 * MIB
    parts = choose([region], [_thread(pointer)])
    assert [p.kept for p in parts] == [False, True, False]
    assert sum(p.size for p in parts) == region.size
    assert parts[1].size == 64 * MIB
    assert parts[1].address <= pointer - 128 < parts[1].address + 0x8000


def test_unreadable_memory_is_never_kept() -> None:
    regions = [Region(0x8000, 0x4000, 0), Region(0xC000, 0x4000, RX)]
    assert [k.kept for k in choose(regions, [_thread(0x9000)], everything=True)] == [False, True]
