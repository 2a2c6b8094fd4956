"""What a minidump says in its streams: system, threads, modules, exception, and which memory it holds.

One bad thread, module, text or stream costs itself only; `needs_copy` says that LLDB would take it worse.

Sources: MINIDUMP_* (minidumpapiset.h); for Mac processes Breakpad's minidump_format.h: platform ids, Mach exceptions in
the exception stream, macOS's build as the service pack's name; LLDB's MinidumpFileBuilder, which writes UUIDs as ELF
build ids are written, one exception for each thread that was stopped, and them in words.
"""

from __future__ import annotations

import itertools
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import UUID

from symcache.crash import CrashException
from symcache.dump.formats.core import CoreThread, Segment
from symcache.dump.formats.header import DumpModule
from symcache.dump.formats.minidump_contexts import MAX_CONTEXT, context_for_lldb, read_context
from symcache.dump.formats.minidump_exceptions import (
    EXCEPTION_STREAM,
    NO_EXCEPTION,
    Raised,
    blamed,
    is_passing,
    read_exception,
)
from symcache.dump.formats.minidump_streams import SIGNATURE, MinidumpStreams
from symcache.errors import DumpError
from symcache.macho import CPU_TYPE

__all__ = ["Minidump", "MinidumpModule", "MinidumpThread", "is_minidump", "read_minidump"]

THREADS, MODULES, MEMORY, SYSTEM, MEMORY64, MISC, REGIONS, _NAMES = 3, 4, 5, 7, 9, 15, 16, 24
_SYSTEM_INFO = struct.Struct("<3H2x5I")
_THREAD = struct.Struct("<I20xQ4I")
_MODULE = struct.Struct("<QI8xI52x2I")
CODEVIEW_AT = 76
"""Offset of size and place of a module's CodeView record in its entry."""
_VERSIONED, _TYPE = slice(24, 28), slice(60, 64)
"""Where a module's entry has signature and file type of its version information, if it has such."""
_PROGRAM = (1).to_bytes(4, "little")
"""VFT_APP: the executable's in Crashpad's."""
RANGE = struct.Struct("<Q2I")
_RANGE64 = struct.Struct("<2Q")
_THREAD_NAME = struct.Struct("<IQ")
_MODULE_SIZE, _THREAD_SIZE = 108, 48
_MAX_EXCEPTIONS = 4096
_MAX_THREADS = 16_384
_MAX_MODULES = 65_536
_MAX_RANGES = 1 << 19
_NOWHERE = frozenset({0, (1 << 64) - 1})
"""Addresses of modules that were not loaded: LLDB lists those, too."""
_CODEVIEW = 20
"""Bytes of signature and UUID."""
_BUILD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ARCHS = {0: "i386", 3: "ppc", 5: "arm", 9: "x86_64", 12: "arm64", 0x8002: "ppc64", 0x8003: "arm64"}
_CPUS = {"x86_64": CPU_TYPE.X86_64, "arm64": CPU_TYPE.ARM64}
_32_BIT = frozenset({"i386", "ppc", "arm"})
_PLATFORMS = {0x8101: "macOS", 0x8102: "iOS", 0x8201: "Linux", 0x8202: "Solaris", 0x8203: "Android", 0x8205: "Fuchsia"}
_WINDOWS = 4
"""Platform ids below are those of Windows."""


class MinidumpModule(NamedTuple):
    """A loaded image and how many bytes it is said to take."""

    module: DumpModule
    size: int
    entry: bytes
    """As it stands in the list, but without a CodeView record that is not there."""


class MinidumpThread(NamedTuple):
    """A thread as LLDB wants it."""

    identity: int
    context: tuple[int, int]
    """Size and place of its registers."""
    rewritten: bytes | None
    """What to put in their place, where LLDB would not read them."""


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
    """Without registers where they are not in the file."""
    crashed: int | None
    """Index of the thread that raised the exception; None where the dump was only asked for."""
    exception: CrashException
    modules: tuple[MinidumpModule, ...]
    """In the order of the file, the executable first."""
    memory: tuple[Segment, ...]
    """What it holds of the process's memory, in the order of the file; its offsets are those in the file."""
    names: tuple[str, ...]
    """Of the threads; empty where one has none."""
    streams: dict[int, tuple[int, int]]
    """Place and size of each, the first of its type."""
    entries: tuple[MinidumpThread, ...]
    raised: bytes
    """The exception stream, as LLDB wants it; empty where there is none."""
    needs_copy: bool
    """LLDB would refuse it, leave something out, or wait for ever: see `symcache.dump.formats.minidump_copy`."""

    @property
    def has_regions(self) -> bool:
        """It lists the regions of memory with their protections."""
        return REGIONS in self.streams


