"""arm64 code whose pc-relative references cross segments that move apart.

Where a segment moves by whole 4 KB pages, an adrp needs its page moved, and the low 12 bits that follow it stay. By
other distances it moves only where `adrp_flow` knows what completes each page. Where the linker has relaxed a pair
(`adr; nop` for adrp and add, `nop; ldr literal` for adrp and ldr), the pair is restored.
"""

from __future__ import annotations

import struct
from functools import cache

import capstone
import numpy as np

from tests.cachewriter.adrp_flow import Pair, load_scale
from tests.cachewriter.machinput import Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.spans import spans

NOP = 0xD503201F
_FORMS = ((0x9F000000, 0x90000000, "adrp"), (0x9F000000, 0x10000000, "adr"), (0x3B000000, 0x18000000, "ldr"))


@cache
def _disassembler() -> capstone.Cs:
    cs = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    cs.detail = True
    return cs


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values)


def references(code: bytes, address: int) -> list[tuple[int, str, int]]:
    """(address, kind, target) of each adrp (its page), adr and literal ldr in `code`."""
    words = np.frombuffer(code[: len(code) & ~3], "<u4")
    found: list[tuple[int, str, int]] = []
    for mask, value, kind in (
        (0x9F000000, 0x90000000, "adrp"),
        (0x9F000000, 0x10000000, "adr"),
        (0x3B000000, 0x18000000, "ldr"),
    ):
        at = np.flatnonzero((words & mask) == value)
        word = words[at].astype(np.int64)
        here = address + 4 * at.astype(np.int64)
        immediate = _signed(word >> 5 & 0x7FFFF, 19)
        if kind == "ldr":
            target = here + (immediate << 2)
        else:
            immediate = immediate << 2 | word >> 29 & 3
            target = here + immediate if kind == "adr" else (here & ~0xFFF) + (immediate << 12)
        found += zip(here.tolist(), [kind] * len(at), target.tolist(), strict=True)
    return sorted(found)


def _adrp(register: int, here: int, target: int) -> int:
    distance = (target >> 12) - (here >> 12)
    if not -(1 << 20) <= distance < 1 << 20:
        raise ValueError(f"an adrp at {here:#x} cannot reach {target:#x}")
    return 0x90000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | register


def _partner(code: bytes, low: int, address: int, register: int, step: int, taken: dict[int, int]) -> int | None:
    """Address of a nop that the linker left of a relaxed pair, if the way there leaves the register alone.

    `taken` has the nops that are in use already, with the register that they now set.
    """
    names = {f"x{register}", f"w{register}"}
    here = address + step
    while low <= here < low + len(code) and abs(here - address) <= 64:
        raw = code[here - low : here - low + 4]
        if raw == NOP.to_bytes(4, "little"):
            if here not in taken:
                return here
            if taken[here] == register:
                return None
        instruction = next(_disassembler().disasm(raw, here), None)
        if instruction is None or instruction.group(capstone.CS_GRP_JUMP) or instruction.group(capstone.CS_GRP_RET):
            return None
        if names & {instruction.reg_name(r) for access in instruction.regs_access() for r in access}:
            return None
        here += step
    return None


def _restored(
    code: bytes, low: int, address: int, kind: str, moved: int, taken: dict[int, int]
) -> list[tuple[int, int]]:
    """(place, instruction) of the adrp pair that stands for an adr or literal ldr; places are original addresses."""
    (word,) = struct.unpack_from("<I", code, address - low)
    register = word & 31
    if kind == "adr":
        second = 0x91000000 | (moved & 0xFFF) << 10 | register << 5 | register
    else:
        size = word >> 30
        if word >> 26 & 1 or size > 2:
            raise ValueError(f"the literal load at {address:#x} leaves no register for an address")
        base, shift = ((0xB9400000, 2), (0xF9400000, 3), (0xB9800000, 2))[size]
        second = base | (moved & 0xFFF) >> shift << 10 | register << 5 | register
    if kind == "adr" and (other := _partner(code, low, address, register, 4, taken)) is not None:
        taken[other] = register
        return [(address, _adrp(register, address, moved)), (other, second)]
    if (other := _partner(code, low, address, register, -4, taken)) is not None:
        taken[other] = register
        return [(other, _adrp(register, other, moved)), (address, second)]
    raise ValueError(f"the relaxed pair at {address:#x} has no nop to restore it with")


def pages_hold(pairs: list[Pair], mover: Mover) -> bool:
    """Whether all that completes one adrp still lies in one page after the move."""
    return all(len({mover.moved(pair.page + low) >> 12 for low in pair.uses.values()}) <= 1 for pair in pairs)


def _completed(code: bytes, low: int, address: int, mover: Mover) -> list[tuple[int, int]]:
    """(place, instruction) of an adrp and of all that completes it, after a move by any distance."""
    pair = next((p for p in mover.pairs or () if p.place == address), None)
    if pair is None:
        raise ValueError(f"the adrp at {address:#x} can be moved by whole pages only")
    words, page = [], 0
    for place, offset in pair.uses.items():
        (word,) = struct.unpack_from("<I", code, place - low)
        moved = mover.moved(pair.page + offset)
        page = moved - mover.text_delta & ~0xFFF
        scale = load_scale(word) if word & 0x3B000000 == 0x39000000 else 0
        if moved & (1 << scale) - 1:
            raise ValueError(f"the load at {place:#x} cannot reach {moved:#x}")
        words.append((place, word & 0xFFC003FF | (moved & 0xFFF) >> scale << 10))
    (word,) = struct.unpack_from("<I", code, address - low)
    return [(address, _adrp(word & 31, address, page)), *words]


def recode_arm64(image: Image, mover: Mover, content: bytearray) -> None:
    """Rewrite the references of __TEXT into other segments, in place."""
    text = image.text
    for section in text.sections:
        if not section.code:
            continue
        for low, high in spans(image, section):
            code = bytes(text.content[low - text.vmaddr : high - text.vmaddr])
            taken: dict[int, int] = {}
            for address, kind, target in references(code, low):
                distance = mover.delta(mover.segment(target)) - mover.text_delta
                if not distance:
                    continue
                try:
                    if kind == "adrp" and distance & 0xFFF:
                        words = _completed(code, low, address, mover)
                    elif kind == "adrp":
                        (word,) = struct.unpack_from("<I", code, address - low)
                        words = [(address, _adrp(word & 31, address, target + distance))]
                    else:
                        words = _restored(code, low, address, kind, target + distance, taken)
                except ValueError as error:
                    raise ValueError(f"{image.path}: {error}") from None
                for place, word in words:
                    struct.pack_into("<I", content, place - text.vmaddr, word)
