"""Which modules the threads of a dump are in: those that their registers and the kept part of their stacks point into.

A debugger that walks the stacks needs these, and can do without the others. What it has to guess at comes from the same
words: a return address is in a register or on the stack.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, CoreThread, Segment
from symcache.dump.formats.registers import ADDRESS_BITS, FLAVORS
from symcache.macho import CPU_TYPE

__all__ = ["modules_of_addresses", "modules_of_stacks"]

_BLOCK = 4 << 20
"""Bytes of a stack that are looked at at a time."""
_MAX_STACK, _MAX_STACKS = 64 << 20, 1 << 30
"""Bytes of one stack, and of all. What lies deeper costs LLDB another fetch."""
_RED_ZONE = 128
"""Bytes below the stack pointer that functions without calls use."""
_MAX_FRAMES = 1 << 16
"""Of all frame chains together."""
_NEAR = 64 << 20
"""What is so close behind a module's code may be its data."""
_EXECUTE = 4


def modules_of_addresses(addresses: Iterable[int], ranges: Sequence[tuple[int, int]]) -> set[int]:
    """Return the numbers of the modules that any address is in; `ranges` are their code (address, size)."""
    pointed = _Pointed(ranges, (1 << 64) - 1)
    for address in addresses:
        pointed.add(address)
    return pointed.modules


def modules_of_stacks(
    dump: OpenedDump,
    crashed: int,
    memory: Core,
    ranges: Sequence[tuple[int, int]],
    is_enough: Callable[[set[int]], bool] = lambda _: False,
) -> set[int]:
    """Return the numbers of the modules, of which `ranges` are the code, that the stacks of a dump point into.

    These are the modules of each program counter and link register, of chains of frames, of what the crashed thread has
    in any register, and of every word of a stack from the stack pointer on. `memory` tells which memory the dump has.
    If `is_enough` says so of all but the last, words are not looked at. Raises OSError.
    """
    cputype = dump.core.cputype
    mask = ADDRESS_BITS if cputype == CPU_TYPE.ARM64 else (1 << 64) - 1
    counter = FLAVORS[cputype].counter
    threads = [thread for thread in dump.core.threads if thread.registers]
    pointed = _Pointed(ranges, mask)
    for thread in threads:
        if thread.number == crashed:
            for value in thread.registers.values():
                pointed.add(value)
        pointed.add(thread.registers.get("lr", 0))
        if not pointed.add(thread.registers[counter]):
            pointed.add_nearest(thread.registers[counter])
    with dump.core_path.open("rb") as file:
        stacks = _Stacks(file.fileno(), memory, pointed, mask)
        for thread in threads:
            stacks.add(thread)
        if not is_enough(pointed.modules):
            pointed.add_words(stacks.blocks())
    return pointed.modules


class _Pointed:
    """The modules that something points into, of those with code in `ranges`."""

    def __init__(self, ranges: Sequence[tuple[int, int]], mask: int) -> None:
        self._mask, top = mask, (1 << 64) - 1
        self._numbers = sorted(range(len(ranges)), key=lambda n: ranges[n])
        self._code = [(ranges[n][0], min(sum(ranges[n]), top)) for n in self._numbers]
        """Start and end of each module's code, by address."""
        self._hit: set[int] = set()
        """Places in this list."""

    @property
    def modules(self) -> set[int]:
        """The numbers of these modules; several may be at one address."""
        addresses = {self._code[place][0] for place in self._hit}
        return {n for n, (start, _) in zip(self._numbers, self._code, strict=True) if start in addresses}

    def add(self, address: int) -> bool:
        """Take an address in; return whether it is in a module's code."""
        place = self._place(address)
        if place >= 0 and address & self._mask < self._code[place][1]:
            self._hit.add(place)
            return True
        return False

    def add_nearest(self, address: int) -> None:
        """Take in the module whose data may be at an address that is in no module's code."""
        place = self._place(address)
        if place >= 0 and (address & self._mask) - self._code[place][0] < _NEAR:
            self._hit.add(place)

    def add_words(self, blocks: Iterable[bytes]) -> None:
        """Take in memory, taking each 8 bytes for an address."""
        if not self._code:
            return
        import numpy as np  # noqa: PLC0415 (a tenth of a second, for dumps of which something is to be fetched)

        starts = np.array([start for start, _ in self._code], "<u8")
        ends = np.array([end for _, end in self._code], "<u8")
        for block in blocks:
            words = np.frombuffer(block, "<u8", len(block) // 8) & np.uint64(self._mask)
            words = words[(words >= starts[0]) & (words < ends.max())]
            places = np.searchsorted(starts, words, "right") - 1
            self._hit.update(np.unique(places[words < ends[places]]).tolist())

    def _place(self, address: int) -> int:
        return bisect.bisect_right(self._code, (address & self._mask, 1 << 64)) - 1


class _Stacks:
    """The memory that is in use as stacks: from a stack pointer on, and where a chain of frames leads."""

    def __init__(self, descriptor: int, memory: Core, pointed: _Pointed, mask: int) -> None:
        self._descriptor, self._memory, self._pointed, self._mask = descriptor, memory, pointed, mask
        self._starts: dict[Segment, int] = {}
        self._frames_left = _MAX_FRAMES

    def add(self, thread: CoreThread) -> None:
        """Take the stack of a thread in."""
        registers = thread.registers
        top = registers["rsp" if "rsp" in registers else "sp"]
        if segment := self._kept(top):
            self._use(segment, top - _RED_ZONE)
        frame = registers["rbp" if "rbp" in registers else "fp"] & self._mask
        segment = self._kept(frame)
        while segment and self._frames_left:
            self._frames_left -= 1
            place = segment.offset + frame - segment.address
            end = segment.offset + segment.filesize
            pair = os.pread(self._descriptor, 16, place) if place + 16 <= end else b""
            following, link = int.from_bytes(pair[:8], "little"), int.from_bytes(pair[8:], "little")
            if not self._is_code(link):
                break  # not a frame: the register is used for something else
            if segment not in self._starts:
                # Its stack pointer is elsewhere: on a signal's stack, or beyond the end of this one.
                self._use(segment, segment.address)
            following &= self._mask
            if segment.address <= following <= frame:
                break
            frame, segment = following, self._kept(following)

    def blocks(self) -> Iterator[bytes]:
        """Yield what is on the stacks, from addresses that are multiples of 8 on. Raises OSError."""
        left = _MAX_STACKS
        for segment, start in self._starts.items():
            place = segment.offset + start - segment.address
            end = min(segment.offset + segment.filesize, place + min(_MAX_STACK, left))
            left -= max(0, end - place)
            while place + 8 <= end:
                data = os.pread(self._descriptor, min(_BLOCK, end - place) & -8, place)
                if len(data) < 8:
                    break
                yield data
                place += len(data) & -8

    def _kept(self, address: int) -> Segment | None:
        segment = self._memory.segment_at(address)
        return segment if segment and address - segment.address < segment.filesize else None

    def _use(self, segment: Segment, start: int) -> None:
        start = max(start, segment.address) + 7 & -8
        self._starts[segment] = min(start, self._starts.get(segment, start))

    def _is_code(self, address: int) -> bool:
        if self._pointed.add(address):
            return True
        segment = self._memory.segment_at(address & self._mask)
        return segment is not None and bool(segment.protection & _EXECUTE)
