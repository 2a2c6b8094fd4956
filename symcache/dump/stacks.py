"""Threads, their frames, and the modules that these are in, as an analysis finds them."""

from __future__ import annotations

from dataclasses import dataclass

from symcache.dump.loader import LoadedModule

__all__ = ["Frame", "ModuleReport", "ThreadReport"]


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """A module and whether its binary is there."""

    index: int
    loaded: LoadedModule
    status: str
    """`have`, `symbols` (only its dSYM), `memory` (the core holds it), `missing`, `rejected` (there is a file, but
    of something else), `no-uuid`, `unfetched` (no frame is in it)."""
    debug_info: bool
    detail: str
    slide: int | None
    """Load address less link address; None for placeholders."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Addresses and offsets in bytes; what is not known is None or empty."""

    address: int
    module: ModuleReport | None
    function: str = ""
    """Demangled."""
    offset: int | None = None
    """From the function's start."""
    file: str = ""
    line: int | None = None
    column: int | None = None
    inlined: bool = False
    source_line: str = ""
    """Text of the source line, without the space around it; empty where the source was not looked for or found."""
    mangled: str = ""
    """The function's name as the binary or the report has it, where that is another."""
    image: str = ""
    """What a crash report calls the module, for where it lists none."""
    other_function: str = ""
    """Where a crash report and the binaries at hand contradict each other: the name of the one that is not shown."""
    source: str = ""
    """Where our tables have the name from; `report` if it is the report's own, empty if LLDB has named it."""
    image_offset: int | None = None
    """In crash reports, bytes from the module's header: above the bits of `address` may be something else."""

    @property
    def module_offset(self) -> int | None:
        """Bytes from the module's header; None where no module is known."""
        if self.module is None:
            return None
        return self.address - self.module.loaded.module.address if self.image_offset is None else self.image_offset

    @property
    def wants_name(self) -> bool:
        """Whether LLDB has no name for it, but a file of its module may have one."""
        nameless = not self.function or self.function.startswith("___lldb_unnamed_symbol")
        loaded = self.module.loaded if self.module else None
        return nameless and loaded is not None and bool(loaded.executable or loaded.debug_info)

    @property
    def module_name(self) -> str:
        """Name of the module, empty where none is known."""
        return self.module.loaded.module.name if self.module else self.image


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """One thread, top frame first."""

    index: int
    """In the order of the core; of crash reports, the number that they have for it."""
    name: str
    """In crash reports with its queue: `NAME  Dispatch queue: QUEUE`."""
    frames: tuple[Frame, ...]
    queue: str = ""
