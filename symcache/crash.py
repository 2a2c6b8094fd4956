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
