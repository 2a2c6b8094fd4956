"""Hostile cores: commands, threads, memory, notes, and what is said of their exceptions."""

from __future__ import annotations

import atexit
import io
import shutil
import struct
import tempfile
from pathlib import Path

from symcache.dump import describe_exception, parse_core
from symcache.dump.notes import header_from_notes
from symcache.errors import SymcacheError
from tests.dump.builder import ARM64, CoreFile, Region, arm_thread, small_core, x86_thread

__all__ = ["SEEDS", "one_input"]

_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-core-"))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)


def SEEDS() -> list[bytes]:
    """Return one core of each architecture, with notes."""
    images = struct.pack("<2IQ2I", 1, 1, 4096, 48, 0) + struct.pack("<Q16s2Q2I", 64, b"u" * 16, 0x1000, 0, 0, 0)
    binary = struct.pack("<I16s2Q", 1, b"v" * 16, 0x5000, 0) + b"libz.dylib\0"
    arm = CoreFile(ARM64, 0, [Region(0x1000, 4096, b"s" * 256, 3)], [arm_thread((1, 0x92000046, 0x10), pc=4)])
    noted = CoreFile(
        regions=[Region(0x1000, 16)],
        threads=[x86_thread((14, 6, 8))],
        notes=[(b"all image infos", images), (b"load binary", binary), (b"addrable bits", bytes(16))],
    )
    return [small_core(2).bytes()[:6000], arm.bytes(), noted.bytes()]


def one_input(data: bytes) -> None:
    """Read `data` as a core and describe everything in it."""
    try:
        core = parse_core(io.BytesIO(data), len(data), "fuzz")
        for segment in core.segments:
            if segment.filesize and segment.offset + segment.filesize > len(data):
                raise AssertionError("memory lies outside of the core")
        for thread in core.threads:
            describe_exception(core, thread)
        if core.notes:
            path = _SCRATCH / "core"
            path.write_bytes(data)
            header_from_notes(path, core)
    except SymcacheError:
        pass
