"""What a minidump says in its streams: system, threads, modules, exception, and which memory it holds.

Sources: MINIDUMP_* (minidumpapiset.h); for Mac processes Breakpad's minidump_format.h: platform ids, Mach exceptions in
the exception stream, macOS's build as the service pack's name;
LLDB's MinidumpFileBuilder, which writes UUIDs as ELF build ids are written and exceptions in words.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import UUID

from symcache.crash import CrashException
from symcache.dump.formats.core import CoreThread, Segment
from symcache.dump.formats.exceptions import mach_exception
from symcache.dump.formats.header import DumpModule
from symcache.dump.formats.minidump_contexts import MAX_CONTEXT, arm64_context, is_partless, x86_64_context
from symcache.errors import DumpError
from symcache.macho import CPU_TYPE
from symcache.text import printable

__all__ = ["Minidump", "MinidumpModule", "is_minidump", "read_minidump"]

_THREADS, _MODULES, _MEMORY, _EXCEPTION, _SYSTEM, _MEMORY64, _NAMES = 3, 4, 5, 6, 7, 9, 24
REGIONS = 16
_SIGNATURE, _VERSION = b"MDMP", 0xA793
HEADER = struct.Struct("<4s3I")
DIRECTORY = struct.Struct("<3I")
_SYSTEM_INFO = struct.Struct("<3H2x5I")
_THREAD = struct.Struct("<I20xQ4I")
_MODULE = struct.Struct("<QI8xI52x2I")
_RANGE = struct.Struct("<Q2I")
_RANGE64 = struct.Struct("<2Q")
_THREAD_NAME = struct.Struct("<IQ")
_EXCEPTION_STREAM = struct.Struct("<I4x2I8xQI4x15Q2I")
_MODULE_SIZE, _THREAD_SIZE = 108, 48
_MAX_STREAMS = 4096
_MAX_THREADS = 16_384
_MAX_MODULES = 65_536
_MAX_RANGES = 1 << 19
_MAX_TEXT = 4096
_TYPE_AND_CODES = 3
_TYPE_AT = 8
"""Offset of the exception's type in its stream."""
_SOFTWARE, _SOFT_SIGNAL = 5, 0x10003
"""EXC_SOFTWARE, and its code for a signal."""
_STOPPING = frozenset({3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15})
"""Signals at which LLDB stops."""
_LLDB = int.from_bytes(b"LLDB", "big")
"""In the place of the code: LLDB tells in words what stopped the thread."""
_FAULT = re.compile(r"address[:=] ?0x([0-9a-fA-F]{1,16})\b")
_NO_EXCEPTION = "the minidump names no exception"
_CODEVIEW = 20
"""Bytes of signature and UUID."""
_BUILD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ARCHS = {0: "i386", 5: "arm", 9: "x86_64", 12: "arm64", 0x8003: "arm64"}
_CPUS = {"x86_64": CPU_TYPE.X86_64, "arm64": CPU_TYPE.ARM64}
_PLATFORMS = {0x8101: "macOS", 0x8102: "iOS", 0x8201: "Linux", 0x8202: "Solaris", 0x8203: "Android", 0x8205: "Fuchsia"}
_WINDOWS = 4
"""Platform ids below are those of Windows."""


class MinidumpModule(NamedTuple):
    """A loaded image and how many bytes it is said to take."""

    module: DumpModule
    size: int


@dataclass(frozen=True, slots=True)
class Minidump:
    """What a minidump of a Mac process holds."""

    arch: str
    """`x86_64` or `arm64`."""
    cputype: int
    os_version: str
    """Such as `macOS 13.6.9`; empty where it does not say."""
    os_build: str | None
    threads: tuple[CoreThread, ...]
    crashed: int
    """Index of the thread that raised the exception; 0 where none did."""
    exception: CrashException
    modules: tuple[MinidumpModule, ...]
    """In the order of the file, the executable first."""
    memory: tuple[Segment, ...]
    """What it holds of the process's memory, in the order of the file; its offsets are those in the file."""
    has_regions: bool
    """It lists the regions of memory with their protections."""
    names: tuple[str, ...]
    """Of the threads; empty where one has none."""
    passing: int | None
    """Where in the file the type of an exception is at which LLDB would not stop, and wait for another one for ever."""
    partless: frozenset[int]
    """Where in the file contexts are whose flags name none of their parts: LLDB would take all registers for zero."""


def is_minidump(path: Path) -> bool:
    """Return whether a file begins as a minidump does."""
    with path.open("rb") as file:
        return file.read(4) == _SIGNATURE


def read_minidump(path: Path) -> Minidump:
    """Return what a minidump of a Mac process holds; memory is left where it is. Raises DumpError, OSError."""
    with path.open("rb") as file:
        return _Reader(file, str(path)).read()


