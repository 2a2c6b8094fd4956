"""Thread states of MH_CORE files: which register lies where.

Sources: <mach/i386/_structs.h>, <mach/arm/_structs.h>, <mach/i386/thread_status.h>, <mach/arm/thread_status.h>.
A state is announced by its flavor and its size in 4-byte words.
"""

from __future__ import annotations

import bisect
import itertools
import re
import struct
from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NamedTuple

from symcache.macho import CPU_TYPE, pack_thread_states

__all__ = [
    "ADDRESS_BITS",
    "ARM64_EXCEPTION",
    "FLAVORS",
    "X86_64_EXCEPTION",
    "ExceptionState",
    "Flavor",
    "for_lldb",
    "thread_states",
]


class ExceptionState(NamedTuple):
    """What the processor reported last on this thread: x86 (trapno, err), arm64 (exception, esr)."""

    number: int
    code: int
    address: int
    """Of the access that failed (CR2, FAR); meaningless for other exceptions."""


class Flavor(NamedTuple):
    """A general-purpose state: its names and how they are packed."""

    number: int
    words: int
    names: tuple[str, ...]
    layout: struct.Struct
    counter: str
    """Name of the program counter."""


_X86_64_NAMES = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rdi",
    "rsi",
    "rbp",
    "rsp",
    *(f"r{n}" for n in range(8, 16)),
    "rip",
    "rflags",
    "cs",
    "fs",
    "gs",
)
_ARM64_NAMES = (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc", "cpsr")

FLAVORS: dict[int, Flavor] = {
    CPU_TYPE.X86_64: Flavor(4, 42, _X86_64_NAMES, struct.Struct("<21Q"), "rip"),
    CPU_TYPE.ARM64: Flavor(6, 67, _ARM64_NAMES, struct.Struct("<33QI"), "pc"),
}
"""By CPU type. ARM_THREAD_STATE64 has 68 words; the last is padding, and LLDB too takes 67."""

ADDRESS_BITS = (1 << 47) - 1
"""Of a pointer of arm64, without the pointer authentication code."""

X86_64_EXCEPTION = (6, struct.Struct("<IIQ"))
"""x86_EXCEPTION_STATE64: trapno (16 bits, then the CPU's number), err, faultvaddr."""
ARM64_EXCEPTION = (7, struct.Struct("<QII"))
"""ARM_EXCEPTION_STATE64: far, esr, exception."""

_COUNTS: dict[int, tuple[tuple[int, int], ...]] = {
    CPU_TYPE.X86_64: (
        *((4, 42), (5, 131), (6, 4), (7, 44), (8, 133), (9, 6), (11, 16), (12, 18)),
        *((17, 211), (18, 213), (20, 611), (21, 613), (22, 1), (23, 50)),
    ),
    CPU_TYPE.ARM64: (
        *((1, 70), (6, 67), (6, 68), (7, 4), (10, 4), (15, 130), (17, 132), (27, 1)),
        *((28, 6), (29, 1024), (30, 1024), (31, 128), *((n, 1024) for n in range(32, 48)), (48, 16)),
    ),
}
"""(flavor, its count) of the states of 64-bit threads: general, floating-point, exception, debug and vector states;
last those of a page that is read in, SVE and SME."""
_X86_FULL, _ARM_EXCEPTION_2 = 23, 10
"""x86_THREAD_FULL_STATE64 begins as flavor 4 does; ARM_EXCEPTION_STATE64_V2 has an esr of 64 bits."""
_UNIFIED: dict[int, frozenset[int]] = {CPU_TYPE.X86_64: frozenset({7, 8, 9}), CPU_TYPE.ARM64: frozenset({1})}
"""x86_THREAD_STATE, x86_FLOAT_STATE, x86_EXCEPTION_STATE, ARM_THREAD_STATE: the real flavor, its count and the state
follow."""
_ARM_NEON_STATE64, _NEON_ALIGNMENT = 17, 16
_COMMAND = 8
"""Bytes of a thread's command in front of its states."""
_HEADER = struct.Struct("<2I")
_HEADERS: dict[int, re.Pattern[bytes]] = {
    # One byte, and what must follow: a header may begin inside of what only looks like one.
    cputype: re.compile(b"|".join(b"%b(?=%b)" % (re.escape(one[:1]), re.escape(one[1:])) for one in headers))
    for cputype, headers in ((key, [_HEADER.pack(*one) for one in counts]) for key, counts in _COUNTS.items())
}
_MAX_HEADERS = 64
"""Of one thread; more than any has, and little to weigh."""
_READ_BY_LLDB: dict[int, frozenset[int]] = {CPU_TYPE.X86_64: frozenset({4}), CPU_TYPE.ARM64: frozenset({6, 7, 17})}


class _Place(NamedTuple):
    """Where a state may lie: its header, its content, the first byte behind it."""

    start: int
    content: int
    end: int


def thread_states(cputype: int, body: bytes) -> list[tuple[int, bytes]]:
    """Return (flavor, state) of the states in the body of a thread's command, unwrapped, in its order.

    Writers that put whole structures there leave padding of any value between them. So a state is what has a known
    flavor with that flavor's own count; where such overlap, those count that together explain the most bytes.
    """
    places: list[_Place] = []
    for match in itertools.islice(_HEADERS[cputype].finditer(body), _MAX_HEADERS):
        start = match.start()
        flavor, count = _HEADER.unpack_from(body, start)
        contents = [start + _HEADER.size]
        if flavor == _ARM_NEON_STATE64 and (_COMMAND + contents[0]) % _NEON_ALIGNMENT:
            contents.append(contents[0] + 8)
        whole = [_Place(start, content, content + 4 * count) for content in contents]
        places += [place for place in whole if start % 4 == 0 and place.end <= len(body)]
    # From the last to the first: the bytes that can be explained from each place on, and what explains them.
    best: list[tuple[int, tuple[Any, ...]]] = [(0, ())] * (len(places) + 1)
    for number, place in reversed(list(enumerate(places))):
        explained, others = best[bisect.bisect_left(places, place.end, key=lambda p: p.start)]
        best[number] = max((explained + place.end - place.start, (place, others)), best[number + 1], key=itemgetter(0))
    states, chain = [], best[0][1]
    while chain:
        place, chain = chain
        (flavor,) = struct.unpack_from("<I", body, place.start)
        states.append(_unwrapped(cputype, flavor, body[place.content : place.end]))
    return states


def _unwrapped(cputype: int, flavor: int, state: bytes) -> tuple[int, bytes]:
    """Return flavor and state, without the wrapper that holds either a 32-bit or a 64-bit state."""
    if flavor in _UNIFIED[cputype]:
        inner, count = _HEADER.unpack_from(state)
        if (inner, count) in _COUNTS[cputype] and _HEADER.size + 4 * count <= len(state):
            return inner, state[_HEADER.size : _HEADER.size + 4 * count]
    if cputype == CPU_TYPE.X86_64 and flavor == _X86_FULL:
        general = FLAVORS[cputype]
        return general.number, state[: 4 * general.words]
    if cputype == CPU_TYPE.ARM64 and flavor == _ARM_EXCEPTION_2:
        flavor, layout = ARM64_EXCEPTION
        far, esr = struct.unpack("<2Q", state)
        return flavor, layout.pack(far, esr & 0xFFFF_FFFF, 0)
    return flavor, state


def for_lldb(cputype: int, body: bytes, states: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the body of a thread's command with its `states` as LLDB reads them, in as many bytes.

    Of x86_64, LLDB reads only the first state, of arm64 those before the first flavor that it does not know; none
    that are wrapped, nor any behind padding. What it reads anyway stays as it is.
    """
    general, read = FLAVORS[cputype].number, _READ_BY_LLDB[cputype]
    ordered = sorted(states, key=lambda one: (one[0] != general, one[0] not in read))
    if body.startswith(pack_thread_states(one for one in ordered if one[0] in read)):
        return body
    return pack_thread_states(ordered).ljust(len(body), b"\0")
