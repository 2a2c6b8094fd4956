"""x86_64 code whose RIP-relative operands reach into segments that move apart."""

from __future__ import annotations

import re
import struct
from functools import cache

import capstone

from tests.cachewriter.machinput import Image, Section
from tests.cachewriter.mover import Mover
from tests.cachewriter.spans import spans

_RIP = re.compile(r"\[rip(?: (?P<sign>[+-]) (?P<value>0x[0-9a-f]+|\d+))?\]")


@cache
def _disassembler() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def _check_rest(image: Image, code: bytes, low: int, end: int) -> None:
    """What follows the instructions of a function is padding or jump tables; else code may have been missed."""
    at, base = end - low, end - low
    while at + 4 <= len(code):
        (entry,) = struct.unpack_from("<i", code, at)
        if not 0 <= base + entry < end - low:
            # Perhaps the first entry of the next table.
            if at != base and 0 <= at + entry < end - low:
                base = at
                continue
            break
        at += 4
    rest = code[at:]
    padding = sum(size for _, size, name, _ in _disassembler().disasm_lite(rest, 0) if name in ("nop", "int3"))
    if padding < len(rest) and rest.strip(b"\0"):
        raise ValueError(f"{image.path}: at {low + at:#x} lies neither code nor a jump table")


def x86_64_references(image: Image, section: Section) -> list[tuple[int, int, int]]:
    """RIP-relative operands: (address of the displacement, address of the next instruction, target).

    Jump tables lie behind the code of their function. Where LC_DATA_IN_CODE does not name them, they begin at the
    first place behind the code so far that an lea refers to.
    """
    found = []
    text = image.text
    for low, high in spans(image, section):
        code = text.content[low - text.vmaddr : high - text.vmaddr]
        end, table = low, high
        for address, size, name, operands in _disassembler().disasm_lite(code, low):
            if address >= table:
                break
            end = address + size
            match = _RIP.search(operands)
            if not match:
                continue
            value = int(match["value"] or "0", 0)
            value = -value if match["sign"] == "-" else value
            target = end + value
            if name == "lea" and end <= target < table:
                table = target
            raw = code[address - low : end - low]
            pattern = struct.pack("<i", value)
            # The displacement is followed by nothing but an immediate of 0, 1, 2 or 4 bytes.
            places = [size - 4 - tail for tail in (0, 1, 2, 4) if raw[size - 4 - tail : size - tail] == pattern]
            places = [p for p in places if p > 0 and raw[p - 1] & 0xC7 == 0x05]
            if len(places) != 1:
                raise ValueError(f"{image.path}: no single displacement in the instruction at {address:#x}")
            found.append((address + places[0], end, target))
        _check_rest(image, code, low, min(end, table))
    return found


def recode_x86_64(image: Image, mover: Mover, content: bytearray) -> None:
    """Rewrite the references of __TEXT into other segments, in place."""
    text = image.text
    for section in text.sections:
        if not section.code:
            continue
        for place, after, target in x86_64_references(image, section):
            delta = mover.delta(mover.segment(target)) - mover.text_delta
            if delta:
                struct.pack_into("<i", content, place - text.vmaddr, target + delta - after)
