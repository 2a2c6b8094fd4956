"""Thread states of MH_CORE files: which register lies where.

Sources: <mach/i386/_structs.h>, <mach/arm/_structs.h>, <mach/i386/thread_status.h>, <mach/arm/thread_status.h>.
A state is announced by its flavor and its size in 4-byte words.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["ARM64_EXCEPTION", "FLAVORS", "X86_64_EXCEPTION", "ExceptionState", "Flavor", "for_lldb", "unwrap"]

CPU_TYPE_X86_64, CPU_TYPE_ARM64 = 0x0100_0007, 0x0100_000C


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

FLAVORS = {
    CPU_TYPE_X86_64: Flavor(4, 42, _X86_64_NAMES, struct.Struct("<21Q"), "rip"),
    CPU_TYPE_ARM64: Flavor(6, 67, _ARM64_NAMES, struct.Struct("<33QI"), "pc"),
}
"""By CPU type. ARM_THREAD_STATE64 has 68 words; the last is padding, and LLDB too takes 67."""

X86_64_EXCEPTION = (6, struct.Struct("<IIQ"))
"""x86_EXCEPTION_STATE64: trapno (16 bits, then the CPU's number), err, faultvaddr."""
ARM64_EXCEPTION = (7, struct.Struct("<QII"))
"""ARM_EXCEPTION_STATE64: far, esr, exception."""

_UNIFIED = {CPU_TYPE_X86_64: frozenset({7, 8, 9}), CPU_TYPE_ARM64: frozenset({1})}
"""x86_THREAD_STATE, x86_FLOAT_STATE, x86_EXCEPTION_STATE, ARM_THREAD_STATE: the real flavor, its count and the state
follow."""


def unwrap(cputype: int, flavor: int, state: bytes) -> tuple[int, bytes]:
    """Return flavor and state, without the wrapper that holds either a 32-bit or a 64-bit state."""
    if flavor in _UNIFIED[cputype] and len(state) >= 8:
        inner, count = struct.unpack_from("<II", state)
        return inner, state[8 : 8 + 4 * min(count, len(state) // 4)]
    return flavor, state


def for_lldb(cputype: int, states: bytes) -> bytes:
    """Return the states of a thread as LLDB reads them, in as many bytes: unwrapped, general registers first.

    Of x86_64, LLDB reads the first state alone, and no wrapped one. `states` must have been checked.
    """
    general = FLAVORS[cputype].number
    found: list[tuple[int, bytes]] = []
    position = 0
    while position + 8 <= len(states):
        flavor, count = struct.unpack_from("<II", states, position)
        if not flavor and not count:
            break
        position += 8
        found.append((flavor, states[position : position + count * 4]))
        position += count * 4
    if not found or found[0][0] == general:
        return states
    plain = sorted((unwrap(cputype, *one) for one in found), key=lambda one: one[0] != general)
    packed = b"".join(struct.pack("<II", flavor, len(state) // 4) + state for flavor, state in plain)
    return packed.ljust(len(states), b"\0")
