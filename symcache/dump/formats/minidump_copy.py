"""A copy of a minidump by which LLDB makes the most of it.

LLDB refuses a minidump for one stream that is not there whole, lists what is twice not at all, and takes registers for
zeros whose flags it does not expect. The copy has lists of its own behind everything else, of what was found good.

Sources: MINIDUMP_* (minidumpapiset.h); LLDB's MinidumpParser and LLVM's MinidumpFile, which read it.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from symcache.dump.formats.core import Segment
from symcache.dump.formats.minidump import (
    MEMORY,
    MEMORY64,
    MISC,
    MODULES,
    RANGE,
    REGIONS,
    SYSTEM,
    THREADS,
    Minidump,
)
from symcache.dump.formats.minidump_exceptions import stopping
from symcache.dump.formats.minidump_streams import DIRECTORY, EXCEPTION

__all__ = ["write_copy"]

_THREAD = struct.Struct("<I20xQ4I")
_REGION = struct.Struct("<2QI4xQ3I4x")
_COMMITTED, _MEM_PRIVATE = 0x1000, 0x2_0000
_PAGES = {1: 0x02, 3: 0x04, 5: 0x20}
"""PAGE_READONLY, PAGE_READWRITE, PAGE_EXECUTE_READ by VM_PROT bits."""
_STREAMS_AT = 8
"""Offset of number and place of the directory's entries in the header."""
_MAX_PLACE = 1 << 32


def write_copy(source: Path, target: Path, minidump: Minidump, regions: Sequence[Segment]) -> bool:
    """Write a copy of the minidump, as it was read, to `target`; return whether it could be: it must be below 4 GiB.

    `regions` are listed as what memory there is; if there are none, a list of regions that is there stays. Raises
    OSError.
    """
    if source.stat().st_size >= _MAX_PLACE - _needed(minidump, regions):
        return False
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        _Copy(file, minidump).write(regions)
    return True


def _needed(minidump: Minidump, regions: Sequence[Segment]) -> int:
    """Return an upper bound of the bytes that are added."""
    return 4096 * (1 + len(minidump.threads)) + 128 * (len(minidump.modules) + len(minidump.memory) + len(regions))


class _Copy:
    def __init__(self, file: BinaryIO, minidump: Minidump) -> None:
        self._file, self._minidump = file, minidump
        self._size = file.seek(0, os.SEEK_END)
        self._directory = b""

    def write(self, regions: Sequence[Segment]) -> None:
        minidump = self._minidump
        near = [s for s in minidump.memory if s.offset < _MAX_PLACE and s.filesize < _MAX_PLACE]
        kept = {SYSTEM, MISC} | (set() if regions else {REGIONS})
        if len(near) < len(minidump.memory):
            kept.add(MEMORY64)
        for kind in sorted(kept & minidump.streams.keys()):
            place, size = minidump.streams[kind]
            if place + size <= self._size:
                self._directory += DIRECTORY.pack(kind, size, place)
        contexts = [
            one.context if one.rewritten is None else (len(one.rewritten), self._append(one.rewritten))
            for one in minidump.entries
        ]
        threads = [
            _THREAD.pack(one.identity, 0, 0, 0, *context)
            for one, context in zip(minidump.entries, contexts, strict=True)
        ]
        self._add_list(THREADS, threads)
        self._add_list(MODULES, [module.entry for module in minidump.modules])
        self._add_list(MEMORY, [RANGE.pack(s.address, s.filesize, s.offset) for s in near])
        if minidump.raised and minidump.crashed is not None:
            self._add(EXCEPTION, stopping(minidump.raised, contexts[minidump.crashed]))
        if regions:
            listed = struct.pack("<2IQ", 16, _REGION.size, len(regions)) + b"".join(
                _REGION.pack(s.address, s.address, page, s.size, _COMMITTED, page, _MEM_PRIVATE)
                for s in regions
                for page in (_PAGES[s.protection],)
            )
            self._add(REGIONS, listed)
        place = self._append(self._directory)
        self._file.seek(_STREAMS_AT)
        self._file.write(struct.pack("<2I", len(self._directory) // DIRECTORY.size, place))

    def _add_list(self, kind: int, entries: Sequence[bytes]) -> None:
        self._add(kind, struct.pack("<I", len(entries)) + b"".join(entries))

    def _add(self, kind: int, stream: bytes) -> None:
        self._directory += DIRECTORY.pack(kind, len(stream), self._append(stream))

    def _append(self, data: bytes) -> int:
        end = self._file.seek(0, os.SEEK_END)
        self._file.write(bytes(-end % 8) + data)
        return end + -end % 8
