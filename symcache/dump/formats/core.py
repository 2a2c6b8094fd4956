"""Mach-O cores (MH_CORE): memory, threads and notes. Contents of memory are left where they are.

Sources: struct mach_header_64, segment_command_64, thread_command, note_command (<mach-o/loader.h>).
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import UUID

from symcache.dump.formats.registers import (
    ARM64_EXCEPTION,
    CPU_TYPE_ARM64,
    CPU_TYPE_X86_64,
    FLAVORS,
    X86_64_EXCEPTION,
    ExceptionState,
    for_lldb,
    thread_states,
)
from symcache.errors import DumpError, MachOError
from symcache.macho import arch_name, load_commands
from symcache.macho.constants import LC_SEGMENT_64, MH_CORE, MH_MAGIC_64

__all__ = ["Core", "CoreThread", "Note", "Segment", "check_crashed", "parse_core", "read_core"]

_LC_THREAD, _LC_UNIXTHREAD, _LC_NOTE = 0x4, 0x5, 0x31
_HEADER = struct.Struct("<8I")
_SEGMENT = struct.Struct("<4Q4I")
_NOTE = struct.Struct("<16s2Q")
_MAX_COMMANDS = 64 << 20
_MAX_THREADS = 16_384
_MAX_SEGMENTS = 1 << 19
_MAX_UNKEPT = 64 << 30


class Segment(NamedTuple):
    """One region of the process's memory. Sizes in bytes; `filesize` 0: its content was not kept."""

    address: int
    size: int
    offset: int
    filesize: int
    protection: int
    """VM_PROT bits: 1 read, 2 write, 4 execute."""
    command: int
    """Offset of its load command in the core."""

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.size


class Note(NamedTuple):
    """An LC_NOTE: who wrote it, and where in the core it lies."""

    owner: str
    offset: int
    size: int


class CoreThread(NamedTuple):
    """One thread, in the order of the core."""

    number: int
    registers: dict[str, int]
    """Empty where the writer got none, as of a thread that was just ending."""
    exception: ExceptionState | None


@dataclass(frozen=True, slots=True)
class Core:
    """A core whose every number has been checked against the file's size."""

    arch: str
    cputype: int
    segments: tuple[Segment, ...]
    """By address; none overlap."""
    threads: tuple[CoreThread, ...]
    notes: tuple[Note, ...]
    odd_states: tuple[tuple[int, bytes], ...] = field(default=(), kw_only=True)
    """Of threads that LLDB would not read: where that is in the file, and what it does read in its place."""

    def segment_at(self, address: int) -> Segment | None:
        """Return the region that holds an address."""
        position = bisect.bisect_right(self.segments, address, key=lambda s: s.address) - 1
        if position >= 0 and address < self.segments[position].end:
            return self.segments[position]
        return None


def read_core(path: Path, name: str = "") -> Core:
    """Return what a core file holds. Raises DumpError, OSError; `name` stands in messages in place of the path."""
    with path.open("rb") as file:
        file.seek(0, 2)
        return parse_core(file, file.tell(), name or str(path))


def parse_core(file: BinaryIO, size: int, name: str) -> Core:
    """As `read_core`, from an open file of `size` bytes."""
    file.seek(0)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:4] != struct.pack("<I", MH_MAGIC_64):
        raise DumpError(f"{name}: holds no 64-bit Mach-O core", hint="the core must begin right behind </root>")
    _, cputype, cpusubtype, filetype, ncmds, sizeofcmds, _, _ = _HEADER.unpack(head)
    if filetype != MH_CORE:
        raise DumpError(f"{name}: is a Mach-O file of type {filetype} where a core ({MH_CORE}) was expected")
    if cputype not in FLAVORS:
        raise DumpError(
            f"{name}: is a core of {arch_name(cputype, cpusubtype)}", hint="cores of x86_64 and arm64 can be opened"
        )
    if sizeofcmds > min(_MAX_COMMANDS, size - _HEADER.size) or ncmds * 8 > sizeofcmds:
        raise DumpError(
            f"{name}: {ncmds} load commands in {sizeofcmds} bytes do not fit into a core of {size} bytes",
            hint="the core is cut or damaged: copy the dump again",
        )
    commands = file.read(sizeofcmds)
    if len(commands) < sizeofcmds:
        raise DumpError(f"{name}: the core ends inside its load commands", hint="it is cut: copy the dump again")

    segments: list[Segment] = []
    threads: list[CoreThread] = []
    notes: list[Note] = []
    odd: list[tuple[int, bytes]] = []
    try:
        listed = list(load_commands(commands, ncmds, 0, sizeofcmds))
    except MachOError as error:
        raise DumpError(f"{name}: {error}", hint="the core is cut or damaged: copy the dump again") from None
    for cmd, position, cmdsize in listed:
        if cmd == LC_SEGMENT_64:
            segments.append(_segment(commands, position, cmdsize, size, name))
        elif cmd in {_LC_THREAD, _LC_UNIXTHREAD}:
            if len(threads) >= _MAX_THREADS:
                raise DumpError(f"{name}: the core has more than {_MAX_THREADS} threads")
            body = commands[position + 8 : position + cmdsize]
            states = thread_states(cputype, body)
            threads.append(_thread(cputype, states, len(threads)))
            if (readable := for_lldb(cputype, body, states)) != body:
                odd.append((_HEADER.size + position + 8, readable))
            if cmd == _LC_UNIXTHREAD:
                odd.append((_HEADER.size + position, struct.pack("<I", _LC_THREAD)))
        elif cmd == _LC_NOTE and cmdsize >= 8 + _NOTE.size:
            owner, offset, length = _NOTE.unpack_from(commands, position + 8)
            if offset + length > size:
                raise DumpError(
                    f"{name}: the note {owner.rstrip(bytes(1))!r} at {offset:#x}, {length} bytes, lies outside the core"
                )
            notes.append(Note(owner.partition(b"\0")[0].decode("ascii", "replace"), offset, length))
    if len(segments) > _MAX_SEGMENTS:
        raise DumpError(f"{name}: the core has {len(segments)} memory regions, more than {_MAX_SEGMENTS}")
    if not threads:
        raise DumpError(f"{name}: the core has no thread", hint="there is nothing to show a backtrace of")
    if not any(thread.registers for thread in threads):
        raise _no_registers(name, cputype, 0)
    # LLDB walks through such memory in small steps: a terabyte takes it 8 seconds, the whole address space for ever.
    if (unkept := sum(s.size - s.filesize for s in segments if s.filesize)) > _MAX_UNKEPT:
        raise DumpError(
            f"{name}: memory regions of which only a part was kept lack {unkept} bytes, more than {_MAX_UNKEPT}",
            hint="no crash handler writes such cores: the dump is damaged",
        )
    segments.sort()
    for before, after in itertools.pairwise(segments):
        if before.end > after.address:
            raise DumpError(
                f"{name}: the memory regions at {before.address:#x} and {after.address:#x} overlap",
                hint="no running process has such memory: the dump is damaged",
            )
    return Core(
        arch_name(cputype, cpusubtype), cputype, tuple(segments), tuple(threads), tuple(notes), odd_states=tuple(odd)
    )


