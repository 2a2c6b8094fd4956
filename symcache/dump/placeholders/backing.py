"""Tells LLDB which guess to make about a top frame in code that nobody has.

With neither code nor symbols, LLDB can assume one of two things of a program counter. Either the function has just
been entered (or has no frame of its own): its return address is on top of the stack, on arm64 in `lr`. Or it keeps
a frame: rbp or fp points to it. LLDB assumes the first where memory is not executable as far as it knows, and a core
without the content of code makes that a matter of chance and version. Here the right one is worked out; placeholders
are executable or not, and the core gets content, accordingly.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Sequence
from typing import BinaryIO

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, CoreThread
from symcache.dump.formats.header import DumpHeader
from symcache.dump.formats.registers import ADDRESS_BITS, FLAVORS
from symcache.macho import CPU_TYPE

__all__ = ["back_code", "framed_modules", "frameless_counters", "hide_code", "unlisted_code"]

_MAX_BACKED = 1 << 30
_EXECUTE = 4
_SEGMENT_ADDRESS = 24
"""Offset of vmaddr in segment_command_64; vmsize, fileoff and filesize follow."""
_SVC = 0x15
_X86_SYSCALL = 0x85


def framed_modules(dump: OpenedDump, crashed: int, missing: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return those of the `missing` modules (address, size) in which threads are in functions that keep a frame.

    In each the crashed thread decides, or else most of the threads that are in it.
    """
    core = dump.core
    modules = sorted(missing)
    starts = [address for address, _ in modules]
    votes: dict[tuple[int, int], int] = {}
    with dump.core_path.open("rb") as file:
        for thread in core.threads:
            if not thread.registers:
                continue
            pc = thread.registers[FLAVORS[core.cputype].counter]
            number = bisect.bisect_right(starts, pc) - 1
            if number >= 0 and pc < modules[number][0] + modules[number][1]:
                weight = len(core.threads) if thread.number == crashed else 1
                change = -weight if _is_frameless(file, core, thread) else weight
                votes[modules[number]] = votes.get(modules[number], 0) + change
    return [module for module, vote in sorted(votes.items(), key=lambda item: -item[1]) if vote > 0]


def frameless_counters(dump: OpenedDump, crashed: int) -> list[int]:
    """Return where threads are in functions that keep no frame of their own, the crashed one's first."""
    core = dump.core
    order = sorted(core.threads, key=lambda thread: thread.number != crashed)
    with dump.core_path.open("rb") as file:
        lacking = [thread for thread in order if thread.registers and _is_frameless(file, core, thread)]
    return [t.registers[FLAVORS[core.cputype].counter] for t in lacking]


def unlisted_code(dump: OpenedDump, header: DumpHeader) -> list[tuple[int, int]]:
    """Return code (address, size) that no module of the header is in: made at run time, or of one not listed right.

    Without that where a thread is in a function that keeps no frame, and not more than a gigabyte.
    """
    addresses = sorted(module.address for module in header.modules)
    found = []
    for region in dump.core.segments:
        place = bisect.bisect_left(addresses, region.address)
        is_listed = place < len(addresses) and addresses[place] < region.end
        if region.protection & _EXECUTE and not region.filesize and not is_listed:
            found.append((region.address, region.size))
    counters = sorted(t.registers[FLAVORS[dump.core.cputype].counter] for t in dump.core.threads if t.registers)
    framed = set(framed_modules(dump, header.thread, found))

    def is_visited(address: int, size: int) -> bool:
        place = bisect.bisect_left(counters, address)
        return place < len(counters) and counters[place] < address + size

    found = [one for one in found if one in framed or not is_visited(*one)]
    found.sort(key=lambda one: one not in framed)
    sizes = itertools.accumulate(size for _, size in found)
    return [one for one, whole in zip(found, sizes, strict=True) if whole <= _MAX_BACKED]


def back_code(dump: OpenedDump, modules: Sequence[tuple[int, int]]) -> None:
    """Give modules (address, size) content in the core, which must be a copy: holes of zeros, no space on disk.

    Nothing but their own part of a region gets content: code of other modules in it (the shared cache is one region)
    must come from their files. The load commands for that are those of regions without content: LLDB drops them.
    """
    spare = [s.command for s in dump.core.segments if not s.filesize]
    with dump.core_path.open("r+b") as file:
        for address, size in modules[: len(spare)]:
            region = dump.core.segment_at(address)
            if region is not None and region.filesize:
                continue  # the core has this code itself
            length = min(size, _MAX_BACKED)
            end = file.seek(0, 2)
            file.truncate(end + length)
            file.seek(spare.pop() + _SEGMENT_ADDRESS)
            file.write(struct.pack("<4Q2I", address, length, end, length, 1 | _EXECUTE, 1 | _EXECUTE))


def hide_code(dump: OpenedDump, modules: Sequence[tuple[int, int]]) -> None:
    """Take content out of the core, a copy: regions of code in those `modules` (address, size) that threads are in.

    With that code, but without the module's unwind tables, LLDB would take a function without a frame for one with.
    """
    counter = FLAVORS[dump.core.cputype].counter
    program_counters = [t.registers[counter] for t in dump.core.threads if t.registers]
    with dump.core_path.open("r+b") as file:
        for address, size in modules:
            if not any(address <= pc < address + size for pc in program_counters):
                continue
            for region in dump.core.segments:
                inside = address <= region.address and region.end <= address + size
                if inside and region.filesize and region.protection & _EXECUTE:
                    file.seek(region.command + _SEGMENT_ADDRESS)
                    file.write(struct.pack("<4Q", region.address, region.size, 0, 0))


def _is_frameless(file: BinaryIO, core: Core, thread: CoreThread) -> bool:
    """Return whether the function has no frame of its own, as a system call has none, where most threads are."""
    registers, exception = thread.registers, thread.exception
    if core.cputype == CPU_TYPE.X86_64:
        if exception is not None and exception.number == _X86_SYSCALL:
            return True
        top = _word(file, core, registers["rsp"])
        target = core.segment_at(top) if top is not None else None
        return target is not None and bool(target.protection & _EXECUTE)
    if exception is not None and exception.code >> 26 == _SVC:
        return True
    link = registers["lr"] & ADDRESS_BITS
    saved = _word(file, core, registers["fp"] + 8)
    # Equal: the frame is there, and nothing has been called yet. If something has, `lr` is stale, and a false frame
    # is shown before the true ones; to take a leaf for such a function would lose a true one.
    return saved is None or saved & ADDRESS_BITS != link


def _word(file: BinaryIO, core: Core, address: int) -> int | None:
    """Return 8 bytes of the process's memory. Return None if the core does not have them."""
    segment = core.segment_at(address)
    if segment is None or address + 8 - segment.address > segment.filesize:
        return None
    file.seek(segment.offset + address - segment.address)
    return int.from_bytes(file.read(8), "little")
