"""Mach-O cores (MH_CORE): their memory regions, threads and notes. The content of memory is not read.

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

from symcache.dump.formats.registers import (
    ARM64_EXCEPTION,
    FLAVORS,
    X86_64_EXCEPTION,
    ExceptionState,
    for_lldb,
    thread_states,
)
from symcache.errors import DumpError, MachOError
from symcache.macho import CPU_TYPE, LC, LITTLE_64, MH, LoadCommand, MachHeader, Note, arch_name, mach_header

__all__ = ["Core", "CoreThread", "Segment", "check_crashed", "parse_core", "read_core"]

_THREADS = frozenset({LC.THREAD, LC.UNIXTHREAD})
_GCORE_OWN = frozenset({0x41, 0x141, 0x142})
"""proto_LC_FILEREF (its first value, too) and proto_LC_COREDATA (loader_additions.h of Apple's gcore): memory that lies
in other files, or may be packed. No debugger reads them."""
_PACKED = 0x70
"""proto_SG_COMP_ALG_MASK: the first gcore that packs memory says so in the flags of a usual segment."""
_READ = _THREADS | {LC.SEGMENT_64, LC.NOTE} | _GCORE_OWN
_HEADER_32 = 28
"""Size of mach_header."""
_NOTE_AT, _NOTE = 8, 32
"""Offset and size of data_owner, offset and size in note_command."""
_FILESIZE_AT = 48
"""Offset of filesize in segment_command_64."""
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
    header, head = _read_commands(file, size, name)
    cputype = header.cputype
    segments: list[Segment] = []
    threads: list[CoreThread] = []
    notes: list[Note] = []
    odd: list[tuple[int, bytes]] = []
    read = 0
    try:
        for command in header.load_commands(head, _READ):
            if command.cmd in _THREADS:
                if len(threads) >= _MAX_THREADS:
                    raise DumpError(f"{name}: the core has more than {_MAX_THREADS} threads")
                body = command.data[8:]
                states = thread_states(cputype, body)
                threads.append(_thread(cputype, states, len(threads)))
                if (readable := for_lldb(cputype, body, states)) != body:
                    odd.append((command.body, readable))
                if command.cmd == LC.UNIXTHREAD:
                    odd.append((command.offset, struct.pack("<I", LC.THREAD)))
            elif note := command.note():
                if note.offset + note.size <= size:
                    notes.append(note)
                else:
                    odd.append((command.offset + _NOTE_AT, bytes(_NOTE)))
            elif command.cmd in _GCORE_OWN:
                raise DumpError(
                    f"{name}: keeps its memory in a form of gcore's own (load command {command.cmd:#x}), which no"
                    " debugger reads",
                    hint="convert it on a Mac: gcore conv CORE CONVERTED",
                )
            elif segment := _segment(command, name):
                segments.append(segment)
            read = command.offset + command.cmdsize
    except MachOError as error:
        # Zeros are the places of threads that ended while the kernel wrote: it had counted them.
        if read == len(head) or any(head[read:]):
            raise DumpError(f"{name}: {error}", hint="the core is cut or damaged: copy the dump again") from None
    if not threads:
        raise DumpError(f"{name}: the core has no thread", hint="there is nothing to show a backtrace of")
    if not any(thread.registers for thread in threads):
        raise DumpError(
            f"{name}: its threads have no general-purpose registers (flavor {FLAVORS[cputype].number})",
            hint="the header names another architecture than the threads have, or the core is damaged",
        )
    stacks = [t.registers["rsp" if "rsp" in t.registers else "sp"] for t in threads if t.registers]
    kept = sorted(_as_kept(segment, size, stacks, name) for segment in segments)
    if odd:  # what LLDB gets is a copy, which may grow
        odd += [(new.command + _FILESIZE_AT, struct.pack("<Q", new.filesize)) for new in set(kept).difference(segments)]
    _check_segments(kept, name)
    arch = arch_name(cputype, header.cpusubtype)
    return Core(arch, cputype, tuple(kept), tuple(threads), tuple(notes), odd_states=tuple(odd))


def _read_commands(file: BinaryIO, size: int, name: str) -> tuple[MachHeader, bytes]:
    """Return the header of a core, and the bytes that it takes with its load commands."""
    file.seek(0)
    head = file.read(LITTLE_64.header.size)
    header = mach_header(head)
    if header is None:
        raise DumpError(f"{name}: holds no 64-bit Mach-O core", hint="the core must begin right behind </root>")
    arch = arch_name(header.cputype, header.cpusubtype)
    if header.structs is not LITTLE_64:
        width = 32 if header.structs.header.size == _HEADER_32 else 64
        raise DumpError(
            f"{name}: is a Mach-O core of a {width}-bit process ({arch})",
            hint="cores of x86_64 and arm64 can be opened",
        )
    if header.filetype != MH.CORE:
        raise DumpError(f"{name}: is a Mach-O file of type {header.filetype} where a core ({MH.CORE}) was expected")
    if header.cputype not in FLAVORS:
        raise DumpError(f"{name}: is a core of {arch}", hint="cores of x86_64 and arm64 can be opened")
    if not header.fits(min(_MAX_COMMANDS, size - header.size)):
        raise DumpError(
            f"{name}: {header.ncmds} load commands in {header.sizeofcmds} bytes do not fit into a core of {size} bytes",
            hint="the core is cut or damaged: copy the dump again",
        )
    head += file.read(header.sizeofcmds)
    if len(head) < header.commands_end:
        raise DumpError(f"{name}: the core ends inside its load commands", hint="it is cut: copy the dump again")
    return header, head


def _check_segments(segments: Sequence[Segment], name: str) -> None:
    """Raise DumpError for memory regions, by address, that no process has or that LLDB takes too long for."""
    if len(segments) > _MAX_SEGMENTS:
        raise DumpError(f"{name}: the core has {len(segments)} memory regions, more than {_MAX_SEGMENTS}")
    # LLDB walks through such memory in small steps: a terabyte takes it 8 seconds, the whole address space for ever.
    if (unkept := sum(s.size - s.filesize for s in segments if s.filesize)) > _MAX_UNKEPT:
        raise DumpError(
            f"{name}: memory regions of which only a part was kept lack {unkept} bytes, more than {_MAX_UNKEPT}",
            hint="no crash handler writes such cores: the dump is damaged",
        )
    for before, after in itertools.pairwise(segments):
        if before.end > after.address:
            raise DumpError(
                f"{name}: the memory regions at {before.address:#x} and {after.address:#x} overlap",
                hint="no running process has such memory: the dump is damaged",
            )


def _segment(command: LoadCommand, name: str) -> Segment | None:
    found = command.segment()
    if found is None:
        return None
    if found.nsects:
        command.section_offsets()  # LLDB would look for sections behind the command, for minutes
    address, length, offset, filesize = found.vmaddr, found.vmsize, found.fileoff, found.filesize
    if address + length > 1 << 64:
        raise DumpError(f"{name}: the memory region at {address:#x} of {length:#x} bytes ends beyond 64 bits")
    if found.flags & _PACKED and 0 < filesize < length:
        raise DumpError(f"{name}: the memory region at {address:#x} is packed, which no debugger reads")
    if filesize > length:
        raise DumpError(f"{name}: the memory region at {address:#x} has more content than its {length:#x} bytes")
    return Segment(address, length, offset, filesize, found.initprot, command.offset)


def _as_kept(segment: Segment, size: int, stacks: Sequence[int], name: str) -> Segment:
    """Return a region with as much content as there is in a core of `size` bytes.

    macOS's kernel, up to that of macOS 11, says of memory that it could not read, too, that it is there: the last of
    it then lies behind the end. Raises DumpError where one of the `stacks` (addresses) should be there.
    """
    filesize = min(segment.filesize, max(size - segment.offset, 0))
    if filesize < segment.filesize and any(segment.address <= stack < segment.end for stack in stacks):
        raise DumpError(
            f"{name}: the content of the memory region at {segment.address:#x}, a stack, should end at byte"
            f" {segment.offset + segment.filesize} of the core, which has only {size}",
            hint="the core is cut: copy the dump again",
        )
    return segment._replace(filesize=filesize)


def _thread(cputype: int, states: Sequence[tuple[int, bytes]], index: int) -> CoreThread:
    general = FLAVORS[cputype]
    exception_flavor, exception_layout = ARM64_EXCEPTION if cputype == CPU_TYPE.ARM64 else X86_64_EXCEPTION
    registers: dict[str, int] = {}
    exception: ExceptionState | None = None
    for flavor, state in states:
        if flavor == general.number and not registers:
            registers = dict(zip(general.names, general.layout.unpack_from(state), strict=True))
        elif flavor == exception_flavor and exception is None:
            fields = exception_layout.unpack_from(state)
            if cputype == CPU_TYPE.X86_64:
                exception = ExceptionState(fields[0] & 0xFFFF, fields[1], fields[2])
            else:
                exception = ExceptionState(fields[2], fields[1], fields[0])
    return CoreThread(index, registers, exception)


def check_crashed(core: Core, thread: int, name: str) -> None:
    """Raise DumpError unless the core has the thread that crashed."""
    if thread >= len(core.threads):
        raise DumpError(
            f"{name}: thread {thread} is said to have crashed, but the core has {len(core.threads)} threads",
            hint="header and core do not belong together, or the core is cut",
        )
