"""Hostile dumps: zip, XML header and core together, and the header alone."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from pathlib import Path

from symcache.dump import open_dump, parse_header
from symcache.errors import SymcacheError
from tests.dump.builder import MODULE, Module, header, small_core, zipped

__all__ = ["SEEDS", "one_input"]

_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-container-"))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
_MOST = 64 << 20
"""Bytes that an input of a few kilobytes may grow to on disk."""


def SEEDS() -> list[bytes]:
    """Return a dump, compressed and not, a bare core, and headers with every element."""
    core = small_core(2).bytes()[:8192]
    noted = '<m_strOSBuild>22G1</m_strOSBuild><m_cacheuuid val="0123456789abcdef0123456789abcdef"/>'
    modules = [MODULE, Module(0x2000, "/usr/lib/dyld", "23516BE4-29BE-350C-91C9-F36E7999F0F1", 7), Module(1)]
    whole = header(modules, extra=noted + '<m_pvCacheStart val="4096"/>', thread=1)
    return [zipped(whole + small_core(2).bytes()), zipped(header([MODULE]) + core, method=0), core, whole]


def one_input(data: bytes) -> None:
    """Open `data` as a dump, then read it as a header."""
    path = _SCRATCH / "dump"
    path.write_bytes(data)
    (_SCRATCH / "core").unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dump = open_dump(path, _SCRATCH)
        if dump.header and dump.header.thread >= len(dump.core.threads):
            raise AssertionError("the crashed thread is none of the core's")
    except SymcacheError:
        if (_SCRATCH / "core").exists():
            raise AssertionError("a refused dump left its core behind") from None
    if {p.name for p in _SCRATCH.iterdir()} - {"dump", "core"}:
        raise AssertionError("a dump wrote somewhere else")
    if (_SCRATCH / "core").exists() and (_SCRATCH / "core").stat().st_blocks * 512 > _MOST:
        raise AssertionError("a small dump took much room")
    try:
        parse_header(data, "fuzz")
    except SymcacheError:
        pass
