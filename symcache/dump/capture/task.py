"""What a dump needs from the process that it is written of.

Everything that needs a Mac hides behind `Task`; what is done with what it returns is plain code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["CrashReport", "Region", "Task", "ThreadCapture"]


class ThreadCapture(NamedTuple):
    """One thread of a suspended process."""

    thread_id: int
    """System-wide: `thread_identifier_info.thread_id`, what pthread_threadid_np gives."""
    stack_pointer: int
    states: tuple[tuple[int, bytes], ...]
    """(flavor, state) as thread_get_state gives them, the general registers first: readers stop at the first flavor
    that they do not know."""


class Region(NamedTuple):
    """One region of the address space. `protection` are VM_PROT bits: 1 read, 2 write, 4 execute."""

    address: int
    size: int
    protection: int
    is_stack: bool = False
    """Tagged VM_MEMORY_STACK: a stack may consist of several such regions."""

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What the crashing process says of itself."""

    thread_id: int
    executable: str
    bundle_version: str = ""


class Task(Protocol):
    """A process. Methods raise EnvironmentFailure when the system refuses."""

    cputype: int
    cpusubtype: int

    def suspend(self) -> None:
        """Stop all threads."""

    def resume(self) -> None:
        """Undo one `suspend`."""

    def threads(self) -> list[ThreadCapture]:
        """Return all threads."""

    def regions(self) -> Iterator[Region]:
        """Yield all regions by rising address."""

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes of memory."""

    def dyld_all_image_infos(self) -> int:
        """Return the address of dyld's `dyld_all_image_infos`; 0 when the process has none yet."""

    def os_build(self) -> str:
        """Return the macOS build (`22G120`), or an empty text."""

    def addressable_bits(self) -> int:
        """Return how many bits of a pointer are address, or 0 where all are: what lies above may be a signature."""
