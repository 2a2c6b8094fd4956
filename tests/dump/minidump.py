"""Minidumps of Mac processes as Breakpad and Crashpad write them, put together by hand for x86_64.

Source: Microsoft's minidumpapiset.h (MINIDUMP_*), winnt.h (CONTEXT); Breakpad's platform id of macOS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

_SYSTEM, _THREADS, _MODULES, _MEMORY, _EXCEPTION = 7, 3, 4, 5, 6
_AMD64, _MAC_OS_X = 9, 0x8101
_CONTEXT_SIZE = 1232
_PLACES = {
    **{name: 0x78 + 8 * n for n, name in enumerate(("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"))},
    **{f"r{n}": 0xB8 + 8 * (n - 8) for n in range(8, 16)},
    "rip": 0xF8,
}


@dataclass
class MiniThread:
    registers: dict[str, int]
    stack_address: int
    stack: bytes


def context(registers: dict[str, int]) -> bytes:
    data = bytearray(_CONTEXT_SIZE)
    struct.pack_into("<2I6HI", data, 0x30, 0x10000F, 0x1F80, 0x2B, 0, 0, 0, 0, 0, 0x246)
    for name, value in registers.items():
        struct.pack_into("<Q", data, _PLACES[name], value)
    return bytes(data)


def minidump(
    modules: list[tuple[int, int, str, UUID]], threads: list[MiniThread], crashed: int, exception: tuple[int, int]
) -> bytes:
    """Return a minidump of modules (address, size, path, UUID); `crashed` is a thread, `exception` code and address."""
    count = 5
    out = bytearray(32 + 12 * count)
    directory: list[tuple[int, int, int]] = []

    def put(data: bytes) -> int:
        out.extend(bytes(-len(out) % 8))
        place = len(out)
        out.extend(data)
        return place

    def stream(kind: int, data: bytes) -> None:
        directory.append((kind, len(data), put(data)))

    empty = put(struct.pack("<IH", 0, 0))
    stream(_SYSTEM, struct.pack("<3H2B5I2H24x", _AMD64, 6, 0, 1, 1, 13, 6, 0, _MAC_OS_X, empty, 0, 0))
    entries = b""
    memory = []
    contexts = []
    for number, thread in enumerate(threads):
        stack, at = put(thread.stack), put(context(thread.registers))
        contexts.append(at)
        memory.append((thread.stack_address, len(thread.stack), stack))
        entries += struct.pack("<4IQ", 100 + number, 0, 0, 0, 0)
        entries += struct.pack("<Q4I", thread.stack_address, len(thread.stack), stack, _CONTEXT_SIZE, at)
    stream(_THREADS, struct.pack("<I", len(threads)) + entries)
    entries = b""
    for address, size, path, uuid in modules:
        name = put(struct.pack("<I", 2 * len(path)) + path.encode("utf-16-le") + b"\0\0")
        record = b"RSDS" + uuid.bytes_le + struct.pack("<I", 0) + path.rpartition("/")[2].encode() + b"\0"
        cv = put(record)
        entries += struct.pack("<Q4I52x", address, size, 0, 0, name) + struct.pack("<4I2Q", len(record), cv, 0, 0, 0, 0)
    stream(_MODULES, struct.pack("<I", len(modules)) + entries)
    stream(_MEMORY, struct.pack("<I", len(memory)) + b"".join(struct.pack("<Q2I", *m) for m in memory))
    code, address = exception
    record = struct.pack("<2I2Q2I15Q", code, 0, 0, address, 0, 0, *[0] * 15)
    stream(
        _EXCEPTION, struct.pack("<2I", 100 + crashed, 0) + record + struct.pack("<2I", _CONTEXT_SIZE, contexts[crashed])
    )
    struct.pack_into("<4s5IQ", out, 0, b"MDMP", 0xA793, count, 32, 0, 0, 0)
    for number, (kind, size, place) in enumerate(directory):
        struct.pack_into("<3I", out, 32 + 12 * number, kind, size, place)
    return bytes(out)
