"""What code refers to, by capstone's word: to hold moved code against what it was."""

from __future__ import annotations

import capstone


def addresses_in_code(code: bytes, start: int, arch: str) -> list[int]:
    """Addresses that pc-relative instructions form, in order."""
    if arch.startswith("x86"):
        cs = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        cs.detail = True
        return [
            i.address + i.size + op.mem.disp
            for i in cs.disasm(code, start)
            for op in i.operands
            if op.type == capstone.x86.X86_OP_MEM and op.mem.base == capstone.x86.X86_REG_RIP
        ]
    cs = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    cs.detail = True
    found, pages = [], {}
    for i in cs.disasm(code, start):
        ops = i.operands
        if i.mnemonic == "adrp":
            pages[i.reg_name(ops[0].reg)] = ops[1].imm
        elif i.mnemonic == "adr":
            found.append(ops[1].imm)
        elif i.mnemonic == "add" and len(ops) == 3 and ops[2].type == capstone.arm64.ARM64_OP_IMM:
            if (register := i.reg_name(ops[1].reg)) in pages:
                found.append(pages.pop(register) + ops[2].imm)
        elif i.mnemonic.startswith(("ldr", "str")):
            for op in ops:
                if op.type == capstone.arm64.ARM64_OP_MEM and (register := i.reg_name(op.mem.base)) in pages:
                    found.append(pages.pop(register) + op.mem.disp)
                elif op.type == capstone.arm64.ARM64_OP_IMM and len(ops) == 2 and i.mnemonic.startswith("ldr"):
                    found.append(op.imm)
    return found
