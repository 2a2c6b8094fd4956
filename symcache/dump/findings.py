"""What an analysis found: threads, frames, modules, a signature to group crashes by, and all of it as JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from symcache.crash import CrashException
from symcache.dump.loader import LoadedDump, LoadedModule
from symcache.kinds import uuid_text
from symcache.text import encodable

__all__ = ["Analysis", "Frame", "ModuleReport", "ThreadReport"]

SCHEMA_VERSION = 1
_SIGNATURE_FRAMES = 8
_MACHINERY = frozenset({"__pthread_kill", "pthread_kill", "abort", "__abort", "raise", "__assert_rtn"})
"""How a crash is carried out, not where it comes from: left out at the start of a signature."""
_RAISING = _MACHINERY | {
    "__exceptionPreprocess",
    "objc_exception_throw",
    "__cxa_throw",
    "-[NSException raise]",
    "+[NSException raise:format:]",
    "+[NSException raise:format:arguments:]",
}
"""Likewise, how an exception is thrown."""


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """A module and whether its binary is there."""

    index: int
    loaded: LoadedModule
    status: str
    """`have`, `symbols` (only its dSYM), `memory` (the core holds it), `missing`, `rejected` (there is a file, but
    of something else), `no-uuid`."""
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
    source_line: str = ""
    """Text of the source line, without the space around it; empty where the source was not looked for or found."""


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
    last_exception: tuple[Frame, ...] = ()
    """Where an uncaught exception was thrown, as a crash report tells: the crashed thread only aborts then."""
    information: tuple[str, ...] = ()
    """Application-specific information of a crash report, line by line, printable."""

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
        """The modules whose frames no binary names."""
        return [m for m in self.modules if m.status not in {"have", "symbols", "memory"}]

    def signature(self) -> tuple[str, list[str]]:
        """Return a short hash and the lines it is made of; the same crash gives the same one.

        It holds the signal and the top frames as module and function, so addresses, slides and builds play no part; if
        an exception was thrown, the frames are its. A frame without a name counts by its offset in the module.
        """
        frames = list(self.last_exception or self.crashed.frames)
        carried = _RAISING if self.last_exception else _MACHINERY
        while len(frames) > 1 and frames[0].function in carried:
            frames.pop(0)
        lines = [self.exception.signal or "no signal", *(_signature_line(f) for f in frames[:_SIGNATURE_FRAMES])]
        lines = [encodable(line) for line in lines]
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
                "cache_uuid": _uuid(self.cache_uuid()),
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
            "application_specific_information": list(self.information),
            "last_exception": {"frames": _frames_json(self.last_exception)} if self.last_exception else None,
            "crashed_thread": header.thread,
            "registers": {name: hex(value) for name, value in self.registers.items()},
            "threads": [_thread_json(t, t is self.crashed) for t in order],
            "modules": [_module_json(m) for m in self.modules],
            "debugger": self.debugger,
        }

    def cache_uuid(self) -> UUID | None:
        """Return the shared cache that was mapped, as far as known.

        Where the dump does not note it and it was not inferred: the one that the images in use are from, if one slide
        of it explains all their addresses.
        """
        if self.loaded.cache_uuid:
            return self.loaded.cache_uuid
        slides = self._cache_slides()
        for cache, values in slides.items():
            if len(slides) == 1 and len(values) > 1 and len(set(values)) == 1:
                return cache
        return None

    def cache_slide(self) -> str | None:
        """Return the slide that all images of the shared cache have in common, or None if they have none."""
        cache = self.cache_uuid()
        slides = set(self._cache_slides().get(cache, [])) if cache else set()
        return hex(slides.pop()) if len(slides) == 1 else None

    def _cache_slides(self) -> dict[UUID, list[int]]:
        """Return the slides of the images in use, by the shared cache that each is from."""
        slides: dict[UUID, list[int]] = {}
        for module in self.modules:
            file = module.loaded.executable
            if file and file.cache_uuid and module.slide is not None:
                slides.setdefault(file.cache_uuid, []).append(module.slide)
        return slides


def _signature_line(frame: Frame) -> str:
    if frame.module is None:
        return frame.function or "?"
    module = frame.module.loaded.module
    name = module.name if module.path else _uuid(module.uuid) or "?"  # a name that is made up holds the address
    if frame.function:
        return f"{name}`{frame.function}"
    return f"{name}+{frame.address - module.address:#x}"


def _thread_json(thread: ThreadReport, crashed: bool) -> dict[str, Any]:
    return {
        "index": thread.index,
        "name": thread.name or None,
        "crashed": crashed,
        "frames": _frames_json(thread.frames),
    }


def _frames_json(frames: tuple[Frame, ...]) -> list[dict[str, Any]]:
    return [_frame_json(n, f) for n, f in enumerate(frames)]


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
        "source_line": frame.source_line or None,
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
