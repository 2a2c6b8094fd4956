"""Sections of an image: whatever its headers claim, nothing outside of it is named."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from symcache.macho import sections

_TEXT = struct.pack("<16s16s2Q8I", b"__text", b"__TEXT", 0x1000, 64, 400, 0, 0, 0, 0, 0, 0, 0)
_BSS = struct.pack("<16s16s2Q8I", b"__bss", b"__TEXT", 0x1000, 64, 0, 0, 0, 0, 1, 0, 0, 0)
_SEGMENT = struct.pack("<2I16s4Q4I", 0x19, 72 + 160, b"__TEXT", 0, 0x1000, 0, 512, 7, 7, 2, 0) + _TEXT + _BSS
_IMAGE = struct.pack("<8I", 0xFEEDFACF, 0x0100_0007, 3, 6, 1, len(_SEGMENT), 0, 0) + _SEGMENT
"""A header, LC_SEGMENT_64 and two section_64, as <mach-o/loader.h> has them."""


def test_sections_with_bytes_are_found() -> None:
    (found,) = sections(_IMAGE, 512)
    assert (found.segname, found.sectname, found.offset, found.size) == ("__TEXT", "__text", 400, 64)
    assert not list(sections(_IMAGE, 463))  # its last byte is missing


@given(st.lists(st.tuples(st.integers(0, len(_IMAGE) - 1), st.integers(0, 255)), max_size=12), st.integers(0, 400))
def test_nothing_outside_is_named(changes: list[tuple[int, int]], length: int) -> None:
    head = bytearray(_IMAGE)
    for position, value in changes:
        head[position] = value
    for data in (bytes(head), bytes(head[:length])):
        for section in sections(data, 512):
            assert 0 <= section.offset <= section.offset + section.size <= 512
