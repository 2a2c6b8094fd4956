"""A dump, core, minidump or crash report in a few lines, without a debugger."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump.formats.container import open_dump
from symcache.dump.formats.core import Segment
from symcache.dump.formats.exceptions import describe_exception
from symcache.dump.formats.header import DumpHeader
from symcache.dump.formats.minidump import is_minidump, read_minidump
from symcache.dump.formats.notes import header_of_core
from symcache.dump.minidump_loader import minidump_header
from symcache.dump.report_loader import report_header
from symcache.errors import DumpError
from symcache.kinds import uuid_text
from symcache.macho import MH, mach_header
from symcache.reports import is_report, read_report
from symcache.scratch import ScratchFolder

__all__ = ["describe", "dump_kind"]


def dump_kind(path: Path) -> str | None:
    """Return what kind of crash a file holds, judged by its beginning, or None. Raises OSError.

    `dump` (header and core in a zip file), `core` (a bare Mach-O one), `minidump`, `crash report`.
    """
    with path.open("rb") as file:
        header = mach_header(start := file.read(32))
    if header and header.filetype == MH.CORE:
        return "core"
    if is_minidump(path):
        return "minidump"
    if is_report(path):
        return "crash report"
    return "dump" if start.startswith(b"PK\3\4") or zipfile.is_zipfile(path) else None


def describe(path: Path) -> dict[str, Any]:
    """Return what a dump says of itself, for `symcache info` (docs/dump-format.md). Raises DumpError, OSError."""
    kind = dump_kind(path)
    if kind is None:
        raise DumpError(
            f"{path}: is no crash dump", hint="a zip with header and core, a Mach-O core, a minidump, a .ips or .crash"
        )
    described = {"minidump": _minidump, "crash report": _report}.get(kind, _core)(path)
    return {"kind": kind, **described}


def _core(path: Path) -> dict[str, Any]:
    with ScratchFolder("dump") as scratch:
        dump = open_dump(path, Path(scratch))
        header = dump.header or header_of_core(path, dump.core)
    core = dump.core
    return _described(
        header,
        arch=core.arch,
        exception=describe_exception(core, core.threads[header.thread]).description,
        threads=len(core.threads),
        crashed=header.thread,
        modules=((m.address, m.path, m.uuid) for m in header.modules),
        memory=core.segments,
    )


def _minidump(path: Path) -> dict[str, Any]:
    minidump = read_minidump(path)
    header = minidump_header(minidump)
    return _described(
        header,
        arch=minidump.arch,
        os_version=minidump.os_version or None,
        exception=minidump.exception.description,
        threads=len(minidump.threads),
        crashed=minidump.crashed,
        modules=((m.address, m.path, m.uuid) for m in header.modules),
        memory=minidump.memory,
    )


def _report(path: Path) -> dict[str, Any]:
    report = read_report(path, threads=False)
    return _described(
        report_header(report),
        arch=report.arch,
        os_version=report.os_version or None,
        exception=report.exception.description,
        threads=len(report.threads),
        crashed=None if report.crashed_thread is None else report.threads[report.crashed_thread].index,
        modules=((i.address, i.path, i.uuid) for i in report.images),
    )


def _described(
    header: DumpHeader,
    *,
    arch: str,
    exception: str,
    threads: int,
    crashed: int | None,
    modules: Iterable[tuple[int | None, str, UUID | None]],
    memory: Sequence[Segment] | None = None,
    os_version: str | None = None,
) -> dict[str, Any]:
    return {
        "arch": arch,
        "executable": header.executable or None,
        "bundle_version": header.bundle_version or None,
        "os_version": os_version,
        "os_build": header.os_build,
        "cache_uuid": uuid_text(header.cache_uuid) if header.cache_uuid else None,
        "exception": exception,
        "crashed_thread": crashed if threads else None,
        "threads": threads,
        "regions": None if memory is None else len(memory),
        "bytes_kept": None if memory is None else sum(s.filesize for s in memory),
        "modules": [
            {
                "address": None if address is None else hex(address),
                "path": name or None,
                "uuid": uuid_text(uuid) if uuid else None,
            }
            for address, name, uuid in modules
        ],
    }
