"""What a processor exception means: its signal, its kind of access, in words.

Sources: Intel SDM volume 3, chapter 6 (vectors) and 4.7 (page-fault error code); Arm ARM, ESR_EL1 (exception class,
fault status); <mach/exception_types.h>; the signals are those that XNU delivers: `ux_exception` and
`machine_exception` (bsd/uxkern).
"""

from __future__ import annotations

from symcache.crash import CrashException
from symcache.dump.formats.core import Core, CoreThread
from symcache.dump.formats.registers import ExceptionState
from symcache.macho import CPU_TYPE

__all__ = ["describe_exception", "mach_exception", "signal_name"]

_READ, _WRITE, _EXECUTE = 1, 2, 4
_ACCESS = {"read": _READ, "write": _WRITE, "execute": _EXECUTE}
_PTHREAD_KILL, _KILL = 328, 37
"""System calls by which a process sends a signal to itself: `abort` ends in the first."""
_SIGNALS = {3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 8: "SIGFPE", 9: "SIGKILL", 10: "SIGBUS",
            11: "SIGSEGV", 12: "SIGSYS", 13: "SIGPIPE", 15: "SIGTERM"}  # fmt: skip
_X86_SYSCALL = 0x85
"""`trapno` of a thread that is inside of the kernel by its own wish; `err` is class (high byte) and number."""

_X86: dict[int, tuple[str, str]] = {
    0: ("SIGFPE", "integer division by zero"),
    1: ("SIGTRAP", "debug exception"),
    3: ("SIGTRAP", "breakpoint (int3)"),
    4: ("SIGFPE", "overflow (into)"),
    5: ("SIGBUS", "bound range exceeded"),
    6: ("SIGILL", "invalid instruction (ud2 is what compilers put where code must not be reached)"),
    7: ("SIGFPE", "no floating-point unit"),
    8: ("SIGBUS", "double fault"),
    10: ("SIGILL", "invalid task state segment"),
    11: ("SIGILL", "segment not present"),
    12: ("SIGILL", "stack-segment fault (non-canonical address in the stack or frame pointer)"),
    13: ("SIGSEGV", "general protection fault (non-canonical address, or a privileged instruction)"),
    16: ("SIGFPE", "x87 floating-point error"),
    17: ("SIGBUS", "misaligned access"),
    19: ("SIGFPE", "SIMD floating-point error"),
}
_ARM64: dict[int, tuple[str, str]] = {
    0x00: ("SIGILL", "invalid instruction (udf)"),
    0x07: ("SIGILL", "access to floating-point registers"),
    0x0E: ("SIGILL", "illegal execution state"),
    0x1C: ("SIGBUS", "pointer authentication failure"),
    0x22: ("SIGBUS", "misaligned program counter"),
    0x26: ("SIGBUS", "misaligned stack pointer"),
    0x2C: ("SIGFPE", "floating-point exception"),
    0x30: ("SIGTRAP", "hardware breakpoint"),
    0x31: ("SIGTRAP", "hardware breakpoint"),
    0x32: ("SIGTRAP", "single step"),
    0x33: ("SIGTRAP", "single step"),
    0x34: ("SIGTRAP", "watchpoint"),
    0x35: ("SIGTRAP", "watchpoint"),
    0x3C: ("SIGTRAP", "breakpoint (brk)"),
}

_BAD_ACCESS, _SOFTWARE, _CRASH = 1, 5, 10
_MACH: dict[int, tuple[str, str | None]] = {
    _BAD_ACCESS: ("EXC_BAD_ACCESS", None),
    2: ("EXC_BAD_INSTRUCTION", "SIGILL"),
    3: ("EXC_ARITHMETIC", "SIGFPE"),
    4: ("EXC_EMULATION", "SIGEMT"),
    _SOFTWARE: ("EXC_SOFTWARE", None),
    6: ("EXC_BREAKPOINT", "SIGTRAP"),
    7: ("EXC_SYSCALL", None),
    8: ("EXC_MACH_SYSCALL", None),
    9: ("EXC_RPC_ALERT", None),
    _CRASH: ("EXC_CRASH", None),
    11: ("EXC_RESOURCE", None),
    12: ("EXC_GUARD", None),
    13: ("EXC_CORPSE_NOTIFY", None),
}
_ACCESS_CODES = {1: "KERN_INVALID_ADDRESS", 2: "KERN_PROTECTION_FAILURE", 13: "EXC_I386_GPFLT"}
_GENERAL_PROTECTION = 13
_SEGMENTATION = frozenset({1, _GENERAL_PROTECTION})
"""Codes of EXC_BAD_ACCESS that become SIGSEGV; others become SIGBUS."""
_SOFT_SIGNAL = 0x10003
"""EXC_SOFT_SIGNAL: the second code is the number of a signal."""
_SOFT_CODES = {
    0x10000: ("bad system call", "SIGSYS"),
    0x10001: ("write to a pipe that nobody reads", "SIGPIPE"),
    0x10002: ("abort", "SIGABRT"),
    0xDEAD_C0DE: ("an uncaught NSException", None),
}
"""Others of EXC_SOFTWARE; the last is Breakpad's own."""


