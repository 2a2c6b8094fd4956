"""What an analysis found: threads, frames, modules, a signature to group crashes by, and all of it as JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from symcache.crash import CrashException
from symcache.dump.loader import LoadedDump
from symcache.dump.rows import frames_json, hex_or_none, module_json, termination_json, thread_json, uuid_or_none
from symcache.dump.stacks import Frame, ModuleReport, ThreadReport
from symcache.text import encodable

if TYPE_CHECKING:
    from symcache.reports import Report

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
class Analysis:
    """Everything there is to say about a dump. `to_json` is a documented format (docs/dump-format.md)."""

    loaded: LoadedDump
    exception: CrashException
    threads: tuple[ThreadReport, ...]
    """In the order of the core."""
    modules: tuple[ModuleReport, ...]
    debugger: str
    report: Report | None = None
    """What a crash report says."""
    backtraces: tuple[tuple[Frame, ...], ...] = ()
    """Of a crash report: of its last exception, which may be empty, and its application-specific ones."""

    @property
    def crashed(self) -> ThreadReport | None:
        """The thread that crashed; None in a crash report that blames none."""
        return self.threads[self.loaded.header.thread] if self.loaded.blamed else None

    @property
    def crashed_first(self) -> list[ThreadReport]:
        """All threads, that which crashed before the others."""
        return sorted(self.threads, key=lambda thread: thread is not self.crashed)

    @property
    def last_exception(self) -> tuple[Frame, ...]:
        """Where an exception was thrown, as a crash report tells: the crashed thread only aborts then."""
        return next(filter(None, self.backtraces), ())

    @property
    def information(self) -> tuple[str, ...]:
        """Application-specific information of a crash report, line by line, printable."""
        return self.report.information if self.report else ()

    @property
    def registers(self) -> dict[str, int]:
        """General-purpose registers of the crashed thread."""
        threads = self.loaded.dump.core.threads
        return threads[self.loaded.header.thread].registers if self.loaded.blamed else {}

    @property
    def missing(self) -> list[ModuleReport]:
        """The modules whose frames no binary names; no frame is in those that were not fetched."""
        return [m for m in self.modules if m.status not in {"have", "symbols", "memory", "unfetched"}]

    def signature(self) -> tuple[str, list[str]]:
        """Return a short hash and the lines it is made of; the same crash gives the same one.

        It holds the signal and the top frames as module and function, so addresses, slides and builds play no part; if
        an exception was thrown, the frames are its. A frame without a name counts by its offset in the module.
        """
        frames = list(self.last_exception or (self.crashed.frames if self.crashed else ()))
        carried = _RAISING if self.last_exception else _MACHINERY
        while len(frames) > 1 and frames[0].function in carried:
            frames.pop(0)
        lines = [self.exception.signal or "no signal", *(_signature_line(f) for f in frames[:_SIGNATURE_FRAMES])]
        if not frames and self.exception.kind:
            lines.append(self.exception.kind)
        lines = [encodable(line) for line in lines]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16], lines

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as `symcache analyze --json` prints it; the crashed thread comes first."""
        loaded, header = self.loaded, self.loaded.header
        identity, lines = self.signature()
        crashed = self.crashed
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
                "cache_uuid": uuid_or_none(self.cache_uuid()),
                "source": loaded.cache_origin or None,
                "cache_slide": self.cache_slide(),
            },
            "exception": {
                "description": self.exception.description,
                "signal": self.exception.signal,
                "address": hex_or_none(self.exception.address),
                "access": self.exception.access,
                "number": self.exception.number,
                "code": self.exception.code,
                "type": self.exception.kind,
                "subtype": self.exception.subtype,
                "codes": self.exception.codes,
                "message": self.exception.message,
            },
            "termination": termination_json(self.report.termination) if self.report else None,
            "cause": list(self.report.cause) if self.report else [],
            "notes": list(self.report.notes) if self.report else [],
            "signature": {"id": identity, "frames": lines},
            "application_specific_information": list(self.information),
            "last_exception": {"frames": frames_json(self.last_exception)} if self.last_exception else None,
            "application_backtraces": [{"frames": frames_json(frames)} for frames in self.backtraces[1:]],
            "crashed_thread": crashed.index if crashed else None,
            "registers": {name: hex(value) for name, value in self.registers.items()},
            "threads": [thread_json(t, crashed=t is crashed) for t in self.crashed_first],
            "modules": [module_json(m) for m in self.modules],
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
        return f"{frame.image}`{frame.function}" if frame.image and frame.function else frame.function or "?"
    module = frame.module.loaded.module
    name = module.name if module.path else uuid_or_none(module.uuid) or "?"  # a name that is made up holds the address
    if frame.function:
        return f"{name}`{frame.function}"
    return f"{name}+{frame.module_offset or 0:#x}"