def _segment(commands: bytes, position: int, cmdsize: int, size: int, name: str) -> Segment:
    if cmdsize < 72:
        raise DumpError(f"{name}: LC_SEGMENT_64 of {cmdsize} bytes where 72 were expected")
    address, length, offset, filesize, _, protection, sections, _ = _SEGMENT.unpack_from(commands, position + 24)
    if cmdsize < 72 + sections * 80:  # LLDB would look for them behind the command, for minutes
        raise DumpError(f"{name}: LC_SEGMENT_64 of {cmdsize} bytes cannot hold {sections} sections")
    if address + length > 1 << 64:
        raise DumpError(f"{name}: the memory region at {address:#x} of {length:#x} bytes ends beyond 64 bits")
    if filesize and offset + filesize > size:
        raise DumpError(
            f"{name}: the content of the memory region at {address:#x} should end at byte {offset + filesize} of the"
            f" core, which has only {size}",
            hint="the core is cut: copy the dump again",
        )
    if filesize > length:
        raise DumpError(f"{name}: the memory region at {address:#x} has more content than its {length:#x} bytes")
    return Segment(address, length, offset, filesize, protection, position + _HEADER.size)


def _thread(cputype: int, states: Sequence[tuple[int, bytes]], index: int) -> CoreThread:
    general = FLAVORS[cputype]
    exception_flavor, exception_layout = ARM64_EXCEPTION if cputype == CPU_TYPE_ARM64 else X86_64_EXCEPTION
    registers: dict[str, int] = {}
    exception: ExceptionState | None = None
    for flavor, state in states:
        if flavor == general.number and not registers:
            registers = dict(zip(general.names, general.layout.unpack_from(state), strict=True))
        elif flavor == exception_flavor and exception is None:
            fields = exception_layout.unpack_from(state)
            if cputype == CPU_TYPE_X86_64:
                exception = ExceptionState(fields[0] & 0xFFFF, fields[1], fields[2])
            else:
                exception = ExceptionState(fields[2], fields[1], fields[0])
    return CoreThread(index, registers, exception)


def check_crashed(core: Core, thread: int, name: str) -> None:
    """Raise DumpError unless the core has the thread that crashed, and its registers."""
    if thread >= len(core.threads):
        raise DumpError(
            f"{name}: thread {thread} is said to have crashed, but the core has {len(core.threads)} threads",
            hint="header and core do not belong together, or the core is cut",
        )
    if not core.threads[thread].registers:
        raise _no_registers(name, core.cputype, thread)


def _no_registers(name: str, cputype: int, thread: int) -> DumpError:
    return DumpError(
        f"{name}: thread {thread} has no general-purpose registers (flavor {FLAVORS[cputype].number})",
        hint="the header names another architecture than the threads have, or the core is damaged",
    )


def read_note(path: Path, note: Note, limit: int) -> bytes:
    """Return up to `limit` bytes of a note."""
    with path.open("rb") as file:
        file.seek(note.offset)
        return file.read(min(note.size, limit))


def uuid_or_none(raw: bytes) -> UUID | None:
    """Return the UUID of 16 bytes. Return None if they are zeros."""
    return UUID(bytes=raw) if any(raw) else None
