"""Run a process under Unicorn until it faults, and note by watching calls and returns who called whom.

The few system calls that the corpus needs are answered here: threads are started, and parked where they wait.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import capstone
import unicorn
from unicorn import arm64_const as ua
from unicorn import x86_const as ux

from tests.corpus.process import READ, WRITE, Process, Region

EXIT, PSYNCH_CVWAIT, BSDTHREAD_CREATE, BSDTHREAD_REGISTER = 1, 305, 360, 366
_UNIX_CLASS = 0x2000000

_X86 = ("rax", "rbx", "rcx", "rdx", "rdi", "rsi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip", "rflags")
_ARM = (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc", "cpsr")
_X86_IDS = [getattr(ux, f"UC_X86_REG_{n.upper()}") for n in _X86]
_ARM_IDS = [getattr(ua, f"UC_ARM64_REG_{'NZCV' if n == 'cpsr' else n.upper()}") for n in _ARM]


class Emulation(Exception):
    """The process did something that the corpus does not expect."""


@dataclass
class Fault:
    """A memory access that nothing is mapped for (or that the mapping forbids)."""

    address: int
    write: bool
    present: bool


@dataclass
class Thread:
    """A thread: its registers when it was last stopped, the return addresses of its callers (outermost first)."""

    stack: Region
    registers: dict[str, int] = field(default_factory=dict)
    callers: list[int] = field(default_factory=list)
    fault: Fault | None = None
    parked: bool = False

    @property
    def pc(self) -> int:
        return self.registers["rip" if "rip" in self.registers else "pc"]

    @property
    def frames(self) -> list[int]:
        """PCs, innermost first."""
        return [self.pc, *reversed(self.callers)]


class Machine:
    """One CPU over the memory of a process."""

    def __init__(self, process: Process, *, signed: bool = False) -> None:
        """Make the CPU. `signed`: arm64 code compiled for it signs return addresses with key B, as macOS lets it."""
        self.process = process
        self.intel = process.arch == "x86_64"
        self.names, self._ids = (_X86, _X86_IDS) if self.intel else (_ARM, _ARM_IDS)
        if self.intel:
            self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
            self._cs = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        else:
            self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
            self.uc.ctl_set_cpu_model(ua.UC_CPU_ARM64_MAX)
            self._pointer_authentication(signed)
            self._cs = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        self.threads: list[Thread] = []
        self._current: Thread | None = None
        self._thread_start = 0
        self._kinds: dict[int, str] = {}
        self._previous: tuple[str, int] = ("", 0)
        self._error: BaseException | None = None
        for region in process.regions:
            self._map(region)
        self.uc.hook_add(unicorn.UC_HOOK_CODE, self._on_instruction)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_fault)
        if self.intel:
            self.uc.hook_add(unicorn.UC_HOOK_INSN, self._on_call, None, 1, 0, ux.UC_X86_INS_SYSCALL)
        else:
            self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)

    def _pointer_authentication(self, signed: bool) -> None:
        """Let the CPU know pointer authentication, and sign or not; addresses have 47 bits."""
        set_bits = {
            (1, 1, 3, 6, 0): 1 << 17 | 1 << 16 | 1 << 10 | 1,  # SCR_EL3: API, APK, RW, NS
            (1, 1, 3, 4, 0): 1 << 41 | 1 << 40,  # HCR_EL2: API, APK
            (1, 0, 3, 0, 0): 1 << 30 if signed else 0,  # SCTLR_EL1: EnIB
        }
        for register, bits in set_bits.items():
            value = self.uc.reg_read(ua.UC_ARM64_REG_CP_REG, register)
            self.uc.reg_write(ua.UC_ARM64_REG_CP_REG, (*register, value | bits))
        self.uc.reg_write(ua.UC_ARM64_REG_CP_REG, (2, 0, 3, 0, 2, 64 - 47))  # TCR_EL1: T0SZ
        for half, key in ((2, 0x0123456789ABCDEF), (3, 0xFEDCBA9876543210)):  # APIBKeyLo_EL1, APIBKeyHi_EL1
            self.uc.reg_write(ua.UC_ARM64_REG_CP_REG, (2, 1, 3, 0, half, key))

    def _map(self, region: Region) -> None:
        # Unicorn's protection bits are those of <mach/vm_prot.h>.
        self.uc.mem_map(region.address, region.size, region.protection or unicorn.UC_PROT_NONE)
        if region.data:
            self.uc.mem_write(region.address, region.data)

    # What the CPU does.

    def _kind(self, address: int, size: int) -> str:
        """Whether an instruction calls, returns or does neither."""
        kind = self._kinds.get(address)
        if kind is None:
            code = bytes(self.uc.mem_read(address, size))
            mnemonic = next(self._cs.disasm(code, address, 1)).mnemonic
            # call; bl, blr and their authenticating forms; ret, retq, retaa, retab.
            calls = ("call",) if self.intel else ("bl",)
            kind = "call" if mnemonic.startswith(calls) else "return" if mnemonic.startswith("ret") else "other"
            self._kinds[address] = kind
        return kind

    def _on_instruction(self, uc: Any, address: int, size: int, _: object) -> None:
        thread = self._current
        assert thread is not None
        kind, after = self._previous
        if kind == "call":
            thread.callers.append(after)
        elif kind == "return":
            expected = thread.callers.pop() if thread.callers else 0
            if expected != address:
                self._halt(Emulation(f"returned to {address:#x}, called from before {expected:#x}"))
        self._previous = (self._kind(address, size), address + size)
        self._pc = address

    def _halt(self, error: BaseException | None = None) -> None:
        self._error = self._error or error
        self.uc.emu_stop()

    def _on_fault(self, uc: Any, access: int, address: int, size: int, value: int, _: object) -> bool:
        assert self._current is not None
        writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        protected = (unicorn.UC_MEM_WRITE_PROT, unicorn.UC_MEM_READ_PROT, unicorn.UC_MEM_FETCH_PROT)
        self._current.fault = Fault(address, access in writes, access in protected)
        return False

    # What the kernel does.

    def _on_interrupt(self, uc: Any, number: int, _: object) -> None:
        if number == 2:  # EXCP_SWI
            self._on_call(uc, _)
        else:
            self._halt(Emulation(f"exception {number} at {self._pc:#x}"))

    def _on_call(self, uc: Any, _: object) -> None:
        if self.intel:
            number = uc.reg_read(ux.UC_X86_REG_RAX) - _UNIX_CLASS
            arguments = [uc.reg_read(r) for r in (ux.UC_X86_REG_RDI, ux.UC_X86_REG_RSI, ux.UC_X86_REG_RDX)]
            arguments.append(uc.reg_read(ux.UC_X86_REG_R10))
        else:
            number = uc.reg_read(ua.UC_ARM64_REG_X16)
            arguments = [uc.reg_read(ua.UC_ARM64_REG_X0 + n) for n in range(4)]
        answer = ux.UC_X86_REG_RAX if self.intel else ua.UC_ARM64_REG_X0
        if number == BSDTHREAD_REGISTER:
            self._thread_start = arguments[0]
            uc.reg_write(answer, 0)
        elif number == BSDTHREAD_CREATE:
            self._new_thread(function=arguments[0], argument=arguments[1], pthread=arguments[3])
            uc.reg_write(answer, 0)
        elif number == PSYNCH_CVWAIT:
            assert self._current is not None
            self._current.parked = True
            self._halt()
        else:
            self._halt(Emulation(f"system call {number} at {self._pc:#x}"))

    def _new_thread(self, *, function: int, argument: int, pthread: int) -> None:
        stack = self.process.add_stack(f"stack of thread {len(self.threads)}")
        self._map(stack)
        top = stack.address + stack.size
        port = 0x1003 + 0x100 * len(self.threads)
        values = (pthread, port, function, argument)
        thread = Thread(stack, dict.fromkeys(self.names, 0))
        names = ("rdi", "rsi", "rdx", "rcx") if self.intel else ("x0", "x1", "x2", "x3")
        thread.registers.update(zip(names, values, strict=True))
        thread.registers.update(
            {"rsp": top, "rip": self._thread_start} if self.intel else {"sp": top, "pc": self._thread_start}
        )
        thread.registers["rflags" if self.intel else "cpsr"] = 0x202 if self.intel else 0
        self.threads.append(thread)

    # Running.

    def start(self, entry: int, executable: int, arguments: list[str]) -> None:
        """Make the main thread as the kernel leaves it for dyld: header, argc, argv, envp on the stack."""
        stack = self.process.add_stack("stack of thread 0")
        strings = b"".join(a.encode() + b"\0" for a in arguments)
        top = stack.address + stack.size
        at = (top - len(strings)) & ~15
        pointers, place = [], at
        for argument in arguments:
            pointers.append(place)
            place += len(argument.encode()) + 1
        words = [executable, len(arguments), *pointers, 0, 0, 0]
        sp = (at - 8 * len(words)) & ~15
        block = struct.pack(f"<{len(words)}Q", *words).ljust(at - sp, b"\0") + strings
        stack.data = bytes(sp - stack.address) + block
        self._map(stack)
        thread = Thread(stack, dict.fromkeys(self.names, 0))
        thread.registers.update({"rsp": sp, "rip": entry, "rflags": 0x202} if self.intel else {"sp": sp, "pc": entry})
        self.threads.append(thread)

    def _resume(self, thread: Thread, limit: int) -> None:
        self._current, self._previous, self._error = thread, ("", 0), None
        for name, ident in zip(self.names, self._ids, strict=True):
            self.uc.reg_write(ident, thread.registers[name])
        self._pc = thread.pc
        try:
            self.uc.emu_start(thread.pc, 0, count=limit)
        except unicorn.UcError as error:
            if thread.fault is None:
                raise Emulation(f"{error} at {self._pc:#x}") from error
        if self._error is not None:
            raise self._error
        thread.registers = {n: self.uc.reg_read(i) for n, i in zip(self.names, self._ids, strict=True)}
        if thread.fault is None and not thread.parked:
            raise Emulation(f"still running after {limit} instructions, at {self._pc:#x}")
        if thread.parked:
            # The kernel resumes behind the instruction that called it.
            thread.registers["rip" if self.intel else "pc"] = self._pc + (2 if self.intel else 4)
        else:
            thread.registers["rip" if self.intel else "pc"] = self._pc

    def run(self, limit: int = 1_000_000) -> None:
        """Run the main thread until it faults, then every thread that it started until that waits."""
        self._resume(self.threads[0], limit)
        done = 1
        while done < len(self.threads):
            self._resume(self.threads[done], limit)
            done += 1

    def finish(self) -> None:
        """Copy what memory holds now back into the process' regions."""
        for region in self.process.regions:
            if region.protection & WRITE or region.stack:
                region.data = bytes(self.uc.mem_read(region.address, region.size))
            elif not region.protection & READ:
                region.data = b""
