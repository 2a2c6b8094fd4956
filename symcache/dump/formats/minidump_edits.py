"""Changes to a copy of a minidump by which LLDB makes the most of it.

Sources: MINIDUMP_MEMORY_INFO_LIST, MINIDUMP_EXCEPTION (minidumpapiset.h); exception types (<mach/exception_types.h>);
CONTEXT (winnt.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from symcache.dump.formats.minidump import DIRECTORY, HEADER, REGIONS
from symcache.dump.formats.minidump_contexts import FLAGS_AT, WHOLE

__all__ = ["add_regions", "name_parts", "stop_at_exception"]

_REGION = struct.Struct("<2QI4xQ3I4x")
_COMMITTED, _PAGE_READONLY, _MEM_IMAGE = 0x1000, 2, 0x0100_0000
_EXC_CRASH = 10


def add_regions(path: Path, regions: Sequence[tuple[int, int]]) -> None:
    """Append a list of regions (address, size) to a minidump that has none: memory that may be read, and not executed.

    The file must be a copy of one that `read_minidump` has taken. Raises OSError.
    """
    with path.open("r+b") as file:
        _, _, count, offset = HEADER.unpack(file.read(HEADER.size))
        file.seek(offset)
        directory = file.read(count * DIRECTORY.size)
        end = file.seek(0, os.SEEK_END)
        listed = bytes(-end % 8) + struct.pack("<2IQ", 16, _REGION.size, len(regions))
        listed += b"".join(
            _REGION.pack(address, address, _PAGE_READONLY, size, _COMMITTED, _PAGE_READONLY, _MEM_IMAGE)
            for address, size in regions
        )
        start = end + -end % 8
        directory += DIRECTORY.pack(REGIONS, end + len(listed) - start, start)
        file.write(listed + directory)
        file.seek(8)
        file.write(struct.pack("<2I", count + 1, end + len(listed)))


def stop_at_exception(path: Path, place: int) -> None:
    """Make the exception, whose type is at `place`, one at which LLDB stops. Raises OSError."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<I", _EXC_CRASH))


def name_parts(path: Path, contexts: Iterable[int]) -> None:
    """Say of x86_64 contexts, by where they lie, that all their parts are there. Raises OSError."""
    with path.open("r+b") as file:
        for place in contexts:
            file.seek(place + FLAGS_AT)
            file.write(struct.pack("<I", WHOLE))
