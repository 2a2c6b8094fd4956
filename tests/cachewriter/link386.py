"""A linker for i386 dylibs, as small as the samples allow: ld64.lld has no i386.

One position-independent object file becomes one dylib with __TEXT, __DATA and __LINKEDIT, dyld-info opcodes, an exports
trie, and LC_SEGMENT_SPLIT_INFO (version 1) that tells where code measures the distance to data.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

from tests.cachewriter import machinput
from tests.cachewriter.machinput import NLIST
from tests.cachewriter.object386 import (
    HEADER_ROOM,
    PAGE,
    STUB,
    Link,
    Output,
    lay_out,
    non_lazy_pointers,
    read_object,
    relocate,
)
from tests.cachewriter.trie import Export, exports_of, trie_bytes, uleb_bytes


def _rebase_opcodes(addresses: list[int], data_start: int) -> bytes:
    out = bytearray(b"\x11")
    for address in sorted(addresses):
        out += b"\x21" + uleb_bytes(address - data_start) + b"\x51"
    return bytes(out + b"\0")


def _bind_opcodes(binds: list[tuple[int, str, int]], data_start: int, ordinals: dict[str, tuple[int, int]]) -> bytes:
    out = bytearray(b"\x51")
    for address, name, addend in sorted(binds):
        ordinal, flags = ordinals[name]
        out += bytes([0x10 | ordinal if ordinal >= 0 else 0x30 | ordinal & 0xF, 0x40 | flags]) + name.encode() + b"\0"
        out += b"\x60" + uleb_bytes(addend & 0x3F)
        out += b"\x71" + uleb_bytes(address - data_start) + b"\x90"
    return bytes(out + b"\0")


def _ordinals(link: Link, names: list[str], needs: Sequence[Path], flat: set[str]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    libraries = [exports_of(machinput.parse("", n).exports) for n in needs]
    for name in names:
        weak = any(s[0] == name and s[3] & 0x40 for s in link.obj.symbols)
        ordinal = next((i for i, exports in enumerate(libraries, 1) if name in exports), None)
        if ordinal is None and name not in flat:
            raise ValueError(f"undefined symbol {name}")
        found[name] = (ordinal if ordinal is not None else -2, int(weak))
    return found


def _dylib_command(cmd: int, path: str) -> bytes:
    name = path.encode() + b"\0"
    size = (24 + len(name) + 3) & ~3
    return struct.pack("<6I", cmd, size, 24, 1, 0x10000, 0x10000) + name.ljust(size - 24, b"\0")


def _segment_command(name: str, start: int, size: int, filesize: int, prot: int, sections: list[Output]) -> bytes:
    head = struct.pack(
        "<II16sIIIIIIII", 1, 56 + 68 * len(sections), name.encode(), start, size, start, filesize, prot, prot,
        len(sections), 0,
    )  # fmt: skip
    for s in sections:
        offset = 0 if s.flags & 0xFF in machinput.ZEROFILL_TYPES else s.address
        head += struct.pack(
            "<16s16s9I", s.name.encode(), s.segment.encode(), s.address, s.size, offset, s.align, 0, 0, s.flags,
            *s.reserved,
        )  # fmt: skip
    return head


def _function_starts(link: Link) -> bytes:
    code = [i for i, (o, _) in link.place.items() if o.flags & 0x80000400]
    starts = sorted(
        link.moved(value) for _, kind, sect, _, value in link.obj.symbols if not kind & 0xE0 and sect - 1 in code
    )
    out, last = bytearray(), 0
    for start in dict.fromkeys(starts):
        out += uleb_bytes(start - last)
        last = start
    return bytes(out + b"\0").ljust((len(out) + 4) & ~3, b"\0")


def _split_info(link: Link) -> bytes:
    out, last = bytearray(b"\x01"), 0
    for place in sorted(link.splits):
        out += uleb_bytes(place - last)
        last = place
    return bytes(out + b"\0\0") if link.splits else b""


def _symbol_tables(link: Link, ordinals: dict[str, tuple[int, int]]) -> tuple[bytes, bytes, tuple[int, ...], bytes]:
    """(nlist entries, strings, six dysymtab fields, indirect table)."""
    numbers = {id(o): i for i, o in enumerate(link.outputs, 1)}
    groups: list[list[tuple[str, int, int, int, int]]] = [[], [], []]
    for name, kind, sect, desc, value in link.obj.symbols:
        if kind & 0x0E == 0x0E and sect - 1 in link.place:
            output, _ = link.place[sect - 1]
            private = kind & 0x10
            moved = (name, kind & ~1 if private else kind, numbers[id(output)], desc, link.moved(value))
            groups[0 if private or not kind & 1 else 1].append(moved)
        elif kind & 0x0E == 0:
            ordinal = ordinals.get(name, (1, 0))[0] & 0xFF
            groups[2].append((name, kind, 0, ordinal << 8 | desc & 0x40, 0))
    for group in groups[1:]:
        group.sort()
    symbols = [s for group in groups for s in group]
    strings, entries = bytearray(b" \0"), bytearray()
    for name, kind, sect, desc, value in symbols:
        entries += struct.pack("<IBBHI", len(strings), kind, sect, desc, value)
        strings += name.encode() + b"\0"
    sizes = [len(g) for g in groups]
    fields = (0, sizes[0], sizes[0], sizes[1], sizes[0] + sizes[1], sizes[2])
    index = {s[0]: i for i, s in enumerate(symbols)}
    indirect: list[int] = []
    for output in link.outputs:
        if output.flags & 0xFF not in (6, 7, 8):
            continue
        output.reserved = (len(indirect), len(STUB) if output.flags & 0xFF == 8 else 0)
        if output.flags & 0xFF == 6:
            (number,) = (i for i, (o, _) in link.place.items() if o is output)
            first = link.obj.indirect_first[number]
            for entry in link.obj.indirect[first : first + output.size // 4]:
                indirect.append(0x80000000 if entry & 0x80000000 else index[link.obj.symbols[entry][0]])
        else:
            indirect += [index[name] for name in link.stubs]
    return bytes(entries), bytes(strings), fields, struct.pack(f"<{len(indirect)}I", *indirect)


def _exports(link: Link) -> bytes:
    found = {}
    for name, kind, _, desc, _ in link.obj.symbols:
        if kind & 0x1F == 0x0F:
            found[name.encode()] = Export(4 if desc & 0x80 else 0, link.symbol(name) or 0).payload()
    return trie_bytes(found)


def link(source: Path, target: Path, install_name: str, needs: Sequence[Path], flags: Sequence[str]) -> None:
    """Link the object `source` into the dylib `target` against the dylibs `needs`, with some of ld's flags."""
    run = Link(read_object(source))
    lay_out(run)
    for index in run.place:
        relocate(run, index)
    non_lazy_pointers(run)
    flat = {flags[i + 1] for i, f in enumerate(flags) if f == "-U"}
    ordinals = _ordinals(run, sorted({b[1] for b in run.binds}), needs, flat)

    text = [o for o in run.outputs if o.segment == "__TEXT"]
    data = [o for o in run.outputs if o.segment == "__DATA"]
    text_end = (max(o.address + o.size for o in text) + PAGE - 1) & -PAGE
    data_end = max((o.address + o.size for o in data), default=text_end)
    data_size = (data_end - text_end + PAGE - 1) & -PAGE
    filled = max((o.address + o.size for o in data if o.flags & 0xFF not in machinput.ZEROFILL_TYPES), default=text_end)
    data_filesize = (filled - text_end + PAGE - 1) & -PAGE
    linkedit = text_end + data_size
    entries, strings, fields, indirect = _symbol_tables(run, ordinals)
    dice = b"".join(
        struct.pack("<IHH", run.moved(offset), length, kind)
        for offset, length, kind in struct.iter_unpack("<IHH", run.obj.data_in_code)
    )
    blobs = [
        _rebase_opcodes(run.rebases, text_end), _bind_opcodes(run.binds, text_end, ordinals), _exports(run),
        _split_info(run), _function_starts(run), dice, entries, indirect, strings,
    ]  # fmt: skip
    file_at, offsets, pool = text_end + data_filesize, [], bytearray()
    for blob in blobs:
        pool += bytes(-len(pool) % 4)
        offsets.append((file_at + len(pool), len(blob)))
        pool += blob
    rebase, bind, exports, split, starts, dices, symbols, table, names = offsets
    commands = [_segment_command("__TEXT", 0, text_end, text_end, 5, text)]
    if data:
        commands.append(_segment_command("__DATA", text_end, data_size, data_filesize, 3, data))
    head = struct.pack(
        "<II16s8I", 1, 56, b"__LINKEDIT", linkedit, (len(pool) + PAGE - 1) & -PAGE, file_at, len(pool), 1, 1, 0, 0
    )
    commands += [
        head,
        _dylib_command(0xD, install_name),
        struct.pack("<12I", 0x80000022, 48, *rebase, *bind, 0, 0, 0, 0, *exports),
        struct.pack("<6I", 2, 24, symbols[0], len(entries) // NLIST[False].itemsize, *names),
        struct.pack("<20I", 0xB, 80, *fields, *(0,) * 6, table[0], len(indirect) // 4, 0, 0, 0, 0),
    ]
    if "-no_uuid" not in flags:
        commands.append(struct.pack("<II16s", 0x1B, 24, hashlib.md5(source.read_bytes()).digest()))
    commands.append(struct.pack("<4I", 0x24, 16, 10 << 16 | 13 << 8, 10 << 16 | 13 << 8))
    whole = {flags[i + 1] for i, f in enumerate(flags) if f == "-sub_library"}
    for need in needs:
        name = machinput.parse("", need)
        own = next(machinput._text(name.header[at + 24 : at + size]) for cmd, at, size in name.commands if cmd == 0xD)
        commands.append(_dylib_command(0x8000001F if Path(own).stem in whole else 0xC, own))
    commands.append(struct.pack("<4I", 0x1E, 16, *split))
    if "-no_function_starts" not in flags:
        commands.append(struct.pack("<4I", 0x26, 16, *starts))
    if "-no_data_in_code_info" not in flags:
        commands.append(struct.pack("<4I", 0x29, 16, *dices))
    joined = b"".join(commands)
    if 28 + len(joined) > HEADER_ROOM:
        raise ValueError("too many load commands")
    out = bytearray(file_at)
    out[:28] = struct.pack("<7I", 0xFEEDFACE, 7, 3, 6, len(commands), len(joined), 0x100085)
    out[28 : 28 + len(joined)] = joined
    for output in run.outputs:
        if output.flags & 0xFF not in machinput.ZEROFILL_TYPES:
            out[output.address : output.address + output.size] = output.content
    target.write_bytes(bytes(out) + bytes(pool))
