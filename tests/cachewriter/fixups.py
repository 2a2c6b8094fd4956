"""Rebases and binds of a dylib: dyld-info opcodes and chained fixups (<mach-o/loader.h>, <mach-o/fixup-chains.h>)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SELF, MAIN_EXECUTABLE, FLAT_LOOKUP, WEAK_LOOKUP = 0, -1, -2, -3


@dataclass(frozen=True)
class Auth:
    """How an arm64e pointer is signed: key 0 IA, 1 IB, 2 DA, 3 DB."""

    key: int
    diversity: int
    address_diversity: bool


@dataclass(frozen=True)
class Rebase:
    """A pointer at `address` to `target`, both original unslid addresses of the same image."""

    address: int
    target: int
    high8: int = 0
    auth: Auth | None = None


@dataclass(frozen=True)
class Bind:
    """A pointer at `address` to a symbol of the library with that ordinal, plus `addend`."""

    address: int
    ordinal: int
    name: str
    addend: int
    weak: bool
    auth: Auth | None = None


def uleb(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number: (value, position after it)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """Read a signed LEB128 number: (value, position after it)."""
    value, end = uleb(data, at)
    return (value - (1 << 7 * (end - at)) if data[end - 1] & 0x40 else value), end


def _cstring(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode("utf-8", "surrogateescape"), end + 1


def _rebase_addresses(ops: bytes, vmaddrs: list[int], pointer_size: int) -> Iterator[int]:
    at = address = 0
    while at < len(ops):
        opcode, low = ops[at] & 0xF0, ops[at] & 0x0F
        at += 1
        count, step = 0, pointer_size
        if opcode == 0x00:  # DONE
            return
        if opcode == 0x20:  # SET_SEGMENT_AND_OFFSET_ULEB
            offset, at = uleb(ops, at)
            address = vmaddrs[low] + offset
        elif opcode == 0x30:  # ADD_ADDR_ULEB
            offset, at = uleb(ops, at)
            address += offset
        elif opcode == 0x40:  # ADD_ADDR_IMM_SCALED
            address += low * pointer_size
        elif opcode == 0x50:  # DO_REBASE_IMM_TIMES
            count = low
        elif opcode == 0x60:  # DO_REBASE_ULEB_TIMES
            count, at = uleb(ops, at)
        elif opcode == 0x70:  # DO_REBASE_ADD_ADDR_ULEB
            skip, at = uleb(ops, at)
            count, step = 1, pointer_size + skip
        elif opcode == 0x80:  # DO_REBASE_ULEB_TIMES_SKIPPING_ULEB
            count, at = uleb(ops, at)
            skip, at = uleb(ops, at)
            step = pointer_size + skip
        elif opcode != 0x10:  # SET_TYPE_IMM is ignored: pointers only
            raise ValueError(f"rebase opcode {opcode:#x}")
        for _ in range(count):
            yield address & 0xFFFFFFFFFFFFFFFF
            address += step


def _bind_opcodes(ops: bytes, vmaddrs: list[int], pointer_size: int, *, kind: str) -> Iterator[Bind]:
    at = address = addend = 0
    ordinal = WEAK_LOOKUP if kind == "weak" else 0
    name, flags = "", 0
    while at < len(ops):
        opcode, low = ops[at] & 0xF0, ops[at] & 0x0F
        at += 1
        count, step = 0, pointer_size
        if opcode == 0x00:
            if kind == "lazy":
                continue
            return
        if opcode == 0x10:  # SET_DYLIB_ORDINAL_IMM
            ordinal = low
        elif opcode == 0x20:
            ordinal, at = uleb(ops, at)
        elif opcode == 0x30:  # SET_DYLIB_SPECIAL_IMM
            ordinal = low - 16 if low else 0
        elif opcode == 0x40:  # SET_SYMBOL_TRAILING_FLAGS_IMM
            flags = low
            name, at = _cstring(ops, at)
        elif opcode == 0x60:  # SET_ADDEND_SLEB
            addend, at = sleb(ops, at)
        elif opcode == 0x70:
            offset, at = uleb(ops, at)
            address = vmaddrs[low] + offset
        elif opcode == 0x80:
            offset, at = uleb(ops, at)
            address += offset
        elif opcode == 0x90:  # DO_BIND
            count = 1
        elif opcode == 0xA0:
            skip, at = uleb(ops, at)
            count, step = 1, pointer_size + skip
        elif opcode == 0xB0:
            count, step = 1, pointer_size * (low + 1)
        elif opcode == 0xC0:
            count, at = uleb(ops, at)
            skip, at = uleb(ops, at)
            step = pointer_size + skip
        elif opcode != 0x50:
            raise ValueError(f"bind opcode {opcode:#x}")
        address &= 0xFFFFFFFFFFFFFFFF
        for _ in range(count):
            yield Bind(address, ordinal, name, addend, bool(flags & 1))
            address = (address + step) & 0xFFFFFFFFFFFFFFFF


def opcode_fixups(
    streams: list[bytes], vmaddrs: list[int], pointer_size: int, pointer: Callable[[int], int]
) -> tuple[list[Rebase], list[Bind]]:
    """Decode the rebase, bind, weak-bind and lazy-bind streams of LC_DYLD_INFO.

    `pointer` reads the original content at an address. A location that is bound is not rebased.
    """
    rebase, bind, weak, lazy = streams
    binds: dict[int, Bind] = {}
    for ops, kind in ((lazy, "lazy"), (bind, "plain"), (weak, "weak")):
        for one in _bind_opcodes(ops, vmaddrs, pointer_size, kind=kind):
            binds[one.address] = one
    addresses = [a for a in _rebase_addresses(rebase, vmaddrs, pointer_size) if a not in binds]
    rebases = []
    for address in addresses:
        target = pointer(address)  # libc++ tags names of types in the top bit of a pointer
        rebases.append(Rebase(address, target & 0x00FFFFFFFFFFFFFF, target >> 56))
    return rebases, list(binds.values())


def _imports(payload: bytes) -> list[tuple[int, bool, str, int]]:
    """All imports of LC_DYLD_CHAINED_FIXUPS: (ordinal, weak, name, addend)."""
    _, _, imports, symbols, count, form, packed = struct.unpack_from("<7I", payload)
    if packed:
        raise ValueError("compressed symbol strings in chained fixups")
    result = []
    for i in range(count):
        addend = 0
        if form == 3:
            word, addend = struct.unpack_from("<Qq", payload, imports + 16 * i)
            ordinal, weak, name = word & 0xFFFF, bool(word >> 16 & 1), word >> 32
            ordinal = ordinal - 0x10000 if ordinal > 0xFFF0 else ordinal
        else:
            if form == 2:
                word, addend = struct.unpack_from("<Ii", payload, imports + 8 * i)
            else:
                (word,) = struct.unpack_from("<I", payload, imports + 4 * i)
            ordinal, weak, name = word & 0xFF, bool(word >> 8 & 1), word >> 9
            ordinal = ordinal - 0x100 if ordinal > 0xF0 else ordinal
        result.append((ordinal, weak, _cstring(payload, symbols + name)[0], addend))
    return result


def _arm64e(raw: int, form: int, address: int, base: int) -> tuple[Rebase | tuple[int, int, Auth | None], int]:
    """One arm64e pointer: a Rebase, or (import, addend, auth); and the distance to the next in bytes."""
    following = (raw >> 51 & 0x7FF) * 8
    auth = Auth(raw >> 49 & 3, raw >> 32 & 0xFFFF, bool(raw >> 48 & 1)) if raw >> 63 else None
    if raw >> 62 & 1:
        number = raw & (0xFFFFFF if form == 12 else 0xFFFF)
        addend = raw >> 32 & 0x7FFFF
        if auth:
            addend = 0
        return (number, addend - 0x80000 if addend & 0x40000 else addend, auth), following
    if auth:
        return Rebase(address, base + (raw & 0xFFFFFFFF), 0, auth), following
    target = raw & ((1 << 43) - 1)
    return Rebase(address, target if form == 1 else base + target, raw >> 43 & 0xFF), following


def chained_fixups(
    payload: bytes, data: bytes, segments: list[tuple[int, int]], base: int
) -> tuple[list[Rebase], list[Bind]]:
    """Decode LC_DYLD_CHAINED_FIXUPS; `segments` has (vmaddr, fileoff) of every segment in command order."""
    _, starts, *_ = struct.unpack_from("<7I", payload)
    imports = _imports(payload)
    rebases: list[Rebase] = []
    binds: list[Bind] = []

    def bind(address: int, number: int, addend: int, auth: Auth | None = None) -> None:
        ordinal, weak, name, more = imports[number]
        binds.append(Bind(address, ordinal, name, addend + more, weak, auth))

    (count,) = struct.unpack_from("<I", payload, starts)
    for index in range(count):
        (offset,) = struct.unpack_from("<I", payload, starts + 4 + 4 * index)
        if not offset:
            continue
        _, page_size, form, _, _, pages = struct.unpack_from("<IHHQIH", payload, starts + offset)
        vmaddr, fileoff = segments[index]
        for page in range(pages):
            (start,) = struct.unpack_from("<H", payload, starts + offset + 22 + 2 * page)
            if start == 0xFFFF:
                continue
            at = page * page_size + start
            while True:
                address = vmaddr + at
                raw = int.from_bytes(data[fileoff + at : fileoff + at + 8], "little")
                if form in (2, 6):
                    following = (raw >> 51 & 0xFFF) * 4
                    if raw >> 63:
                        bind(address, raw & 0xFFFFFF, raw >> 24 & 0xFF)
                    else:
                        target = raw & 0xFFFFFFFFF
                        rebases.append(Rebase(address, target + (base if form == 6 else 0), raw >> 36 & 0xFF))
                elif form in (1, 9, 12):
                    found, following = _arm64e(raw, form, address, base)
                    if isinstance(found, Rebase):
                        rebases.append(found)
                    else:
                        bind(address, *found)
                else:
                    raise ValueError(f"chained pointer format {form}")
                if not following:
                    break
                at += following
    return rebases, binds
