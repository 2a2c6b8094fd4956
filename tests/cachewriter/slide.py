"""Slide info, versions 1 to 5: `dyld_cache_slide_info*` and the pointers that are chained by it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.cachewriter.fixups import Auth


@dataclass(frozen=True)
class Pointer:
    """One pointer of a mapping: where (offset in the mapping) and what it holds (an unslid cache address)."""

    offset: int
    target: int
    high8: int = 0
    auth: Auth | None = None

    @property
    def plain(self) -> int:
        return self.target | self.high8 << 56


@dataclass(frozen=True)
class SlideOptions:
    """What an encoder needs to know besides the pointers."""

    version: int
    base: int
    width: int
    page_size: int
    delta_mask: int
    value_add: int


def encode(content: bytearray, pointers: list[Pointer], o: SlideOptions) -> bytes:
    """Chain `pointers` through `content` in place and return the slide info blob."""
    pages: list[list[Pointer]] = [[] for _ in range((len(content) + o.page_size - 1) // o.page_size)]
    for pointer in sorted(pointers, key=lambda p: p.offset):
        pages[pointer.offset // o.page_size].append(pointer)
        if pointer.offset % o.page_size > o.page_size - o.width:
            raise ValueError(f"the pointer at {pointer.offset:#x} lies across two pages")
    return {1: _v1, 2: _v2_v4, 3: _v3_v5, 4: _v2_v4, 5: _v3_v5}[o.version](content, pages, o)


def _v1(content: bytearray, pages: list[list[Pointer]], o: SlideOptions) -> bytes:
    if o.page_size != 0x1000:
        raise ValueError("slide info version 1 has pages of 4096 bytes")
    entries: dict[bytes, int] = {}
    toc = []
    for page in pages:
        bitmap = bytearray(128)
        for p in page:
            content[p.offset : p.offset + o.width] = p.plain.to_bytes(o.width, "little")
            slot = p.offset % 0x1000 // 4
            bitmap[slot // 8] |= 1 << slot % 8
        toc.append(entries.setdefault(bytes(bitmap), len(entries)))
    toc_bytes = struct.pack(f"<{len(toc)}H", *toc)
    entries_offset = (0x18 + len(toc_bytes) + 3) & ~3
    head = struct.pack("<6I", 1, 0x18, len(toc), entries_offset, len(entries), 128)
    return (head + toc_bytes).ljust(entries_offset, b"\0") + b"".join(entries)


def _raw_v2(p: Pointer, o: SlideOptions) -> int:
    raw = p.target - o.value_add
    if o.width == 8 and not o.delta_mask >> 56:
        raw |= p.high8 << 56
    elif p.high8:
        raise ValueError("this delta mask leaves no room for a tag in the top byte")
    if raw < 0 or raw & o.delta_mask or raw >> (8 * o.width) or not raw:
        raise ValueError(f"{p.target:#x} does not fit beside the delta mask {o.delta_mask:#x}")
    if o.version == 4 and (not raw & 0xFFFF8000 or raw & 0x3FFF8000 == 0x3FFF8000):
        raise ValueError(f"{p.target:#x} would look like a small number in slide info version 4")
    return raw


def _v2_v4(content: bytearray, pages: list[list[Pointer]], o: SlideOptions) -> bytes:
    shift = (o.delta_mask & -o.delta_mask).bit_length() - 1 - 2
    furthest = o.delta_mask >> shift
    nothing, extra_flag = (0x4000, 0x8000) if o.version == 2 else (0xFFFF, 0x8000)
    starts: list[int] = []
    extras: list[int] = []
    for page in pages:
        heads = []
        for i, p in enumerate(page):
            if p.offset % 4:
                raise ValueError(f"the pointer at {p.offset:#x} is not aligned")
            if i == 0 or p.offset - page[i - 1].offset > furthest:
                heads.append(p.offset % o.page_size // 4)
            following = page[i + 1].offset - p.offset if i + 1 < len(page) else 0
            delta = 0 if following > furthest else following
            raw = _raw_v2(p, o) | delta << shift
            content[p.offset : p.offset + o.width] = raw.to_bytes(o.width, "little")
        if not heads:
            starts.append(nothing)
        elif len(heads) == 1:
            starts.append(heads[0])
        else:
            starts.append(extra_flag | len(extras))
            extras += heads
            extras[-1] |= extra_flag
    if len(extras) > 0x3FFF:
        raise ValueError("more chain starts than page_extras can index")
    at = 0x28
    head = struct.pack(
        "<6IQQ", o.version, o.page_size, at, len(starts), at + 2 * len(starts), len(extras), o.delta_mask, o.value_add
    )
    return head + struct.pack(f"<{len(starts) + len(extras)}H", *starts, *extras)


def _raw_v3(p: Pointer, o: SlideOptions) -> int:
    if p.auth:
        offset = p.target - o.value_add
        if not 0 <= offset < 1 << 32:
            raise ValueError(f"{p.target:#x} is too far from {o.value_add:#x} for an authenticated pointer")
        auth = p.auth
        return 1 << 63 | auth.key << 49 | int(auth.address_diversity) << 48 | auth.diversity << 32 | offset
    if p.target >> 43:
        raise ValueError(f"{p.target:#x} has more than 43 bits")
    return p.high8 << 43 | p.target


def _raw_v5(p: Pointer, o: SlideOptions) -> int:
    offset = p.target - o.value_add
    if not 0 <= offset < 1 << 34:
        raise ValueError(f"{p.target:#x} is too far from {o.value_add:#x}")
    if p.auth:
        if p.auth.key & 1:
            raise ValueError("slide info version 5 knows no B keys")
        data_key = p.auth.key >> 1
        return 1 << 63 | data_key << 51 | int(p.auth.address_diversity) << 50 | p.auth.diversity << 34 | offset
    return p.high8 << 34 | offset


def _v3_v5(content: bytearray, pages: list[list[Pointer]], o: SlideOptions) -> bytes:
    encode_one, shift = (_raw_v3, 51) if o.version == 3 else (_raw_v5, 52)
    starts = []
    for page in pages:
        starts.append(page[0].offset % o.page_size if page else 0xFFFF)
        for i, p in enumerate(page):
            delta = page[i + 1].offset - p.offset if i + 1 < len(page) else 0
            if p.offset % 8 or delta // 8 > 0x7FF:
                raise ValueError(f"the pointer at {p.offset:#x} cannot be chained in units of 8 bytes")
            content[p.offset : p.offset + 8] = (encode_one(p, o) | delta // 8 << shift).to_bytes(8, "little")
    head = struct.pack("<3I4xQ", o.version, o.page_size, len(starts), o.value_add)
    return head + struct.pack(f"<{len(starts)}H", *starts)