def is_minidump(path: Path) -> bool:
    """Return whether a file begins as a minidump does."""
    with path.open("rb") as file:
        return file.read(4) == SIGNATURE


def read_minidump(path: Path) -> Minidump:
    """Return what a minidump of a Mac process holds; memory is left where it is. Raises DumpError, OSError."""
    with path.open("rb") as file:
        return _Reader(file, str(path)).read()


class _Reader:
    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        self._streams = MinidumpStreams(file, name)

    def read(self) -> Minidump:
        arch, version, build = self._system()
        cputype = _CPUS[arch]
        exceptions = [
            raw
            for place in self._streams.exceptions[:_MAX_EXCEPTIONS]
            if len(raw := self._streams.at(place, EXCEPTION_STREAM.size)) == EXCEPTION_STREAM.size
        ]
        listed = [_THREAD.unpack(raw) for raw in self._streams.entries(THREADS, _THREAD_SIZE, _MAX_THREADS)]
        if not listed:
            raise DumpError(f"{self._name}: the minidump has no thread", hint="there is nothing to show a backtrace of")
        ids = [identity for identity, *_ in listed]
        told = [read_exception(raw) for raw in exceptions]
        raised = blamed(told, ids)
        stream = exceptions[told.index(raised)] if raised else b""
        self._streams.is_odd |= len(self._streams.exceptions) != bool(stream)
        self._streams.is_odd |= bool(stream) and is_passing(stream)
        entries, threads = self._threads(cputype, listed, told)
        if not any(thread.registers for thread in threads):
            raise DumpError(
                f"{self._name}: the minidump has the registers of none of its {len(threads)} threads",
                hint="it is cut or damaged: copy it again",
            )
        named = map(_THREAD_NAME.unpack, self._streams.entries(_NAMES, _THREAD_NAME.size, _MAX_THREADS))
        names = {thread: self._streams.text(place) for thread, place in named}
        modules, memory = self._modules(), self._memory([one[1:4] for one in listed])
        return Minidump(
            arch=arch,
            cputype=cputype,
            os_version=version,
            os_build=build,
            threads=threads,
            crashed=ids.index(raised.thread) if raised else None,
            exception=raised.exception if raised else CrashException(NO_EXCEPTION),
            modules=modules,
            memory=memory,
            names=tuple(names.get(identity, "") for identity in ids),
            streams=self._streams.places,
            entries=entries,
            raised=stream,
            needs_copy=self._streams.is_odd,
        )

    def _system(self) -> tuple[str, str, str | None]:
        """Return architecture, version and build."""
        raw = self._streams.at(self._streams.places.get(SYSTEM, (self._streams.size, 0))[0], _SYSTEM_INFO.size)
        if len(raw) < _SYSTEM_INFO.size:
            raise DumpError(
                f"{self._name}: the minidump does not say of what system it is",
                hint="it is cut or damaged: copy it again",
            )
        processor, _, _, major, minor, patch, platform, build_at = _SYSTEM_INFO.unpack(raw)
        arch = _ARCHS.get(processor, f"processor {processor}")
        system = "Windows" if platform < _WINDOWS else _PLATFORMS.get(platform, f"platform {platform:#x}")
        if arch not in _CPUS or system != "macOS":
            process = f"a 32-bit process ({arch}) of {system}" if arch in _32_BIT else f"{system} on {arch}"
            raise DumpError(
                f"{self._name}: is a minidump of {process}",
                hint="minidumps of Mac processes on x86_64 and arm64 can be opened",
            )
        build = self._streams.text(build_at)
        version = f"macOS {major}.{minor}.{patch}" if major else ""
        return arch, version, build if _BUILD.fullmatch(build) else None

    def _threads(
        self, cputype: int, listed: list[tuple[int, ...]], raised: list[Raised]
    ) -> tuple[tuple[MinidumpThread, ...], tuple[CoreThread, ...]]:
        """Return the threads, with the registers of their exceptions: where it was, not where its handler is."""
        at_exception = {one.thread: one.context for one in reversed(raised) if self._registers(cputype, *one.context)}
        entries, threads = [], []
        for number, (identity, _, _, _, size, place) in enumerate(listed):
            size, place = at_exception.get(identity, (size, place))  # noqa: PLW2901
            registers = self._registers(cputype, size, place)
            raw = self._streams.at(place, min(size, MAX_CONTEXT)) if registers else b""
            readable = context_for_lldb(cputype, raw)
            self._streams.is_odd |= readable != raw
            entries.append(MinidumpThread(identity, (size, place), readable if readable != raw else None))
            threads.append(CoreThread(number, registers, None))
        return tuple(entries), tuple(threads)

    def _registers(self, cputype: int, size: int, place: int) -> dict[str, int]:
        try:
            return read_context(cputype, self._streams.at(place, min(size, MAX_CONTEXT)))
        except struct.error:
            return {}

    def _modules(self) -> tuple[MinidumpModule, ...]:
        modules = []
        for raw in self._streams.entries(MODULES, _MODULE_SIZE, _MAX_MODULES):
            address, size, name, cv_size, cv_at = _MODULE.unpack_from(raw)
            entry = raw
            if cv_at + cv_size > self._streams.size:
                entry = raw[:CODEVIEW_AT] + bytes(8) + raw[CODEVIEW_AT + 8 :]
            is_bad = address in _NOWHERE or address + size > 1 << 64
            self._streams.is_odd |= is_bad or entry != raw
            if not is_bad:
                path = self._streams.text(name).removesuffix(f"({address:#x})")  # LLDB marks what it read out of memory
                modules.append(MinidumpModule(DumpModule(address, path, self._uuid(cv_at, cv_size)), size, entry))
        # rust-minidump's writer puts what is no library in front, by falling address: behind bundles, the executable.
        # Older Crashpads have it where dyld has it: on macOS 14 at the end.
        front = list(itertools.takewhile(lambda m: not any(m.entry[_VERSIONED]), modules))
        behind = front[-1:] if len(front) < len(modules) else []
        if found := [m for m in modules if m.entry[_TYPE] == _PROGRAM] or behind:
            modules.sort(key=lambda m: m is not found[0])
        return tuple(modules)

    def _uuid(self, place: int, size: int) -> UUID | None:
        """Return the UUID in a CodeView record.

        In `RSDS` it is a GUID, whose first three fields are little-endian; in LLDB's own it stands as in LC_UUID.
        """
        record = self._streams.at(place, min(size, _CODEVIEW))
        if len(record) < _CODEVIEW or not any(record[4:]):
            return None
        if record[:4] == b"LEpB" and size == _CODEVIEW:
            return UUID(bytes=record[4:])
        return UUID(bytes_le=record[4:]) if record[:4] == b"RSDS" else None

    def _memory(self, stacks: list[tuple[int, ...]]) -> tuple[Segment, ...]:
        """Return the ranges of memory as far as they lie in the file; `stacks` count where no list has them."""
        ranges = [RANGE.unpack(raw) for raw in self._streams.entries(MEMORY, RANGE.size, _MAX_RANGES)]
        if MEMORY64 in self._streams.places:
            start, length = self._streams.places[MEMORY64]
            count, place = struct.unpack("<2Q", self._streams.at(start, 16).ljust(16, b"\0"))
            table = self._streams.at(start + 16, min(count, _MAX_RANGES, length // _RANGE64.size) * _RANGE64.size)
            for address, size in _RANGE64.iter_unpack(table[: len(table) // _RANGE64.size * _RANGE64.size]):
                ranges.append((address, size, place))
                place += size
        found = self._kept(ranges)
        known = {address for address, _, _ in found}
        missing = self._kept([one for one in stacks if one[0] not in known])
        self._streams.is_odd |= bool(missing)
        return tuple(Segment(address, size, place, size, 0, 0) for address, size, place in (*found, *missing))

    def _kept(self, ranges: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return what there is of ranges (address, size, place). LLDB looks for nothing behind one that is cut."""
        there = [(a, min(size, self._streams.size - place), place) for a, size, place in ranges]
        self._streams.is_odd |= there != ranges
        return [(address, size, place) for address, size, place in there if size > 0 and address + size <= 1 << 64]
