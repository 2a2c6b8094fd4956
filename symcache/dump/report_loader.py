"""Crash reports as dumps that have no memory: their images are the modules, for which files are looked for."""

from __future__ import annotations

import itertools
from pathlib import Path

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, CoreThread, Segment
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.lldb_child.protocol import Plan
from symcache.dump.loader import ARCHS, LoadedDump, LoadedModule, files_of, find_files, noted_sources_of, text_sizes
from symcache.dump.module_files import Search, named
from symcache.dump.stack_modules import modules_of_addresses
from symcache.errors import DumpError
from symcache.reports import Report

__all__ = ["load_report", "report_header"]

_READ_EXECUTE = 5


def load_report(path: Path, report: Report, search: Search) -> LoadedDump:
    """Find the modules of a crash report, as a dump whose core has threads but no memory. As `load_dump` else.

    Raises DumpError for a process of another architecture, too.
    """
    header = report_header(report)
    dump = OpenedDump(path, header, _core(path, report, header), path)
    sizes = text_sizes(dump, header)
    found = find_files(header, search, _needed(report, header, sizes, search))
    modules = []
    for module, size in zip(named(header, found.files, executable_first=False), sizes, strict=True):
        executable, debug_info, ignored = files_of(module, found.files)
        modules.append(
            LoadedModule(
                *(module, executable, debug_info, ignored, None, size),
                symbols_only=executable is None and debug_info is not None,
                deferred=found.was_deferred(module.uuid),
            )
        )
    source_map = (*search.source_map, *noted_sources_of(modules))
    return LoadedDump(
        *(dump, header, tuple(modules), found.cache, found.build, found.origin),
        Plan(path, "", header.thread, source_map, ()),
        report.exception,
        walked=True,
        blamed=report.crashed_thread is not None,
        names=tuple(thread.label for thread in report.threads),
        files=found,
    )


def _core(path: Path, report: Report, header: DumpHeader) -> Core:
    cputype = next((number for number, name in ARCHS.items() if name == report.arch), None)
    if cputype is None:
        raise DumpError(
            f"{path}: is the report of a{'' if report.arch == 'ppc64' else ' 32-bit'} process ({report.arch});"
            f" frames of {' and '.join(ARCHS.values())} are named",
            hint="`symcache info` tells what else it says",
        )
    sizes = {image.address: image.size for image in report.images}
    regions = tuple(sorted(Segment(m.address, sizes[m.address], 0, 0, _READ_EXECUTE, 0) for m in header.modules))
    threads = tuple(
        CoreThread(n, report.registers if n == report.crashed_thread else {}, None) for n in range(len(report.threads))
    )
    return Core(report.arch, cputype, regions, threads, ())


def _needed(report: Report, header: DumpHeader, sizes: list[int], search: Search) -> set[int]:
    """Return the numbers of the modules that frames are in, and of those that only their binary can name."""
    modules = header.modules
    if search.here is None:
        return set(range(len(modules)))
    stacks = [*(thread.frames for thread in report.threads), report.last_exception, *report.application_backtraces]
    ranges = [(module.address, size) for module, size in zip(modules, sizes, strict=True)]
    pointed = modules_of_addresses((frame.address for frame in itertools.chain(*stacks)), ranges)
    return pointed | {n for n, module in enumerate(modules) if not module.path}


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
