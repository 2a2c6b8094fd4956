"""Which instructions complete the page that an arm64 adrp forms: a forward flow over each function.

Where the answer is certain, code may be moved by any distance, as Apple's builder does with what the linker noted in
LC_SEGMENT_SPLIT_INFO. Where it is not (a page that is used in another way, or that code may use which only a jump
table or a landing pad leads to), the caller has to move segments by whole pages.
"""

from __future__ import annotations

import itertools
import re
import struct
from dataclasses import dataclass, field
from functools import cache

import capstone

from tests.cachewriter.machinput import Image
from tests.cachewriter.spans import spans

_REGISTER = re.compile(r"[wx](\d+)")
_BRANCHES = re.compile(r"b(\.\w+)?|cbn?z|tbn?z")


@dataclass
class Pair:
    """An adrp, the page that it forms, and the (place, low 12 bits in bytes) of all instructions that complete it."""

    place: int
    page: int
    uses: dict[int, int] = field(default_factory=dict)


_known: dict[bytes, list[Pair] | None] = {}


class Uncertain(Exception):
    """The code does not tell where a page is completed."""


@cache
def _disassembler() -> capstone.Cs:
    cs = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    cs.detail = True
    return cs


def completes(word: int) -> tuple[int, int] | None:
    """(base register, offset in bytes) of `add xd, xn, #imm` and of loads and stores with an unsigned offset."""
    immediate = word >> 10 & 0xFFF
    if word & 0xFFC00000 == 0x91000000 or word & 0xFFC00000 == 0x11000000:  # ILP32 adds in 32 bits
        return word >> 5 & 31, immediate
    if word & 0x3B000000 == 0x39000000:
        return word >> 5 & 31, immediate << load_scale(word)
    return None


def load_scale(word: int) -> int:
    """log2 of the size of a load or store with an unsigned offset."""
    if word >> 26 & 1 and word >> 23 & 1:
        return 4
    return word >> 30


def _numbers(instruction: capstone.CsInsn, registers: list[int]) -> set[int]:
    found = set()
    for register in registers:
        name = instruction.reg_name(register)
        match = _REGISTER.fullmatch(name)
        found.add(int(match[1]) if match else {"fp": 29, "lr": 30}.get(name, -1))
    return found - {-1}


State = dict[int, frozenset[int]]  # register -> adrps, one of which has set it on every way here


def _flow(code: bytes, low: int, instructions: dict[int, capstone.CsInsn]) -> tuple[dict[int, State], set[int]]:
    """States before each instruction, and the addresses reached by no way that the function itself shows."""
    states: dict[int, State] = {}
    hidden: set[int] = set()
    work: list[tuple[int, State, bool]] = [(low, {}, False)]
    remaining = iter(instructions)
    while work:
        at, state, secret = work.pop()
        known = states.get(at)
        if known is not None:
            state = {r: known[r] | state[r] for r in known.keys() & state.keys()}
        if at in instructions and state != known:
            states[at] = state
            if secret:
                hidden.add(at)
            work += [(following, after, secret) for following, after in _step(instructions[at], code, low, state)]
        if not work:
            # Cases of jump tables and landing pads.
            work += [(a, {}, True) for a in itertools.islice((a for a in remaining if a not in states), 1)]
    return states, hidden


def _function(code: bytes, low: int) -> list[Pair]:
    """All pairs of one function; raises Uncertain."""
    if not any(word & 0x9F000000 == 0x90000000 for (word,) in struct.iter_unpack("<I", code[: len(code) & ~3])):
        return []
    instructions = {i.address: i for i in _disassembler().disasm(code, low)}
    pairs = {a: Pair(a, i.operands[1].imm) for a, i in instructions.items() if i.mnemonic == "adrp"}
    states, hidden = _flow(code, low, instructions)
    carriers = {r for at, state in states.items() for r in state if instructions[at].mnemonic in ("bl", "blr", "br")}
    for at, state in states.items():
        (word,) = struct.unpack_from("<I", code, at - low)
        use = completes(word)
        if use and use[0] in state:
            for place in state[use[0]]:
                pairs[place].uses[at] = use[1]
        elif use and at in hidden and use[0] in carriers:
            raise Uncertain(f"the instruction at {at:#x} may complete a page")
        elif instructions[at].mnemonic not in ("bl", "blr", "ret", "mov", "br"):
            reads, writes = (_numbers(instructions[at], list(r)) for r in instructions[at].regs_access())
            if reads & state.keys() - writes:
                raise Uncertain(f"the instruction at {at:#x} takes a page for an address")
    for pair in pairs.values():
        if not pair.uses:
            raise Uncertain(f"nothing completes the adrp at {pair.place:#x}")
    return list(pairs.values())


def _step(instruction: capstone.CsInsn, code: bytes, low: int, state: State) -> list[tuple[int, State]]:
    """Follow one instruction: (address, state) of what may come after it."""
    at, name = instruction.address, instruction.mnemonic
    (word,) = struct.unpack_from("<I", code, at - low)
    _, writes = instruction.regs_access()
    written = _numbers(instruction, list(writes))
    after = {r: s for r, s in state.items() if r not in written}
    if name == "adrp":
        after[word & 31] = frozenset({at})
    elif word & 0xFFE0FFE0 == 0xAA0003E0 and word >> 16 & 31 in state:  # mov xd, xm
        after[word & 31] = state[word >> 16 & 31]
    elif name in ("bl", "blr"):
        after = {r: s for r, s in after.items() if 19 <= r <= 28}
    elif name in ("ret", "brk", "br"):
        return []
    elif _BRANCHES.fullmatch(name):
        target = instruction.operands[-1].imm
        inside = [(target, after)] if low <= target < low + len(code) else []
        return inside if name == "b" else [*inside, (at + 4, after)]
    return [(at + 4, after)]


def adrp_pairs(image: Image) -> list[Pair] | None:
    """All adrps of the image's code with what completes them; None where that is not certain."""
    if image.data not in _known:
        if len(_known) > 200:
            _known.clear()
        _known[image.data] = _image_pairs(image)
    return _known[image.data]


def _image_pairs(image: Image) -> list[Pair] | None:
    text, found = image.text, []
    for section in text.sections:
        if not section.code:
            continue
        for low, high in spans(image, section):
            try:
                found += _function(text.content[low - text.vmaddr : high - text.vmaddr], low)
            except Uncertain:
                return None
    meeting: dict[int, int] = {}
    for pair in found:
        for place in pair.uses:
            if meeting.setdefault(place, pair.page) != pair.page:
                return None
    return found
