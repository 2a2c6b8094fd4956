"""A dump turned into what happened: exception, backtraces, modules, and a signature to group crashes by."""

from __future__ import annotations

import bisect
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump.debugger import Limits, LldbProcess, Mode
from symcache.dump.exceptions import CrashException
from symcache.dump.loader import LoadedDump, LoadedModule, load_dump, load_report
from symcache.dump.reports import is_report, read_report
from symcache.dump.symbols import ModuleResolver, Progress
from symcache.errors import DumpError
from symcache.model import uuid_text

__all__ = ["Analysis", "Frame", "ModuleReport", "ThreadReport", "analyze", "open_in_lldb"]

SCHEMA_VERSION = 1
_SIGNATURE_FRAMES = 8
_MACHINERY = frozenset({"__pthread_kill", "pthread_kill", "abort", "__abort", "raise", "__assert_rtn"})
"""How a crash is carried out, not where it comes from: left out at the start of a signature."""


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """A module and whether its binary is there."""

    index: int
    loaded: LoadedModule
    status: str
    """`have`, `memory` (the core holds it), `missing`, `rejected` (a file was found, but is not it), `no-uuid`."""
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
    offset: int | None = None
    """From the function's start."""
    file: str = ""
    line: int | None = None
    column: int | None = None
    inlined: bool = False


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """One thread, top frame first."""

    index: int
    name: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything there is to say about a dump. `to_json` is a documented format (docs/dump-format.md)."""

    loaded: LoadedDump
    exception: CrashException
    threads: tuple[ThreadReport, ...]
    """In the order of the core."""
    modules: tuple[ModuleReport, ...]
    debugger: str

    @property
    def crashed(self) -> ThreadReport:
        """The thread that crashed."""
        return self.threads[self.loaded.header.thread]

    @property
    def registers(self) -> dict[str, int]:
        """General-purpose registers of the crashed thread."""
        return self.loaded.dump.core.threads[self.loaded.header.thread].registers

    @property
    def missing(self) -> list[ModuleReport]:
        """The modules whose frames cannot be named."""
        return [m for m in self.modules if m.status not in {"have", "memory"}]

    def signature(self) -> tuple[str, list[str]]:
        """Return a short hash and the lines it is made of; the same crash gives the same one.

        It holds the signal and the top frames as module and function, so addresses, slides and builds play no part;
        a frame without a name counts by its offset in the module.
        """
        frames = list(self.crashed.frames)
        while len(frames) > 1 and frames[0].function in _MACHINERY:
            frames.pop(0)
        lines = [self.exception.signal or "no signal", *(_signature_line(f) for f in frames[:_SIGNATURE_FRAMES])]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16], lines

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as `symcache analyze --json` prints it; the crashed thread comes first."""
        loaded, header = self.loaded, self.loaded.header
        identity, lines = self.signature()
        order = [self.crashed, *(t for t in self.threads if t is not self.crashed)]
        return {
            "schema_version": SCHEMA_VERSION,
            "dump": str(loaded.dump.path),
            "process": {
                "executable": header.executable,
                "bundle_version": header.bundle_version,
                "arch": loaded.dump.core.arch,
                "format_version": header.format_version,
            },
            "system": {
                "build": loaded.build,
                "cache_uuid": _uuid(loaded.cache_uuid),
                "source": loaded.cache_origin or None,
                "cache_slide": self.cache_slide(),
            },
            "exception": {
                "description": self.exception.description,
                "signal": self.exception.signal,
                "address": _hex(self.exception.address),
                "access": self.exception.access,
                "number": self.exception.number,
                "code": self.exception.code,
            },
            "signature": {"id": identity, "frames": lines},
            "crashed_thread": header.thread,
            "registers": {name: hex(value) for name, value in self.registers.items()},
            "threads": [_thread_json(t, t is self.crashed) for t in order],
            "modules": [_module_json(m) for m in self.modules],
            "debugger": self.debugger,
        }

    def cache_slide(self) -> str | None:
        """Return the slide that all images of the shared cache have in common, or None if they have none."""
        slides = {
            m.slide
            for m in self.modules
            if m.loaded.executable
            and m.slide is not None
            and self.loaded.cache_uuid
            and m.loaded.executable.cache_uuid == self.loaded.cache_uuid
        }
        return hex(slides.pop()) if len(slides) == 1 else None


