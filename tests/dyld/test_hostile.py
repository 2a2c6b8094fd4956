"""Whatever bytes a cache has: an error of our own, in bounded time and memory."""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dyld.hostile import apple_bases, bases, extract_everything, own_bases

_MOST_SECONDS = 20
_INTERESTING = [
    0,
    1,
    7,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 63,
    (1 << 64) - 1,
    0x4000,
]

_records = st.builds(
    lambda kind, region, offset, value: struct.pack("<BBIQ", kind, region, offset, value),
    st.sampled_from([0, 1, 2, 2, 2, 3, 3, 4, 5]),
    st.integers(0, 255),
    st.one_of(st.integers(0, 0x200).map(lambda n: n * 4), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.sampled_from(_INTERESTING), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 24)),
)
_programs = st.lists(_records, min_size=1, max_size=5).map(b"".join)


def test_the_bases_are_whole() -> None:
    for base in bases():
        assert extract_everything(base.main, base.files) > 0


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 100), _programs, st.booleans())
def test_changed_and_cut_caches_only_ever_raise_our_own_errors(number: int, program: bytes, partial: bool) -> None:
    base = bases()[number % len(bases())]
    start = time.process_time()  # whatever else the machine is busy with
    extract_everything(base.main, base.patched(program), partial=partial)
    assert time.process_time() - start < _MOST_SECONDS


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_programs)
def test_memory_stays_near_the_size_of_the_files(program: bytes) -> None:
    base = bases()[0]
    files = base.patched(program)
    tracemalloc.start()
    try:
        extract_everything(base.main, files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


_CUTS = [0, 1, 15, 16, 0x27, 0x28, 0x1FF, 0x200, 0x4000]


@pytest.mark.parametrize("cut", _CUTS)
def test_every_file_of_a_cache_may_be_cut_anywhere(cut: int) -> None:
    for base in (*own_bases(), *apple_bases()[_CUTS.index(cut) % 5 :: 5]):
        for name, data in base.files.items():
            for length in (cut, len(data) - cut - 1, len(data) // 2 + cut):
                extract_everything(base.main, {**base.files, name: data[: max(length, 0)]})
                extract_everything(base.main, {**base.files, name: data[: max(length, 0)]}, partial=True)
