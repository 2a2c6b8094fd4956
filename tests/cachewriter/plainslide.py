"""Slide info, read plainly: every pointer that it describes, by the tables of `dyld_cache_slide_info` 1 to 5."""

from __future__ import annotations

import struct


def decode(info: bytes, content: bytes | bytearray, base: int, bits64: bool) -> list[tuple[int, int, int]]:
    """(offset, plain value, width) of every pointer that slide info describes in a mapping."""
    (version,) = struct.unpack_from("<I", info)
    width = 8 if bits64 else 4

    def raw(at: int) -> int:
        return int.from_bytes(content[at : at + width], "little")

    found: list[tuple[int, int, int]] = []
    if not 1 <= version <= 5:  # one cache at hand has a made-up header whose slide info is none
        return found
    if version == 1:
        toc, count, entries, number, size = struct.unpack_from("<5I", info, 4)
        assert size == 128
        for page in range(count):
            (index,) = struct.unpack_from("<H", info, toc + 2 * page)
            assert index < number
            bitmap = info[entries + 128 * index :][:128]
            for slot in range(1024):
                if bitmap[slot // 8] >> slot % 8 & 1:
                    at = 4096 * page + 4 * slot
                    found.append((at, raw(at), width))
        return found
    if version in (2, 4):
        page_size, starts, count, extras, _, mask, add = struct.unpack_from("<5IQQ", info, 4)
        shift = (mask & -mask).bit_length() - 3
        heads_mask = 0x3FFF if version == 2 else 0x7FFF
        for page in range(count):
            (start,) = struct.unpack_from("<H", info, starts + 2 * page)
            if start == (0x4000 if version == 2 else 0xFFFF):
                continue
            heads = [start]
            if start & 0x8000:
                heads, at = [], start & heads_mask
                while True:
                    (extra,) = struct.unpack_from("<H", info, extras + 2 * at)
                    heads.append(extra & heads_mask)
                    at += 1
                    if extra & 0x8000:
                        break
            for head in heads:
                at, delta = page * page_size + 4 * head, 1
                while delta:
                    delta = (raw(at) & mask) >> shift
                    value = raw(at) & ~mask
                    if version == 2:
                        high = value & 0xFF << 56 if bits64 and not mask >> 56 else 0
                        value = (value - high + add | high) if value else 0
                    elif value & 0x3FFF8000 == 0x3FFF8000:
                        value |= 0xC0000000
                    elif value & 0xFFFF8000:
                        value += add
                    found.append((at, value, width))
                    at += delta
        return found
    page_size, count, add = struct.unpack_from("<II4xQ", info, 4)
    for page in range(count):
        (start,) = struct.unpack_from("<H", info, 0x18 + 2 * page)
        if start == 0xFFFF:
            continue
        at, following = page * page_size + start, 1
        while following:
            word = raw(at)
            if version == 3:
                following = word >> 51 & 0x7FF
                plain = word & (1 << 43) - 1 | (word >> 43 & 0xFF) << 56
                value = add + (word & 0xFFFFFFFF) if word >> 63 else plain
            else:
                following = word >> 52 & 0x7FF
                value = add + (word & (1 << 34) - 1) | (0 if word >> 63 else (word >> 34 & 0xFF) << 56)
            found.append((at, value, width))
            at += 8 * following
    return found
