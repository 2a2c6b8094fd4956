"""Which modules a dump's stacks point into: what is fetched before anything else, and what is not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from symcache.dump import OpenedDump, read_core
from symcache.dump.stack_modules import modules_of_addresses, modules_of_stacks
from tests.dump.builder import ARM64, CoreFile, Region, arm_thread, x86_thread

CODE = [(0x1_0000_0000 + n * 0x10_0000, 0x8000) for n in range(8)]
"""Modules' code, with room between."""
STACK, SIGNALS, HEAP = 0x7000_0000_0000, 0x7000_1000_0000, 0x6000_0000_0000


def inside(number: int) -> int:
    return CODE[number][0] + 0x1234


def words(size: int, **places: int) -> bytes:
    """Return memory with words at places, `at_40=…`."""
    data = bytearray(size)
    for place, value in places.items():
        struct.pack_into("<Q", data, int(place.removeprefix("at_"), 16), value)
    return bytes(data)


def needed(tmp_path: Path, regions: list[Region], *threads: bytes, crashed: int = 0, **core: Any) -> set[int]:
    path = tmp_path / "core"
    code = [Region(address, size) for address, size in CODE]
    path.write_bytes(CoreFile(regions=[*code, *regions], threads=list(threads), **core).bytes())
    read = read_core(path)
    return modules_of_stacks(OpenedDump(path, None, read, path), crashed, read, CODE)


def test_program_counter_and_words_from_the_stack_pointer_on(tmp_path: Path) -> None:
    stack = words(0x4000, at_f00=inside(3), at_fc0=inside(4), at_1010=inside(1), at_3ff8=inside(2), at_2001=inside(5))
    thread = x86_thread(rip=inside(0), rsp=STACK + 0x1000, rbp=STACK + 0x1008)
    # 3 is what a function left that has returned; 4 is in the red zone; 5 is not where a word can be.
    assert needed(tmp_path, [Region(STACK, 0x4000, stack, 3)], thread) == {0, 1, 2, 4}


def test_other_threads_count_by_stack_and_counters_only(tmp_path: Path) -> None:
    stack = words(0x4000, at_1010=inside(1), at_3010=inside(2))
    first = x86_thread(rip=inside(0), rsp=STACK + 0x3000, rbx=inside(3))
    second = x86_thread(rip=inside(4), rsp=STACK + 0x1000, rbx=inside(5))
    assert needed(tmp_path, [Region(STACK, 0x4000, stack, 3)], first, second, crashed=1) == {0, 1, 2, 4, 5}


def test_authentication_codes_are_stripped(tmp_path: Path) -> None:
    signed = 0xA5D5_8000_0000_0000
    stack = words(0x1000, at_108=inside(1) | signed, at_200=inside(2))
    thread = arm_thread(pc=inside(0), lr=inside(3) | signed, fp=STACK + 0x100, sp=STACK + 0xF0)
    assert needed(tmp_path, [Region(STACK, 0x1000, stack, 3)], thread, cputype=ARM64, subtype=0) == {0, 1, 2, 3}


def test_frames_lead_from_the_stack_of_signals_to_the_other(tmp_path: Path) -> None:
    signals = words(0x1000, at_100=STACK + 0x800, at_108=inside(1))
    # The signal came to a function without a frame: where it returns to lies below the first frame of this stack.
    stack = words(0x4000, at_700=inside(2), at_808=inside(3), at_2000=inside(4))
    thread = x86_thread(rip=inside(0), rsp=SIGNALS + 0xF0, rbp=SIGNALS + 0x100)
    regions = [Region(STACK, 0x4000, stack, 3), Region(SIGNALS, 0x1000, signals, 3)]
    assert needed(tmp_path, regions, thread) == {0, 1, 2, 3, 4}


def test_a_stack_that_has_overflown(tmp_path: Path) -> None:
    stack = words(0x4000, at_10=inside(2), at_808=inside(1))
    thread = x86_thread(rip=inside(0), rsp=STACK - 0x20, rbp=STACK + 0x800)
    regions = [Region(STACK - 0x1000, 0x1000, protection=0), Region(STACK, 0x4000, stack, 3)]
    assert needed(tmp_path, regions, thread) == {0, 1, 2}


def test_a_frame_pointer_that_is_none_costs_nothing(tmp_path: Path) -> None:
    """Code without frame pointers has anything in there, and a big dump has the heap."""
    heap = words(0x4000, at_100=HEAP + 0x200, at_108=HEAP, at_300=inside(1))
    thread = x86_thread(rip=inside(0), rsp=STACK, rbp=HEAP + 0x100)
    regions = [Region(HEAP, 0x4000, heap, 3), Region(STACK, 0x1000, words(0x1000), 3)]
    assert needed(tmp_path, regions, thread) == {0}


def test_chains_that_never_end(tmp_path: Path) -> None:
    around = words(0x1000, at_100=SIGNALS + 0x100, at_108=inside(1))
    back = words(0x1000, at_100=STACK + 0x100, at_108=inside(2))
    thread = x86_thread(rip=inside(0), rsp=0, rbp=STACK + 0x100)
    assert needed(tmp_path, [Region(STACK, 0x1000, around, 3), Region(SIGNALS, 0x1000, back, 3)], thread) == {0, 1, 2}


@pytest.mark.parametrize("wild", [0, 0x10, (1 << 64) - 1, 1 << 63])
def test_registers_that_lead_nowhere(tmp_path: Path, wild: int) -> None:
    assert needed(tmp_path, [], x86_thread(rip=wild, rsp=wild, rbp=wild)) == set()


def test_a_jump_behind_a_module_is_taken_for_its_data(tmp_path: Path) -> None:
    assert needed(tmp_path, [], x86_thread(rip=sum(CODE[2]) + 0x100)) == {2}


def test_addresses_of_a_report_and_modules_of_one_place() -> None:
    assert modules_of_addresses([inside(1), 5], [*CODE, CODE[1]]) == {1, len(CODE)}
    assert modules_of_addresses([1 << 63], [((1 << 64) - 16, 64), (0, 0)]) == set()
    assert modules_of_addresses([7], []) == set()


def test_words_are_not_looked_at_where_the_frames_are_enough(tmp_path: Path) -> None:
    stack = words(0x1000, at_100=STACK + 0x200, at_108=inside(1), at_208=inside(2), at_180=inside(3))
    thread = x86_thread(rip=inside(0), rsp=STACK, rbp=STACK + 0x100)
    seen: list[set[int]] = []

    def is_enough(modules: set[int]) -> bool:
        seen.append(modules)
        return True

    regions = [Region(STACK, 0x1000, stack, 3)]
    assert needed(tmp_path, regions, thread) == {0, 1, 2, 3}
    core = read_core(tmp_path / "core")
    opened = OpenedDump(tmp_path / "core", None, core, tmp_path / "core")
    assert modules_of_stacks(opened, 0, core, CODE, is_enough) == {0, 1, 2}
    assert seen == [{0, 1, 2}]
