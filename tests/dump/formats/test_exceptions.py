"""Exceptions in words: numbers as the processors' manuals give them, signals as XNU delivers them."""

from __future__ import annotations

import io

import pytest

from symcache.crash import CrashException
from symcache.dump import describe_exception, parse_core
from tests.dump.builder import ARM64, X86_64, CoreFile, Region, arm_thread, x86_thread

CODE, DATA = 0x1_0000_0000, 0x2_0000_0000


def described(arch: int, exception: tuple[int, int, int] | None, **registers: int) -> CrashException:
    thread = (x86_thread if arch == X86_64 else arm_thread)(exception, **registers)
    raw = CoreFile(
        arch, 3 if arch == X86_64 else 0, [Region(CODE, 0x1000), Region(DATA, 0x1000, protection=3)], [thread]
    )
    core = parse_core(io.BytesIO(raw.bytes()), len(raw.bytes()), "core")
    return describe_exception(core, core.threads[0])


@pytest.mark.parametrize(
    ("exception", "signal", "access", "words"),
    [
        ((14, 0b110, 0x10), "SIGSEGV", "write", "write to 0x10, an address that is not mapped"),
        ((14, 0b100, 0x10), "SIGSEGV", "read", "read of 0x10, an address that is not mapped"),
        ((14, 0b10100, 0), "SIGSEGV", "execute", "jump to 0x0, an address that is not mapped"),
        ((14, 0b111, CODE), "SIGBUS", "write", f"write to {CODE:#x}, an address that does not allow it (r-x)"),
        ((14, 0b10101, DATA), "SIGBUS", "execute", f"jump to {DATA:#x}, an address that does not allow it (rw-)"),
        ((13, 0, 0), "SIGSEGV", None, "general protection"),
        ((12, 0, 0), "SIGILL", None, "stack-segment fault"),
        ((0, 0, 0), "SIGFPE", None, "division by zero"),
        ((3, 0, 0), "SIGTRAP", None, "breakpoint"),
        ((6, 0, 0), "SIGILL", None, "invalid instruction"),
        ((200, 0, 0), None, None, "processor exception 200"),
        ((0x85, 0x0200_0131, 0), None, None, "in system call 305"),
        ((0x85, 0x0100_001F, 0), None, None, "in Mach trap 31"),
    ],
)
def test_x86_64(exception: tuple[int, int, int], signal: str | None, access: str | None, words: str) -> None:
    found = described(X86_64, exception)
    assert (found.signal, found.access) == (signal, access)
    assert words in found.description
    assert found.address == (exception[2] if exception[0] == 14 else None)


@pytest.mark.parametrize(
    ("kind", "iss", "address", "signal", "access", "words"),
    [
        (0x24, 0x46, 0x10, "SIGSEGV", "write", "write to 0x10, an address that is not mapped"),
        (0x24, 0x06, 0x10, "SIGSEGV", "read", "read of 0x10"),
        (0x24, 0x4F, CODE, "SIGBUS", "write", "(r-x)"),
        (0x24, 0x47, CODE, "SIGBUS", "write", "(r-x)"),
        (0x20, 0x06, 0, "SIGSEGV", "execute", "jump to 0x0"),
        (0x20, 0x0F, DATA, "SIGBUS", "execute", "(rw-)"),
        (0x24, 0x61, 0x3, "SIGBUS", "write", "misaligned write at 0x3"),
        (0x3C, 1, 0, "SIGTRAP", None, "breakpoint"),
        (0x00, 0, 0, "SIGILL", None, "invalid instruction"),
        (0x1C, 0, 0, "SIGBUS", None, "pointer authentication"),
        (0x3F, 0, 0, None, None, "class 0x3f"),
    ],
)
def test_arm64(kind: int, iss: int, address: int, signal: str | None, access: str | None, words: str) -> None:
    found = described(ARM64, (1, kind << 26 | 1 << 25 | iss, address))
    assert (found.signal, found.access) == (signal, access)
    assert words in found.description


def test_abort_is_a_signal_that_the_process_sent_itself() -> None:
    found = described(X86_64, (0x85, 0x0200_0148, 0), rsi=6)
    assert found.signal == "SIGABRT"
    assert described(ARM64, (0, 0x15 << 26, 0), x16=328, x1=6).signal == "SIGABRT"
    waiting = described(ARM64, (0, 0x15 << 26, 0), x16=(1 << 64) - 31)
    assert (waiting.signal, waiting.description) == (None, "no exception: in Mach trap 31")


@pytest.mark.parametrize("protection", [0, 1])
def test_page_zero_is_not_mapped_though_it_be_listed(protection: int) -> None:
    """macOS calls it KERN_INVALID_ADDRESS there; where a region allows something, it is a region."""
    raw = CoreFile(
        regions=[Region(0, 1 << 32, protection=protection), Region(CODE, 0x1000)], threads=[x86_thread((14, 6, 8))]
    ).bytes()
    core = parse_core(io.BytesIO(raw), len(raw), "core")
    found = describe_exception(core, core.threads[0])
    assert found.signal == ("SIGBUS" if protection else "SIGSEGV")
    assert ("not mapped" in found.description) is (protection == 0)


def test_without_exception_state() -> None:
    assert described(X86_64, None).signal is None