def describe_exception(core: Core, thread: CoreThread) -> CrashException:
    """Return what stopped a thread of a core."""
    state = thread.exception
    if state is None:
        return CrashException("the dump has no exception state for this thread")
    if core.cputype == CPU_TYPE.X86_64:
        return _x86_64(core, thread, state)
    return _arm64(core, thread, state)


def mach_exception(kind: int, code: int, subcode: int, signal: str | None = None) -> CrashException:
    """Return what a Mach exception with its two codes means; `signal` is that which it became, where that is known."""
    name, usual = _MACH.get(kind, (f"Mach exception {kind:#x}", None))
    words, address = name + (f", code {code:#x}" if code else ""), None
    if kind == _BAD_ACCESS and code:  # without one, LLDB wrote it, and the address is the program counter
        usual = "SIGSEGV" if code in _SEGMENTATION else "SIGBUS"
        words = f"{name}, {_ACCESS_CODES.get(code, f'code {code:#x}')}"
        if code != _GENERAL_PROTECTION:  # whose address the processor does not tell
            words, address = f"{words} at {subcode:#x}", subcode
    elif kind == _SOFTWARE and code == _SOFT_SIGNAL:
        usual = signal_name(subcode)
    elif kind == _SOFTWARE and code in _SOFT_CODES:
        words, usual = f"{name}, {_SOFT_CODES[code][0]}", _SOFT_CODES[code][1]
    elif kind == _CRASH:
        usual = signal_name(code >> 24 & 0xFF)
    signal = signal or usual
    return CrashException(f"{signal}: {words}" if signal else words, signal, address)


def signal_name(number: int) -> str | None:
    """Return the name of a signal of macOS, if it is one that ends a process."""
    return _SIGNALS.get(number)


def _x86_64(core: Core, thread: CoreThread, state: ExceptionState) -> CrashException:
    if state.number == 14:
        present, write, instruction = state.code & 1, state.code & 2, state.code & 16
        access = "execute" if instruction else "write" if write else "read"
        return _memory(core, state, access, translated=bool(present))
    if state.number == _X86_SYSCALL:
        return _syscall(state, state.code >> 24, state.code & 0xFF_FFFF, thread.registers.get("rsi", 0))
    signal, words = _X86.get(state.number, (None, f"processor exception {state.number}"))
    return _plain(state, signal, words)


def _arm64(core: Core, thread: CoreThread, state: ExceptionState) -> CrashException:
    kind, status = state.code >> 26, state.code & 0x3F
    if kind in {0x20, 0x21, 0x24, 0x25}:
        access = "execute" if kind < 0x24 else "write" if state.code & 0x40 else "read"
        if status == 0x21:
            return CrashException(
                f"SIGBUS: misaligned {access} at {state.address:#x}", "SIGBUS", state.address, access, *state[:2]
            )
        # Fault status: 0b0001LL translation, 0b0010LL access flag, 0b0011LL permission (LL: table level).
        return _memory(core, state, access, translated=status >> 2 == 3)
    if kind == 0x15:
        number = thread.registers.get("x16", 0)
        number = (number & 0xFFFF_FFFF) - ((number & 0x8000_0000) << 1)  # Mach traps are negative 32-bit numbers
        return _syscall(state, 2 if number >= 0 else 1, abs(number) & 0xFF_FFFF, thread.registers.get("x1", 0))
    signal, words = _ARM64.get(kind, (None, f"processor exception of class {kind:#x}"))
    return _plain(state, signal, words)


def _plain(state: ExceptionState, signal: str | None, words: str) -> CrashException:
    return CrashException(f"{signal}: {words}" if signal else words, signal, None, None, state.number, state.code)


def _memory(core: Core, state: ExceptionState, access: str, *, translated: bool) -> CrashException:
    """Tell an address where nothing is (KERN_INVALID_ADDRESS) from one that forbids it (KERN_PROTECTION_FAILURE)."""
    segment = core.segment_at(state.address)
    if segment is not None and not segment.address and not segment.protection:
        segment = None  # __PAGEZERO, where some writers list it; nothing is mapped there
    forbidden = translated or (segment is not None and not segment.protection & _ACCESS[access])
    signal = "SIGBUS" if forbidden else "SIGSEGV"
    if access == "execute":
        words = f"jump to {state.address:#x}"
    else:
        words = f"{access} {'to' if access == 'write' else 'of'} {state.address:#x}"
    if not forbidden:
        why = "an address that is not mapped"
    else:
        why = "an address that does not allow it" + (f" ({_rights(segment.protection)})" if segment else "")
    return CrashException(f"{signal}: {words}, {why}", signal, state.address, access, state.number, state.code)


def _rights(protection: int) -> str:
    return "".join(letter if protection & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))


def _syscall(state: ExceptionState, kind: int, number: int, argument: int) -> CrashException:
    if kind == 2 and number in {_PTHREAD_KILL, _KILL}:
        signal = signal_name(argument & 0xFFFF_FFFF) or f"signal {argument & 0xFFFF_FFFF}"
        words = f"{signal}: sent by the process itself" + (" (abort)" if signal == "SIGABRT" else "")
        return CrashException(words, signal, None, None, state.number, state.code)
    name = {1: "Mach trap", 2: "system call", 3: "machine-dependent call"}.get(kind, f"system call of class {kind}")
    return CrashException(f"no exception: in {name} {number}", None, None, None, state.number, state.code)
