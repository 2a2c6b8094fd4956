"""Hostile cores: commands, threads, memory, notes, images in the memory, and what is said of their exceptions."""

from __future__ import annotations

import atexit
import io
import shutil
import struct
import tempfile
from pathlib import Path

from symcache.dump import describe_exception, parse_core
from symcache.dump.formats.notes import header_of_core
from symcache.errors import SymcacheError
from tests.dump.builder import ARM64, X86_64, CoreFile, Region, arm_thread, small_core, structured, x86_thread

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
    laid_out = [
        CoreFile(X86_64, threads=[structured(X86_64, x86_thread((14, 6, 8), rip=4), b"\x09\0\0\0")]),
        CoreFile(ARM64, threads=[structured(ARM64, arm_thread((1, 0x92000046, 0x10), pc=4), b"\x07\0\0\0\4\0\0\0")]),
    ]
    seeds = [small_core(2).bytes()[:6000], arm.bytes(), noted.bytes(), *(core.bytes() for core in laid_out)]
    return [*seeds, *_with_images()]


def _with_images() -> list[bytes]:
    """Return cores without notes, whose memory holds dyld with a list of images; in the last dyld has no header."""
    text, data = 0x1_0000_0000, 0x1_0000_1000
    section = struct.pack("<16s16sQ40x", b"__all_image_info", b"__DATA", 0x1000)
    commands = struct.pack("<2I16s4Q4I", 0x19, 72, b"__TEXT", 0, 0x1000, 0, 0x1000, 5, 5, 0, 0)
    commands += struct.pack("<2I16s4Q4I", 0x19, 152, b"__DATA", 0x1000, 0x1000, 0x1000, 0x1000, 3, 3, 1, 0) + section
    commands += struct.pack("<2I16s", 0x1B, 24, b"u" * 16) + struct.pack("<3I20s", 0xF, 32, 12, b"/usr/lib/dyld")
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100_000C, 0, 7, 4, len(commands), 0, 0) + commands
    infos = struct.pack("<IIQQ8xQ", 17, 2, data + 256, 0, text).ljust(88, b"\0") + struct.pack(
        "<3Q", 1, data + 320, data
    )
    infos = infos.ljust(160, b"\0") + struct.pack("<16sQ", b"c" * 16, 0x1_8000_0000)
    lists = infos.ljust(256, b"\0") + struct.pack("<6Q", text, data + 400, 0, 0x1_0000_2000, data + 409, 0)
    lists = lists.ljust(320, b"\0") + struct.pack("<Q16s", text, b"v" * 16)
    lists = lists.ljust(400, b"\0") + b"/bin/ls\0\0/lib/x\0".ljust(3696, b"\0")
    dylib = header[:12] + struct.pack("<I", 6) + header[16:]
    return [
        CoreFile(
            *(
                0x0100_000C,
                0,
                [Region(text, 4096, first, 5), Region(data, 4096, second, 3), Region(data + 4096, 4096, dylib)],
            ),
            [arm_thread(pc=4)],
        ).bytes()
        for first, second in ((header, lists), (header, b""), (b"", lists), (dylib, b"x"))
    ]


def one_input(data: bytes) -> None:
    """Read `data` as a core and describe everything in it."""
    try:
        core = parse_core(io.BytesIO(data), len(data), "fuzz")
        for segment in core.segments:
            if segment.filesize and segment.offset + segment.filesize > len(data):
                raise AssertionError("memory lies outside of the core")
        for thread in core.threads:
            describe_exception(core, thread)
        path = _SCRATCH / "core"
        path.write_bytes(data)
        header_of_core(path, core)
    except SymcacheError:
        pass
