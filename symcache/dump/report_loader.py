"""Crash reports for LLDB to name the frames of: their images as the modules of a dump that has no memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, CoreThread, Segment
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.loader import ARCHS, KnownStacks, LoadedDump, load
from symcache.dump.module_files import Search
from symcache.errors import DumpError
from symcache.reports import Report, ReportFrame, physical_frames

__all__ = ["load_report", "report_header"]

_READ_EXECUTE = 5


def load_report(path: Path, report: Report, scratch: Path, search: Search) -> LoadedDump:
    """Find the modules of a crash report, as a dump whose core has threads but no memory. As `load_dump` else.

    Raises DumpError for a process of another architecture, too.
    """
    header = report_header(report)
    sizes = {image.address: image.size for image in report.images}
    regions = tuple(sorted(Segment(m.address, sizes[m.address], 0, 0, _READ_EXECUTE, 0) for m in header.modules))
    threads = tuple(
        CoreThread(n, report.registers if n == report.crashed_thread else {}, None) for n in range(len(report.threads))
    )
    cputype = next((number for number, name in ARCHS.items() if name == report.arch), None)
    if cputype is None:
        raise DumpError(
            f"{path}: is the report of a{'' if report.arch == 'ppc64' else ' 32-bit'} process ({report.arch});"
            f" frames of {' and '.join(ARCHS.values())} are named",
            hint="`symcache info` tells what else it says",
        )
    dump = OpenedDump(path, header, Core(report.arch, cputype, regions, threads, ()), path)
    stacks = tuple(_counters(thread.frames) for thread in report.threads)
    return load(
        *(dump, header, scratch, search),
        exception=report.exception,
        stacks=KnownStacks(
            stacks,
            tuple(map(_counters, (report.last_exception, *report.application_backtraces))),
        ),
        blamed=report.crashed_thread is not None,
        names=[thread.label for thread in report.threads],
    )


def report_header(report: Report) -> DumpHeader:
    """Return what a report says, as the header of a dump has it.

    Its modules are the images that have an address, each address once, the executable first.
    """
    modules = {i.address: DumpModule(i.address, i.path, i.uuid) for i in report.images if i.address is not None}
    return DumpHeader(
        executable=report.executable,
        bundle_version=report.bundle_version,
        thread=report.crashed_thread or 0,
        modules=tuple(sorted(modules.values(), key=lambda m: not (m.path and m.path == report.executable))),
        os_build=report.os_build or None,
        cache_uuid=report.cache_uuid,
        cache_base=report.cache_base,
    )


def _counters(frames: Sequence[ReportFrame]) -> tuple[int, ...]:
    """Return the program counter of each frame of the stack."""
    return tuple(group[-1].address for group in physical_frames(frames))
