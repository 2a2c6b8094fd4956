"""What a table tells that was made to take memory or time."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from symcache.symbolicate import NONE, SymbolicTable


def _table(inlined_into: list[int]) -> SymbolicTable:
    """Return a table of one function and these locations, of which the last has a range."""
    count = len(inlined_into)
    header = struct.pack("<4sI32s6I16x", b"SYMC", 9, bytes(32), 0, 0, 1, count, 1, 2)
    locations = b"".join(struct.pack("<4I", NONE, line, 0, into) for line, into in enumerate(inlined_into))
    return SymbolicTable(header + struct.pack("<4I", 0, NONE, 0, 1) + locations + struct.pack("<I4x", 16) + b"\1f")


def test_calls_are_followed_to_the_outermost() -> None:
    table = _table([NONE, 0, 1])
    assert table.calls(np.array([2, 0])) == [[(0, NONE, 2), (0, NONE, 1), (0, NONE, 0)], [(0, NONE, 0)]]
    assert table.roots().tolist() == [0]
    assert table.function_name(0) == "f"


@pytest.mark.parametrize("inlined_into", [[1, 0], [NONE, *range(5000)]])
def test_calls_without_end_end(inlined_into: list[int]) -> None:
    table = _table(inlined_into)
    assert [len(chain) for chain in table.calls(np.array([len(inlined_into) - 1]))] == [256]
    with pytest.raises(ValueError, match="4096 deep"):
        table.roots()


def test_another_format_is_refused() -> None:
    for data in (b"", b"SYMC" + bytes(100), b"SYMC" + struct.pack("<I", 10) + bytes(100), bytes(200)):
        with pytest.raises(ValueError, match="table of symbolic"):
            SymbolicTable(data)
