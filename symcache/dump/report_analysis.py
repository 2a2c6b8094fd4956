"""From a crash report to what happened, without a debugger: its frames are known, and images name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from symcache.dump.findings import Analysis, Frame, ModuleReport, ThreadReport
from symcache.dump.loader import LoadedModule
from symcache.dump.module_files import Search
from symcache.dump.module_names import namer_of
from symcache.dump.report_loader import load_report
from symcache.macho import header_address
from symcache.reports import Report
from symcache.resolve import FileNamer
from symcache.symbolicate import NamedFrame, NamesFolder, name_report

__all__ = ["analyze_report"]


def analyze_report(path: Path, report: Report, search: Search, names: NamesFolder) -> Analysis:
    """Return what a report says, its frames named. Raises DumpError, StorageError, OSError."""
    loaded = load_report(path, report, search)
    namer = namer_of(loaded, names)
    named = name_report(report, namer)
    modules = tuple(_module(n, module, namer) for n, module in enumerate(loaded.modules))
    at: dict[int | None, ModuleReport] = {module.loaded.module.address: module for module in modules}

    def frames(stack: Sequence[NamedFrame]) -> tuple[Frame, ...]:
        return tuple(
            Frame(
                *(frame.address, at.get(_address(report, frame.image)), frame.function, frame.offset),
                *(frame.file, frame.line, None, frame.inlined),
                mangled=frame.symbol,
                image=frame.image_name,
                other_function=frame.other_function,
                source=frame.name_source,
                image_offset=frame.image_offset,
            )
            for frame in stack
        )

    threads = tuple(
        ThreadReport(thread.index, thread.label, frames(stack), thread.queue)
        for thread, stack in zip(report.threads, named.threads, strict=True)
    )
    backtraces = tuple(map(frames, (named.last_exception, *named.application_backtraces)))
    return Analysis(loaded, loaded.exception, threads, modules, "", report=report, backtraces=backtraces)


def _address(report: Report, image: int | None) -> int | None:
    return None if image is None else report.images[image].address


def _module(number: int, loaded: LoadedModule, namer: FileNamer) -> ModuleReport:
    module, executable = loaded.module, loaded.executable
    detail = namer.problems.get(module.uuid, "") if module.uuid else ""
    if detail:
        status = "rejected"
    elif executable:
        status = "have"
    elif loaded.symbols_only:
        status = "symbols"
    elif module.uuid is None:
        status = "no-uuid"
    else:
        status = "unfetched" if loaded.deferred else "missing"
    if loaded.ignored:
        detail = detail or f"{loaded.ignored.path} is not its debug info"
    linked = header_address(executable.path, module.uuid) if executable and module.uuid else None
    slide = module.address - linked if linked is not None and status == "have" else None
    return ModuleReport(number, loaded, status, loaded.debug_info is not None and status != "rejected", detail, slide)
