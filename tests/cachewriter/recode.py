"""Code and unwind data whose pc-relative references cross segments that move apart."""

from __future__ import annotations

import bisect
import itertools
import re
import struct
from functools import cache

import capstone
import numpy as np

from tests.cachewriter.fixups import uleb
from tests.cachewriter.machinput import Image, Section

_RIP = re.compile(r"\[rip (?P<sign>[+-]) (?P<value>0x[0-9a-f]+|\d+)\]|\[rip\]")


class Mover:
    """Where original addresses of one image lie in the cache: a segment's addresses move by its own distance."""

    def __init__(self, image: Image, addresses: list[int]) -> None:
        self.image = image
        self.addresses = addresses
        order = sorted(range(len(addresses)), key=lambda i: image.segments[i].vmaddr)
        self._starts = [image.segments[i].vmaddr for i in order]
        self._order = order
        self.text_delta = self.delta(next(i for i, s in enumerate(image.segments) if s.name == "__TEXT"))

    def delta(self, segment: int) -> int:
        return self.addresses[segment] - self.image.segments[segment].vmaddr

    def segment(self, address: int) -> int:
        """Index of the segment of an original address; the end of a segment belongs to it when nothing follows."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at >= 0:
            segment = self.image.segments[self._order[at]]
            if segment.vmaddr <= address <= segment.vmaddr + segment.vmsize:
                return self._order[at]
        raise ValueError(f"{self.image.path}: {address:#x} lies in no segment")

    def moved(self, address: int) -> int:
        return address + self.delta(self.segment(address))


@cache
def _x86(bits: int) -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)


def _spans(image: Image, section: Section) -> list[tuple[int, int]]:
    """Stretches of instructions: between function starts, without what LC_DATA_IN_CODE names."""
    starts = set()
    at, address = 0, image.text.vmaddr
    payload = image.function_starts or b""
    while at < len(payload):
        delta, at = uleb(payload, at)
        if not delta:
            break
        address += delta
        starts.add(address)
    holes = []
    for offset, length, _ in struct.iter_unpack("<IHH", image.data_in_code or b""):
        begin = image.text.vmaddr + offset - image.text.fileoff
        holes.append((begin, begin + length))
    if section.flags & 0xFF == 8:  # S_SYMBOL_STUBS: each stub for itself
        starts.clear()
    low, high = section.addr, section.addr + section.size
    edges = sorted(
        {low, high, *(a for a in starts if low < a < high), *(e for h in holes for e in h if low < e < high)}
    )
    inside = [(a, b) for a, b in itertools.pairwise(edges)]
    return [(a, b) for a, b in inside if not any(x <= a < y for x, y in holes)]


def x86_64_references(image: Image, section: Section) -> list[tuple[int, int, int]]:
    """RIP-relative operands: (address of the displacement, address of the next instruction, target)."""
    found = []
    text = image.text
    for low, high in _spans(image, section):
        code = text.content[low - text.vmaddr : high - text.vmaddr]
        for address, size, _, operands in _x86(64).disasm_lite(code, low):
            match = _RIP.search(operands)
            if not match:
                continue
            value = int(match["value"] or "0", 0) if match["value"] else 0
            value = -value if match["sign"] == "-" else value
            raw = code[address - low : address - low + size]
            pattern = struct.pack("<i", value)
            # The displacement is followed by nothing but an immediate of 0, 1, 2 or 4 bytes.
            places = [size - 4 - tail for tail in (0, 1, 2, 4) if raw[size - 4 - tail : size - tail] == pattern]
            places = [p for p in places if p > 0 and raw[p - 1] & 0xC7 == 0x05]
            if len(places) != 1:
                raise ValueError(f"{image.path}: no single displacement in the instruction at {address:#x}")
            found.append((address + places[0], address + size, address + size + value))
    return found


def _x86_64(image: Image, mover: Mover, content: bytearray) -> None:
    text = image.text
    for section in text.sections:
        if not section.code:
            continue
        for place, after, target in x86_64_references(image, section):
            delta = mover.delta(mover.segment(target)) - mover.text_delta
            if delta:
                struct.pack_into("<i", content, place - text.vmaddr, target + delta - after)


def adrp_references(code: bytes, address: int) -> list[tuple[int, int]]:
    """(address of the adrp, page that it forms) of each adrp in `code`."""
    words = np.frombuffer(code[: len(code) & ~3], "<u4")
    at = np.flatnonzero((words & 0x9F000000) == 0x90000000)
    word = words[at].astype(np.int64)
    page = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
    page = np.where(page >= 1 << 20, page - (1 << 21), page)
    here = address + 4 * at.astype(np.int64)
    return list(zip(here.tolist(), ((here & ~0xFFF) + (page << 12)).tolist(), strict=True))


def _arm64(image: Image, mover: Mover, content: bytearray) -> None:
    text = image.text
    for section in text.sections:
        if not section.code:
            continue
        for low, high in _spans(image, section):
            code = bytes(text.content[low - text.vmaddr : high - text.vmaddr])
            for address, page in adrp_references(code, low):
                delta = mover.delta(mover.segment(page)) - mover.text_delta
                if not delta:
                    continue
                if delta & 0xFFF:
                    raise ValueError(f"{image.path}: a segment moved by {delta:#x}, not by whole pages")
                moved = (page + delta - (address & ~0xFFF)) >> 12
                if not -(1 << 20) <= moved < 1 << 20:
                    raise ValueError(f"{image.path}: the adrp at {address:#x} cannot reach {page + delta:#x}")
                at = address - text.vmaddr
                (word,) = struct.unpack_from("<I", content, at)
                word = word & 0x9F00001F | (moved & 3) << 29 | (moved >> 2 & 0x7FFFF) << 5
                struct.pack_into("<I", content, at, word)


def _split_info_v1(image: Image, mover: Mover, content: bytearray) -> None:
    """LC_SEGMENT_SPLIT_INFO, version 1: lists of places, each a kind byte and ULEB128 deltas ended by 0.

    Kind 1 is a 32-bit value that grows with the distance from __TEXT to the data segments.
    """
    text = image.text
    payload, at = image.split_info, 0
    while at < len(payload) and payload[at]:
        kind, at, address = payload[at], at + 1, 0
        while True:
            delta, at = uleb(payload, at)
            if not delta:
                break
            address += delta
            if kind != 1:
                raise ValueError(f"{image.path}: split info of kind {kind}")
            distances = {mover.delta(i) for i, s in enumerate(image.segments) if s.name != "__TEXT"}
            if len(distances) != 1:
                raise ValueError(f"{image.path}: split info of version 1 needs its data segments to move together")
            (value,) = struct.unpack_from("<I", content, address)
            struct.pack_into("<I", content, address, (value + distances.pop() - mover.text_delta) & 0xFFFFFFFF)
    del text


def _unwind_info(image: Image, mover: Mover, content: bytearray) -> None:
    """Personality routines in __unwind_info: header-relative offsets of pointers in a data segment."""
    text = image.text
    for section in text.sections:
        if section.name != "__unwind_info" or section.size < 28:
            continue
        at = section.addr - text.vmaddr
        offset, count = struct.unpack_from("<2I", content, at + 12)
        for i in range(count):
            (value,) = struct.unpack_from("<I", content, at + offset + 4 * i)
            moved = mover.moved(text.vmaddr + value) - mover.text_delta - text.vmaddr
            struct.pack_into("<I", content, at + offset + 4 * i, moved)


def _eh_frame(image: Image, mover: Mover, content: bytearray) -> None:
    """Personality routines in the CIEs of __eh_frame: pc-relative offsets of pointers in a data segment."""
    text = image.text
    for section in text.sections:
        if section.name != "__eh_frame":
            continue
        at, end = section.addr - text.vmaddr, section.addr + section.size - text.vmaddr
        while at + 8 <= end:
            length, identity = struct.unpack_from("<2I", content, at)
            if not length:
                break
            if length == 0xFFFFFFFF:
                raise ValueError(f"{image.path}: 64-bit DWARF in __eh_frame")
            if not identity:
                _cie(image, mover, content, at)
            at += 4 + length


def _cie(image: Image, mover: Mover, content: bytearray, at: int) -> None:
    letters_end = content.index(0, at + 9)
    letters, at = content[at + 9 : letters_end].decode(), letters_end + 1
    if "P" not in letters:
        return
    _, at = uleb(content, at)
    _, at = uleb(content, at)  # a SLEB128, only skipped
    _, at = uleb(content, at)
    _, at = uleb(content, at)
    for letter in letters[1:]:
        if letter in "LR":
            at += 1
        elif letter == "P":
            if content[at] not in (0x9B, 0x1B):
                raise ValueError(f"{image.path}: a personality encoded as {content[at]:#x}")
            at += 1
            (value,) = struct.unpack_from("<i", content, at)
            target = image.text.vmaddr + at + value
            delta = mover.delta(mover.segment(target)) - mover.text_delta
            struct.pack_into("<i", content, at, value + delta)
            at += 4


def recode_text(image: Image, mover: Mover) -> bytearray:
    """The content of __TEXT after its image's segments have moved, load commands untouched."""
    content = bytearray(image.text.content)
    if image.cputype == 0x01000007:
        _x86_64(image, mover, content)
    elif image.cputype & 0xFFFFFF == 12:
        _arm64(image, mover, content)
    elif image.split_info:
        _split_info_v1(image, mover, content)
    elif len({mover.delta(i) for i in range(len(image.segments))}) > 1:
        raise ValueError(f"{image.path}: code of cputype {image.cputype} cannot be moved without split info")
    _unwind_info(image, mover, content)
    _eh_frame(image, mover, content)
    return content
