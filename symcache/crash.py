"""What happened to a process, in words: the same for a core, a minidump and a crash report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CrashException"]


@dataclass(frozen=True, slots=True)
class CrashException:
    """The exception of a thread. A field is None where nothing tells it."""

    description: str
    """One phrase, e.g. `SIGSEGV: write to 0x10, an address that is not mapped`."""
    signal: str | None = None
    address: int | None = None
    """Of the access that failed."""
    access: str | None = None
    """`read`, `write` or `execute`."""
    number: int | None = None
    code: int | None = None
    """As they stand in the core: x86 trapno and err, arm64 exception and esr."""
    kind: str | None = None
    """Of the Mach exception, as crash reports name it: `EXC_BAD_ACCESS`."""
    subtype: str | None = None
    """In a crash report's words: `KERN_INVALID_ADDRESS at 0x0000000000000010`."""
    codes: str | None = None
    message: str | None = None
    """What a crash report says of a guard, or of a limit that was crossed."""
