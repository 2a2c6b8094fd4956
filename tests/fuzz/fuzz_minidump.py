"""Hostile minidumps: streams, lists, contexts, texts."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.minidump import read_minidump
from symcache.errors import SymcacheError
from tests.dump.minidump import MiniThread, minidump

__all__ = ["SEEDS", "one_input"]

_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-minidump-"))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)


def SEEDS() -> list[bytes]:
    """Return one of each layout."""
    threads = [MiniThread({"sp": 0x1000, "rsp": 0x1000, "pc": 4, "rip": 4}, 0x1000, b"s" * 32)] * 2
    modules = [(0x1_0000_0000, 0x4000, "/bin/a", UUID(int=5)), (0x2_0000_0000, 0x4000, "/bin/b", None)]
    return [
        minidump(modules, threads, 1, (1, 1, 8)),
        minidump(modules, threads, 1, (1, 1, 8), flags=0x100000),
        minidump(modules, threads, 0, (5, 0x10003, 8), arch="arm64", memory64=True, information=(5, 0x10003, 6)),
        minidump(modules, threads, 0, None, arch="arm64", old=True, padded=True),
    ]


def one_input(data: bytes) -> None:
    """Read `data` as a minidump."""
    path = _SCRATCH / "dump"
    path.write_bytes(data)
    try:
        found = read_minidump(path)
    except SymcacheError:
        return
    if any(s.offset + s.filesize > len(data) for s in found.memory):
        raise AssertionError("memory lies outside of the minidump")
