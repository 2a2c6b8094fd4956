"""Minidumps of Mac processes (Breakpad, Crashpad): LLDB reads them, and says itself which modules it wants.

They hold another kind of core, so nothing of it is checked here beforehand: LLDB's process is all the protection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump.container import OpenedDump
from symcache.dump.core import Core, CoreThread, Segment
from symcache.dump.debugger import Limits, LldbProcess, Mode
from symcache.dump.exceptions import CrashException
from symcache.dump.header import DumpHeader, DumpModule
from symcache.dump.loader import LoadedDump, load
from symcache.dump.registers import CPU_TYPE_ARM64, CPU_TYPE_X86_64
from symcache.dump.symbols import ModuleResolver, Progress
from symcache.errors import DumpError

__all__ = ["is_minidump", "load_minidump"]

_ARCHS = {"x86_64": CPU_TYPE_X86_64, "arm64": CPU_TYPE_ARM64}
_READ_EXECUTE = 5
_AT = re.compile(r"address=0x([0-9a-f]{1,16})\b")


def is_minidump(path: Path) -> bool:
    """Return whether a file begins as a minidump does."""
    with path.open("rb") as file:
        return file.read(4) == b"MDMP"


def load_minidump(
    path: Path,
    scratch: Path,
    resolver: ModuleResolver,
    *,
    limits: Limits | None = None,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
) -> LoadedDump:
    """Let LLDB list threads and modules, find these, and return the plan to open it with. As `load_dump` else."""
    with LldbProcess(Mode.INVENTORY, limits) as lldb:
        found = lldb.report({"core": str(path.absolute()), "triple": "", "source_map": [], "modules": []}, str(path))
    arch = {"x86_64": "x86_64", "x86_64h": "x86_64", "arm64": "arm64", "arm64e": "arm64"}.get(found["arch"])
    if arch is None or "apple" not in found["triple"]:
        raise DumpError(
            f"{path}: is a minidump of {found['triple'] or 'an unknown system'}",
            hint="minidumps of Mac processes on x86_64 and arm64 can be opened",
        )
    modules = tuple(_module(m) for m in found["modules"])
    regions = sorted(Segment(m["address"], m["size"], 0, 0, _READ_EXECUTE, 0) for m in found["modules"])
    threads = tuple(CoreThread(n, t["registers"], None) for n, t in enumerate(found["threads"]))
    if not threads:
        raise DumpError(f"{path}: the minidump has no thread", hint="there is nothing to show a backtrace of")
    crashed = min(found["thread"], len(threads) - 1)
    header = DumpHeader(executable=modules[0].path if modules else "", thread=crashed, modules=modules)
    dump = OpenedDump(path, header, Core(arch, _ARCHS[arch], tuple(regions), threads, ()), path)
    words = found["threads"][crashed]["stopped"] or "the minidump names no exception"
    at = _AT.search(words)
    return load(
        *(dump, header, scratch, resolver),
        cache=cache,
        build=build,
        source_map=source_map,
        progress=progress,
        exception=CrashException(words, None, int(at[1], 16) if at else None),
    )


def _module(found: dict[str, Any]) -> DumpModule:
    try:
        uuid = UUID(found["uuid"]) if found["uuid"] else None
    except ValueError:  # Linux's build ids may be of any length
        uuid = None
    return DumpModule(found["address"], found["path"], uuid if uuid and uuid.int else None)
