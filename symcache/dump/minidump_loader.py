"""Minidumps of Mac processes (Breakpad, Crashpad), opened by LLDB, which reads them itself.

What symcache needs beforehand it reads on its own: modules to look for, macOS's build, what happened to which thread.

In code that nobody has, LLDB guesses by whether memory may be executed (see `symcache.dump.placeholders.backing`). A
minidump of a Mac process does not tell; where the other guess is right, LLDB gets a copy that does. So it does where
it would not see the registers, or not stop.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from pathlib import Path

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, Segment
from symcache.dump.formats.header import DumpHeader
from symcache.dump.formats.minidump import Minidump, is_minidump, read_minidump
from symcache.dump.formats.minidump_copy import write_copy
from symcache.dump.formats.registers import FLAVORS
from symcache.dump.loader import LoadedDump, load, load_dump
from symcache.dump.module_files import Search
from symcache.dump.placeholders.backing import framed_modules
from symcache.errors import DumpError
from symcache.reports import is_report

__all__ = ["load_dump_or_minidump", "minidump_header"]

_READ, _READ_WRITE, _READ_EXECUTE = 1, 3, 5
_MAX_COPY = 1 << 30
"""Bytes; a larger minidump is not copied for the sake of a guess."""


def load_dump_or_minidump(path: Path, scratch: Path, search: Search) -> LoadedDump:
    """Open what LLDB can walk the stacks of, whatever kind it is, and find its modules. As `load_dump` else."""
    if is_report(path):
        raise DumpError(
            f"{path}: is a crash report, without memory that a debugger could open",
            hint="`symcache analyze` names its frames",
        )
    return (_load_minidump if is_minidump(path) else load_dump)(path, scratch, search)


def _load_minidump(path: Path, scratch: Path, search: Search) -> LoadedDump:
    """Find the modules of a minidump, and return the plan to open it with. As `load_dump` else."""
    minidump = read_minidump(path)
    header = minidump_header(minidump)
    # One region for each module: how far its code can reach. Two modules cannot be in one place.
    sizes = {m.module.address: m.size for m in minidump.modules}
    regions = tuple(Segment(address, size, 0, 0, _READ_EXECUTE, 0) for address, size in sorted(sizes.items()))
    core = Core(minidump.arch, minidump.cputype, regions, minidump.threads, ())
    dump = OpenedDump(path, header, core, path)
    memory = _core_with_memory(core, minidump)
    loaded = load(
        *(dump, header, scratch, search),
        exception=minidump.exception,
        memory=memory,
        names=minidump.names,
        blamed=minidump.crashed is not None,
    )
    guesses = _guesses(replace(dump, core=memory), minidump, loaded)
    if guesses and path.stat().st_size > _MAX_COPY:
        guesses = []
    copy = scratch / "minidump.dmp"
    if (guesses or minidump.needs_copy) and write_copy(path, copy, minidump, guesses):
        return replace(loaded, plan=replace(loaded.plan, core=copy.absolute()))
    return loaded


@dataclass(frozen=True, slots=True)
class _CoreWithMemory(Core):
    """A core whose `segments` are modules, and which has some memory of the process besides."""

    memory: tuple[Segment, ...]
    """By address; none overlap."""

    def segment_at(self, address: int) -> Segment | None:
        """Return the memory at an address, as executable as the module that it is in, or else the module."""
        code = Core.segment_at(self, address)
        position = bisect.bisect_right(self.memory, address, key=lambda s: s.address) - 1
        if position >= 0 and address < self.memory[position].end:
            return self.memory[position]._replace(protection=code.protection if code else _READ_WRITE)
        return code


def _core_with_memory(core: Core, minidump: Minidump) -> _CoreWithMemory:
    memory: list[Segment] = []
    for segment in sorted(minidump.memory):
        if not memory or segment.address >= memory[-1].end:
            memory.append(segment)
    return _CoreWithMemory(core.arch, core.cputype, core.segments, core.threads, (), tuple(memory))


def _guesses(dump: OpenedDump, minidump: Minidump, loaded: LoadedDump) -> list[Segment]:
    """Return all memory, in which missing modules are not executable where threads are in functions without a frame.

    Empty if threads are in no missing module, or the minidump lists its memory itself. What such a list does not have,
    LLDB takes for unmapped: it lists modules and stacks as well.
    """
    missing = [(m.module.address, m.text_size) for m in loaded.modules if not m.executable]
    if not missing or minidump.has_regions:
        return []
    counters = [t.registers[FLAVORS[minidump.cputype].counter] for t in minidump.threads if t.registers]
    counters.sort()

    def visited(address: int, size: int) -> bool:
        position = bisect.bisect_left(counters, address)
        return position < len(counters) and counters[position] < address + size

    seen = [module for module in missing if visited(*module)]
    if not seen:
        return []
    hidden = {address for address, _ in set(seen).difference(framed_modules(dump, loaded.header.thread, missing))}
    modules = [s._replace(protection=_READ) if s.address in hidden else s for s in dump.core.segments]
    memory = [s._replace(protection=_READ_WRITE) for s in minidump.memory if not Core.segment_at(dump.core, s.address)]
    return sorted(modules + memory)


def minidump_header(minidump: Minidump) -> DumpHeader:
    """Return what a minidump says of itself, as the header of a dump has it."""
    modules = tuple(m.module for m in minidump.modules)
    return DumpHeader(
        executable=modules[0].path if modules else "",
        thread=minidump.crashed or 0,
        modules=modules,
        os_build=minidump.os_build,
    )