def analyze(
    path: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Open a dump in LLDB, or name the frames of a crash report, and return what it says.

    Raises DumpError, DebuggerError, OSError.
    """
    crash_report = read_report(path) if is_report(path) else None
    with (
        LldbProcess(Mode.ANALYZE, limits) as lldb,
        tempfile.TemporaryDirectory(prefix="symcache-dump-") as folder,
    ):
        if crash_report:
            loaded = load_report(
                path, crash_report, Path(folder), resolver, cache=cache, build=build, progress=progress
            )
        else:
            loaded = load_dump(path, Path(folder), resolver, cache=cache, build=build, progress=progress)
        report = lldb.report(loaded.plan, str(path))
    modules = tuple(_module(n, m, r) for n, (m, r) in enumerate(zip(loaded.modules, report["modules"], strict=True)))
    names = dict(enumerate(t.name for t in crash_report.threads)) if crash_report else {}
    exception = crash_report.exception if crash_report else loaded.exception
    finder = _ModuleFinder(loaded, modules)
    threads = tuple(
        ThreadReport(number, thread["name"] or names.get(number, ""), tuple(finder.frame(f) for f in thread["frames"]))
        for number, thread in enumerate(report["threads"])
    )
    return Analysis(loaded, exception, threads, modules, report["version"])


def open_in_lldb(
    path: Path,
    resolver: ModuleResolver,
    lldb: LldbProcess,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
    show: Callable[[LoadedDump], None] | None = None,
) -> str:
    """Open a dump in LLDB with the crashed thread selected, and return what `bt` prints; or leave the user its prompt.

    `lldb` was started for the one (`Mode.PRINT`) or the other (`Mode.PROMPT`). `show` is called before it gets to
    work. Raises DumpError, DebuggerError, OSError.
    """
    if is_report(path):
        raise DumpError(
            f"{path}: is a crash report, without memory that a debugger could open",
            hint="`symcache analyze` names its frames",
        )
    with tempfile.TemporaryDirectory(prefix="symcache-dump-") as folder:
        scratch = Path(folder)
        loaded = load_dump(path, scratch, resolver, cache=cache, build=build, source_map=source_map, progress=progress)
        if show:
            show(loaded)
        if lldb.mode is Mode.PROMPT:
            lldb.prompt(loaded.plan, str(path))
            return ""
        return lldb.backtrace(loaded.plan, str(path))


class _ModuleFinder:
    """Maps what LLDB says of a frame to the dump's modules."""

    def __init__(self, loaded: LoadedDump, modules: Sequence[ModuleReport]) -> None:
        self._by_path = {
            plan["path"] or plan["placeholder"]: module
            for plan, module in zip(loaded.plan["modules"], modules, strict=True)
        }
        self._by_uuid = {uuid_text(m.loaded.module.uuid): m for m in modules if m.loaded.module.uuid}
        self._by_address = sorted(modules, key=lambda m: m.loaded.module.address)
        self._addresses = [m.loaded.module.address for m in self._by_address]

    def frame(self, raw: dict[str, Any]) -> Frame:
        module = (
            self._by_path.get(raw.get("module", ""))
            or self._by_uuid.get(raw.get("uuid", ""))
            or self._covering(raw["pc"])
        )
        return Frame(
            raw["pc"],
            module,
            raw.get("function", ""),
            raw.get("offset"),
            raw.get("file", ""),
            raw.get("line"),
            raw.get("column") or None,
            raw["inlined"],
        )

    def _covering(self, address: int) -> ModuleReport | None:
        position = bisect.bisect_right(self._addresses, address) - 1
        if position >= 0:
            module = self._by_address[position]
            if address - module.loaded.module.address < module.loaded.text_size:
                return module
        return None


def _module(number: int, loaded: LoadedModule, report: dict[str, Any]) -> ModuleReport:
    status = {"loaded": "have"}.get(report["state"], report["state"])
    if status == "missing" and loaded.module.uuid is None:
        status = "no-uuid"
    address = report["file_address"]
    slide = loaded.module.address - address if address is not None and status == "have" else None
    detail = report["detail"]
    if loaded.ignored:
        detail = detail or f"{loaded.ignored.path} is not its debug info"
    elif loaded.debug_info and status == "have" and not report["symbols"]:
        detail = detail or f"LLDB ignores its debug info {loaded.debug_info.path}"
    return ModuleReport(number, loaded, status, bool(report["symbols"]), detail, slide)


def _signature_line(frame: Frame) -> str:
    if frame.module is None:
        return frame.function or "?"
    name = frame.module.loaded.module.name
    if frame.function:
        return f"{name}`{frame.function}"
    return f"{name}+{frame.address - frame.module.loaded.module.address:#x}"


def _thread_json(thread: ThreadReport, crashed: bool) -> dict[str, Any]:
    return {
        "index": thread.index,
        "name": thread.name or None,
        "crashed": crashed,
        "frames": [_frame_json(n, f) for n, f in enumerate(thread.frames)],
    }


def _frame_json(number: int, frame: Frame) -> dict[str, Any]:
    module = frame.module
    executable = module.loaded.executable if module else None
    return {
        "index": number,
        "address": hex(frame.address),
        "module": module.loaded.module.name if module else None,
        "module_index": module.index if module else None,
        "module_offset": frame.address - module.loaded.module.address if module else None,
        "uuid": _uuid(module.loaded.module.uuid) if module else None,
        "build": executable.build if executable else None,
        "function": frame.function or None,
        "offset": frame.offset,
        "file": frame.file or None,
        "line": frame.line,
        "column": frame.column,
        "inlined": frame.inlined,
    }


def _module_json(module: ModuleReport) -> dict[str, Any]:
    dumped, executable = module.loaded.module, module.loaded.executable
    return {
        "index": module.index,
        "address": hex(dumped.address),
        "path": dumped.path or None,
        "name": dumped.name,
        "uuid": _uuid(dumped.uuid),
        "version": _version(dumped.version),
        "status": module.status,
        "detail": module.detail or None,
        "debug_info": module.debug_info,
        "build": executable.build if executable else None,
        "cache_uuid": _uuid(executable.cache_uuid) if executable else None,
        "origin": executable.origin if executable else None,
    }


def _version(packed: int | None) -> str | None:
    return None if packed is None else f"{packed >> 16}.{packed >> 8 & 255}.{packed & 255}"


def _uuid(uuid: UUID | None) -> str | None:
    return uuid_text(uuid) if uuid else None


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)