class _Reader:
    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._size = file.seek(0, os.SEEK_END)
        self._texts: dict[int, str] = {}
        self._partless: set[int] = set()

    def read(self) -> Minidump:
        streams = self._directory()
        if _SYSTEM not in streams:
            raise self._cut("the minidump does not say of what system it is")
        processor, _, _, major, minor, patch, platform, build_at = _SYSTEM_INFO.unpack(
            self._at(streams[_SYSTEM][0], _SYSTEM_INFO.size, "system information")
        )
        arch = _ARCHS.get(processor, f"processor {processor}")
        system = "Windows" if platform < _WINDOWS else _PLATFORMS.get(platform, f"platform {platform:#x}")
        if arch not in _CPUS or system != "macOS":
            raise DumpError(
                f"{self._name}: is a minidump of {system} on {arch}",
                hint="minidumps of Mac processes on x86_64 and arm64 can be opened",
            )
        raised = self._exception(streams)
        ids, threads = self._threads(streams, _CPUS[arch], raised)
        if not threads:
            raise DumpError(f"{self._name}: the minidump has no thread", hint="there is nothing to show a backtrace of")
        build = self._text(build_at) if build_at else ""
        names = self._names(streams)
        return Minidump(
            arch,
            _CPUS[arch],
            f"macOS {major}.{minor}.{patch}" if major else "",
            build if _BUILD.fullmatch(build) else None,
            threads,
            ids.index(raised.thread) if raised and raised.thread in ids else 0,
            raised.exception if raised else CrashException(_NO_EXCEPTION),
            self._modules(streams),
            self._memory(streams),
            REGIONS in streams,
            tuple(names.get(identity, "") for identity in ids),
            streams[_EXCEPTION][0] + _TYPE_AT if raised and raised.passing else None,
            frozenset(self._partless),
        )

    def _directory(self) -> dict[int, tuple[int, int]]:
        """Return offset and size of every stream, the first of each type."""
        signature, version, count, offset = HEADER.unpack(self._at(0, HEADER.size, "header"))
        if signature != _SIGNATURE or version & 0xFFFF != _VERSION:
            raise DumpError(f"{self._name}: is no minidump: {signature!r}, version {version & 0xFFFF:#x}")
        if count > _MAX_STREAMS:
            raise DumpError(f"{self._name}: {count} streams where at most {_MAX_STREAMS} were expected")
        streams: dict[int, tuple[int, int]] = {}
        table = self._at(offset, count * DIRECTORY.size, f"directory of {count} streams")
        for kind, size, place in DIRECTORY.iter_unpack(table):
            streams.setdefault(kind, (place, size))
        return streams

    def _list(self, streams: dict[int, tuple[int, int]], kind: int, size: int, most: int, what: str) -> bytes:
        """Return the entries of a list, `size` bytes each; a stream that is not there has none."""
        if kind not in streams:
            return b""
        offset, length = streams[kind]
        (count,) = struct.unpack("<I", self._at(offset, 4, f"list of {what}"))
        if count > most:
            raise DumpError(f"{self._name}: {count} {what} where at most {most} were expected")
        # Some writers align the entries to 8 bytes; the length of the stream tells.
        padding = 4 if length == 8 + count * size else 0
        return self._at(offset + 4 + padding, count * size, f"list of {count} {what}")

    def _threads(
        self, streams: dict[int, tuple[int, int]], cputype: int, raised: _Raised | None
    ) -> tuple[list[int], tuple[CoreThread, ...]]:
        ids, threads = [], []
        read = x86_64_context if cputype == CPU_TYPE.X86_64 else arm64_context
        entries = self._list(streams, _THREADS, _THREAD_SIZE, _MAX_THREADS, "threads")
        for number, (identity, _, _, _, size, place) in enumerate(_THREAD.iter_unpack(entries)):
            if raised and raised.thread == identity and raised.context[1]:
                size, place = raised.context  # noqa: PLW2901 (where it crashed, not where its handler is)
            ids.append(identity)
            threads.append(CoreThread(number, self._context(place, size, read, number), None))
        return ids, tuple(threads)

    def _context(self, place: int, size: int, read: Callable[[bytes], dict[str, int]], number: int) -> dict[str, int]:
        try:
            raw = self._at(place, min(size, MAX_CONTEXT), "context")
            registers = read(raw)
        except (struct.error, DumpError):
            raise self._cut(f"the registers of thread {number} ({size} bytes at {place:#x}) are not there") from None
        if read is x86_64_context and is_partless(raw):
            self._partless.add(place)
        return registers

    def _exception(self, streams: dict[int, tuple[int, int]]) -> _Raised | None:
        if _EXCEPTION not in streams:
            return None
        raw = self._at(streams[_EXCEPTION][0], _EXCEPTION_STREAM.size, "exception")
        thread, kind, code, address, count, *rest = _EXCEPTION_STREAM.unpack(raw)
        *codes, size, place = rest
        if code == _LLDB:
            text = struct.pack("<15Q", *codes).partition(b"\0")[0].decode("ascii", "replace")
            words = printable(text) or _NO_EXCEPTION
            at = _FAULT.search(words)
            return _Raised(thread, CrashException(words, None, int(at[1], 16) if at else None), (size, place))
        # Crashpad repeats the type and Mach's two codes in full; Breakpad has 32 bits of the first, and the address.
        first, second = codes[1:3] if count == _TYPE_AND_CODES and codes[0] == kind else (code, address)
        # LLDB takes the address for the signal's number.
        passing = (kind, code) == (_SOFTWARE, _SOFT_SIGNAL) and address not in _STOPPING
        return _Raised(thread, mach_exception(kind, first, second), (size, place), passing)

    def _names(self, streams: dict[int, tuple[int, int]]) -> dict[int, str]:
        """Return the names of threads, as far as they have some, by thread id."""
        entries = self._list(streams, _NAMES, _THREAD_NAME.size, _MAX_THREADS, "names of threads")
        return {thread: self._text(place) for thread, place in _THREAD_NAME.iter_unpack(entries)}

    def _modules(self, streams: dict[int, tuple[int, int]]) -> tuple[MinidumpModule, ...]:
        entries = self._list(streams, _MODULES, _MODULE_SIZE, _MAX_MODULES, "modules")
        modules = []
        for position in range(0, len(entries), _MODULE_SIZE):
            address, size, name, cv_size, cv_at = _MODULE.unpack_from(entries, position)
            path = self._text(name).removesuffix(f"({address:#x})")  # LLDB marks what it read out of memory
            modules.append(MinidumpModule(DumpModule(address, path, self._uuid(cv_at, cv_size)), size))
        return tuple(modules)

    def _uuid(self, place: int, size: int) -> UUID | None:
        """Return the UUID in a CodeView record.

        In `RSDS` it is a GUID, whose first three fields are little-endian; in LLDB's own it stands as in LC_UUID.
        """
        if size < _CODEVIEW or place + _CODEVIEW > self._size:
            return None
        record = self._at(place, _CODEVIEW, "CodeView record")
        if not any(record[4:]):
            return None
        if record[:4] == b"LEpB" and size == _CODEVIEW:
            return UUID(bytes=record[4:])
        return UUID(bytes_le=record[4:]) if record[:4] == b"RSDS" else None

    def _memory(self, streams: dict[int, tuple[int, int]]) -> tuple[Segment, ...]:
        """Return the ranges of memory that lie in the file whole."""
        ranges = list(_RANGE.iter_unpack(self._list(streams, _MEMORY, _RANGE.size, _MAX_RANGES, "ranges of memory")))
        if _MEMORY64 in streams:
            head = self._at(streams[_MEMORY64][0], 16, "list of memory")
            count, place = struct.unpack("<2Q", head)
            if count > _MAX_RANGES:
                raise DumpError(f"{self._name}: {count} ranges of memory where at most {_MAX_RANGES} were expected")
            table = self._at(streams[_MEMORY64][0] + 16, count * _RANGE64.size, f"list of {count} ranges of memory")
            for address, size in _RANGE64.iter_unpack(table):
                ranges.append((address, size, place))
                place += size
        return tuple(
            Segment(address, size, place, size, 0, 0)
            for address, size, place in ranges
            if size and place + size <= self._size and address + size <= 1 << 64
        )

    def _text(self, place: int) -> str:
        """Return a MINIDUMP_STRING: its length in bytes, then UTF-16. Empty where it is not in the file."""
        if place not in self._texts:
            text = ""
            if 0 < place <= self._size - 4:
                (length,) = struct.unpack("<I", self._at(place, 4, "text"))
                self._file.seek(place + 4)
                text = self._file.read(min(length, _MAX_TEXT) & ~1).decode("utf-16-le", "replace").partition("\0")[0]
            self._texts[place] = text
        return self._texts[place]

    def _at(self, offset: int, size: int, what: str) -> bytes:
        if offset + size <= self._size:
            self._file.seek(offset)
            data = self._file.read(size)
            if len(data) == size:
                return data
        raise self._cut(f"the {what}, {size} bytes at {offset:#x}, lies outside the minidump of {self._size} bytes")

    def _cut(self, what: str) -> DumpError:
        return DumpError(f"{self._name}: {what}", hint="the minidump is cut or damaged: copy it again")


class _Raised(NamedTuple):
    thread: int
    exception: CrashException
    context: tuple[int, int]
    """Size and place of the registers when it was raised."""
    passing: bool = False
    """LLDB would not stop at it."""
