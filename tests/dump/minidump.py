"""Minidumps of Mac processes as Breakpad and Crashpad write them, put together by hand.

Sources: Microsoft's minidumpapiset.h (MINIDUMP_*), winnt.h (CONTEXT); Breakpad's platform ids and its two layouts of
an arm64 CONTEXT: the old one begins with 64 bits of flags, the new one with 32, followed by cpsr.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

_SYSTEM, _THREADS, _MODULES, _MEMORY, _EXCEPTION, _MEMORY64, _COMMENT, _NAMES = 7, 3, 4, 5, 6, 9, 10, 24
_AMD64, _ARM64, _ARM64_OLD, MAC_OS_X, LINUX = 9, 12, 0x8003, 0x8101, 0x8201
_X86_PLACES = {
    **{name: 0x78 + 8 * n for n, name in enumerate(("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"))},
    **{f"r{n}": 0xB8 + 8 * (n - 8) for n in range(8, 16)},
    "rip": 0xF8,
}
_ARM_NAMES = (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc")


@dataclass
class MiniThread:
    registers: dict[str, int]
    stack_address: int
    stack: bytes


def x86_context(registers: dict[str, int], flags: int = 0x10000F) -> bytes:
    data = bytearray(1232)
    struct.pack_into("<2I6HI", data, 0x30, flags, 0x1F80, 0x2B, 0, 0, 0, 0, 0, registers.get("rflags", 0x246))
    for name, place in _X86_PLACES.items():
        struct.pack_into("<Q", data, place, registers.get(name, 0))
    return bytes(data)


def arm_context(registers: dict[str, int]) -> bytes:
    """Return a MDRawContextARM64: flags, cpsr, 33 registers, 32 vectors, fpcr, fpsr, debug registers."""
    values = [registers.get(n, 0) for n in _ARM_NAMES]
    head = struct.pack("<2I33Q", 0x0040_0007, registers.get("cpsr", 0x6000_0000), *values)
    return head + b"\x77" * 512 + bytes(8) + bytes(120)


def old_arm_context(registers: dict[str, int]) -> bytes:
    """Return a MDRawContextARM64_Old: flags (64 bits), 33 registers, cpsr, fpsr, fpcr, 32 vectors; nothing aligned."""
    values = [registers.get(n, 0) for n in _ARM_NAMES]
    return struct.pack("<Q33QI", 0x8000_0006, *values, registers.get("cpsr", 0x6000_0000)) + bytes(8) + b"\x77" * 512


def minidump(
    modules: Sequence[tuple[int, int, str, UUID | None]],
    threads: Sequence[MiniThread],
    crashed: int,
    exception: tuple[int, int, int] | None,
    *,
    arch: str = "x86_64",
    old: bool = False,
    memory64: bool = False,
    padded: bool = False,
    memory: Sequence[tuple[int, bytes]] = (),
    build: str = "22G830",
    platform: int = MAC_OS_X,
    information: Sequence[int] = (),
    names: Sequence[str] = (),
    flags: int = 0x10000F,
    stopped: Sequence[int] = (),
) -> bytes:
    """Return a minidump of modules (address, size, path, UUID).

    `crashed` is a thread, `exception` Mach's type, code and the address. `old`: the arm64 context and processor of
    older Breakpads. `memory64`: memory is listed as Crashpad's full dumps and Microsoft's have it. `padded`: lists have
    4 bytes between count and entries, as some writers align them. `flags`: of the x86_64 contexts; Breakpad's on macOS
    say which processor it is, and not which parts are there. `stopped`: threads that have an exception of their own, as
    LLDB writes one for each that a signal stopped (17: SIGSTOP).
    """
    out = bytearray()
    directory: list[tuple[int, int, int]] = []
    context = partial(x86_context, flags=flags) if arch == "x86_64" else old_arm_context if old else arm_context
    processor = _AMD64 if arch == "x86_64" else _ARM64_OLD if old else _ARM64

    def put(data: bytes) -> int:
        out.extend(bytes(-len(out) % 8))
        place = len(out)
        out.extend(data)
        return place

    def text(content: str) -> int:
        data = content.encode("utf-16-le")
        return put(struct.pack("<I", len(data)) + data + b"\0\0")

    def stream(kind: int, data: bytes) -> None:
        directory.append((kind, len(data), put(data)))

    def listed(kind: int, count: int, entries: bytes) -> None:
        stream(kind, struct.pack("<I", count) + (bytes(4) if padded else b"") + entries)

    put(bytes(32 + 12 * 16))
    stream(_COMMENT, b"LLDB has no use for this one\0")
    stream(_SYSTEM, struct.pack("<3H2B5I2H24x", processor, 6, 0, 8, 1, 13, 6, 9, platform, text(build), 0, 0))
    entries = b""
    contexts = []
    ranges = [(thread.stack_address, thread.stack) for thread in threads] + list(memory)
    place = {address: put(data) for address, data in ranges}
    for number, thread in enumerate(threads):
        data = context(thread.registers)
        contexts.append((len(data), put(data)))
        entries += struct.pack("<4IQ", 100 + number, 0, 0, 0, 0)
        stack = (thread.stack_address, len(thread.stack), place[thread.stack_address])
        entries += struct.pack("<Q2I", *stack) + struct.pack("<2I", *contexts[-1])
    listed(_THREADS, len(threads), entries)
    entries = b""
    for address, size, path, uuid in modules:
        name = text(path)
        record = b""
        if uuid is not None:
            # The three fields of a GUID that are numbers are little-endian, in a UUID as macOS has it they are not.
            record = b"RSDS" + uuid.bytes_le + struct.pack("<I", 0) + path.rpartition("/")[2].encode() + b"\0"
        cv = put(record)
        entries += struct.pack("<Q4I52x", address, size, 0, 0, name) + struct.pack("<4I2Q", len(record), cv, 0, 0, 0, 0)
    listed(_MODULES, len(modules), entries)
    if memory64:
        base = put(b"".join(data for _, data in ranges))
        table = b"".join(struct.pack("<2Q", address, len(data)) for address, data in ranges)
        stream(_MEMORY64, struct.pack("<2Q", len(ranges), base) + table)
    else:
        table = b"".join(struct.pack("<Q2I", address, len(data), place[address]) for address, data in ranges)
        listed(_MEMORY, len(ranges), table)
    if names:  # packed: 12 bytes each
        table = b"".join(struct.pack("<IQ", 100 + number, text(name)) for number, name in enumerate(names) if name)
        listed(_NAMES, len(table) // 12, table)
    for number in stopped:
        record = struct.pack("<2I2Q2I15Q", 17, 0, 0, 0x1000, 0, 0, *[0] * 15)
        stream(_EXCEPTION, struct.pack("<2I", 100 + number, 0) + record + struct.pack("<2I", *contexts[number]))
    if exception is not None:
        kind, code, address = exception
        words = [*information, *[0] * 15][:15]
        record = struct.pack("<2I2Q2I15Q", kind, code, 0, address, len(information), 0, *words)
        data = context(threads[crashed].registers)
        stream(_EXCEPTION, struct.pack("<2I", 100 + crashed, 0) + record + struct.pack("<2I", len(data), put(data)))
    struct.pack_into("<4s5IQ", out, 0, b"MDMP", 0xA793, len(directory), 32, 0, 0, 0)
    for number, (kind, size, start) in enumerate(directory):
        struct.pack_into("<3I", out, 32 + 12 * number, kind, size, start)
    return bytes(out)
