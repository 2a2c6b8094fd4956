"""A small, varied set of dylibs for caches, compiled for one architecture each and kept for the session."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.cachewriter.options import CacheOptions, DylibInput
from tests.cachewriter.trie import Export, exports_of, trie_bytes
from tests.support.toolchain import need_toolchain

__all__ = ["ALIASES", "PROBES", "host_library", "sample", "samples"]

SOURCES = Path(__file__).with_name("src")
FRAMEWORK = "/System/Library/Frameworks/Segments.framework/Versions/C/Segments"
ALIASES = {
    "/usr/lib/libSystem.dylib": "/usr/lib/libSystem.B.dylib",
    # One byte off the name it stands for, within a character: the trie's edges are cut there.
    "/usr/lib/lib bare \u00e8.dylib": "/usr/lib/lib bare \u00e9.dylib",
    "/System/Library/Frameworks/Segments.framework/Segments": FRAMEWORK,
    "/System/Library/Frameworks/Segments.framework/Versions/Current/Segments": FRAMEWORK,
}
# Exported functions int(int), by image: they read globals in other segments and call through pointers and stubs.
PROBES = {
    "/usr/lib/system/libsystem_base.dylib": ("base_add", "base_word"),
    "/usr/lib/libSystem.B.dylib": ("system_call",),
    "/usr/lib/libplain.dylib": ("plain_probe", "plain_switch"),
    FRAMEWORK: ("segments_probe",),
    "/usr/lib/libweak.dylib": ("weak_probe",),
    "/usr/lib/libthreads.dylib": ("threads_probe",),
}
_TRIPLES = {"arm64_32": "arm64_32-apple-watchos9", "i386": "i386-apple-macos10.13"}
_PLATFORMS = {"arm64_32": ("watchos", "9.0")}


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cachewriter-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(c) for c in command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")


@cache
def _object(arch: str, source: str) -> Path:
    target = _folder() / arch / f"{source}.o"
    target.parent.mkdir(exist_ok=True)
    triple = _TRIPLES.get(arch, f"{arch}-apple-macos12")
    flags = ("-O1", "-ffreestanding", "-fno-stack-protector", "-fno-builtin")
    _run("clang-19", "-target", triple, *flags, "-c", SOURCES / f"{source}.c", "-o", target)
    return target


def _link(arch: str, source: str, path: str, needs: Sequence[Path] = (), *flags: str) -> DylibInput:
    root = _folder() / arch
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if arch == "i386":
        from tests.cachewriter.link386 import link

        link(_object(arch, source), target, path, needs, flags)
        return DylibInput(path, target)
    guard = [_object(arch, "guard")] if arch == "arm64_32" else []
    platform, version = _PLATFORMS.get(arch, ("macos", "12.0"))
    system = ("-arch", arch, "-platform_version", platform, version, version, "-syslibroot", root)
    files = (*guard, _object(arch, source), *needs, *flags, "-o", target)
    _run("ld64.lld-19", *system, "-dylib", "-install_name", path, *files)
    return DylibInput(path, target)


def _linkedit_command(data: bytes | bytearray, wanted: set[int]) -> tuple[int, int]:
    """(command, offset) of the first load command of a kind."""
    bits64 = data[:4] == b"\xcf\xfa\xed\xfe"
    (count,) = struct.unpack_from("<I", data, 16)
    at = 32 if bits64 else 28
    for _ in range(count):
        cmd, size = struct.unpack_from("<II", data, at)
        if cmd in wanted:
            return cmd, at
        at += size
    raise ValueError("no such load command")


def reexport_single(dylib: DylibInput, ordinal: int, names: dict[str, str]) -> None:
    """Make the dylib re-export single symbols (own name to imported name) of its library with that ordinal.

    ld64.lld has no -reexported_symbols_list, so a new exports trie is put behind its __LINKEDIT.
    """
    data = bytearray(dylib.file.read_bytes())
    cmd, at = _linkedit_command(data, {0x22, 0x80000022, 0x80000033})
    where = at + (8 if cmd == 0x80000033 else 40)
    offset, size = struct.unpack_from("<II", data, where)
    exports = exports_of(bytes(data[offset : offset + size]))
    exports |= {own: Export(8, ordinal=ordinal, imported="" if own == other else other) for own, other in names.items()}
    trie = trie_bytes({name.encode(): export.payload() for name, export in exports.items()})
    data += bytes(-len(data) % 8)
    struct.pack_into("<II", data, where, len(data), len(trie))
    data += trie
    at = 32 if data[:4] == b"\xcf\xfa\xed\xfe" else 28
    while data[at + 8 : at + 18] != b"__LINKEDIT":
        at += struct.unpack_from("<I", data, at + 4)[0]
    if data[:4] == b"\xcf\xfa\xed\xfe":
        (fileoff,) = struct.unpack_from("<Q", data, at + 40)
        struct.pack_into("<Q", data, at + 32, (len(data) - fileoff + 0x3FFF) & ~0x3FFF)
        struct.pack_into("<Q", data, at + 48, len(data) - fileoff)
    else:
        (fileoff,) = struct.unpack_from("<I", data, at + 32)
        struct.pack_into("<I", data, at + 28, (len(data) - fileoff + 0x3FFF) & ~0x3FFF)
        struct.pack_into("<I", data, at + 36, len(data) - fileoff)
    dylib.file.write_bytes(data)


def _as_dylinker(dylib: DylibInput) -> None:
    """Turn a dylib into what dyld is: filetype MH_DYLINKER, with LC_ID_DYLINKER for LC_ID_DYLIB."""
    data = bytearray(dylib.file.read_bytes())
    struct.pack_into("<I", data, 12, 7)
    _, at = _linkedit_command(data, {0xD})
    struct.pack_into("<I", data, at, 0xF)
    dylib.file.write_bytes(data)


@cache
def samples(arch: str) -> tuple[DylibInput, ...]:
    """The dylibs of one architecture (a name of `CacheOptions.arch`); skips the test without a compiler."""
    need_toolchain()
    if arch in ("arm64e", "arm64ex1"):
        return samples("arm64")  # relabelled by the writer: lld cannot link signed pointers
    chained = ("-fixup_chains",) if arch in ("x86_64", "arm64") else ()
    base = _link(arch, "base", "/usr/lib/system/libsystem_base.dylib")
    system = _link(arch, "system", "/usr/lib/libSystem.B.dylib", [base.file], "-sub_library", "libsystem_base")
    both = [base.file, system.file]
    plain = _link(arch, "plain", "/usr/lib/libplain.dylib", both)
    segments = _link(arch, "segments", FRAMEWORK, [*both, plain.file], *chained)
    weak = _link(arch, "weak", "/usr/lib/libweak.dylib", both, "-U", "_never_there", *chained)
    threads = _link(arch, "threads", "/usr/lib/libthreads.dylib", both, "-no_data_in_code_info")
    bare = _link(arch, "empty", "/usr/lib/lib bare \u00e9.dylib", both, "-no_function_starts", "-no_uuid")
    dyld = _link(arch, "dyld", "/usr/lib/dyld", both)
    if arch != "i386":
        reexport_single(bare, 1, {"_base_add": "_base_add", "_renamed": "_base_double"})
        _run("llvm-strip-19", "-x", threads.file)
    _as_dylinker(dyld)
    return (base, system, plain, segments, weak, threads, bare, dyld)


def sample(options: CacheOptions) -> list[DylibInput]:
    """The samples that fit to options."""
    return list(samples(options.arch))


@cache
def host_library() -> ctypes.CDLL:
    """The same sources as one library of this machine: what a probe must answer."""
    need_toolchain()
    target = _folder() / "host.so"
    names = ("base", "system", "plain", "segments", "weak", "threads")
    _run("clang-19", "-shared", "-fPIC", "-O1", "-Wno-all", *(SOURCES / f"{n}.c" for n in names), "-o", target)
    return ctypes.CDLL(str(target))
