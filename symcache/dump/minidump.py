"""Minidumps of Mac processes (Breakpad, Crashpad), opened by LLDB, which reads them itself.

What symcache needs beforehand it reads on its own: modules to look for, macOS's build, what happened to which thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symcache.dump.container import OpenedDump
from symcache.dump.core import Core, Segment
from symcache.dump.header import DumpHeader
from symcache.dump.loader import LoadedDump, load
from symcache.dump.minidump_streams import Minidump, read_minidump
from symcache.dump.symbols import ModuleResolver, Progress

__all__ = ["load_minidump", "minidump_header"]

_READ_EXECUTE = 5


def load_minidump(
    path: Path,
    scratch: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
) -> LoadedDump:
    """Find the modules of a minidump, and return the plan to open it with. As `load_dump` else."""
    found = read_minidump(path)
    header = minidump_header(found)
    # One region for each module: how far its code can reach. Two modules cannot be in one place.
    sizes = {m.module.address: m.size for m in found.modules}
    regions = tuple(Segment(address, size, 0, 0, _READ_EXECUTE, 0) for address, size in sorted(sizes.items()))
    dump = OpenedDump(path, header, Core(found.arch, found.cputype, regions, found.threads, ()), path)
    return load(
        *(dump, header, scratch, resolver),
        cache=cache,
        build=build,
        source_map=source_map,
        progress=progress,
        exception=found.exception,
    )


def minidump_header(found: Minidump) -> DumpHeader:
    """Return what a minidump says of itself, as the header of a dump has it."""
    modules = tuple(one.module for one in found.modules)
    return DumpHeader(
        executable=modules[0].path if modules else "",
        thread=found.crashed,
        modules=modules,
        os_build=found.os_build,
    )
