"""What this process and its LLDB child send each other: a plan goes in, and a report comes out. See worker.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from symcache.errors import DebuggerError, DumpError
from symcache.kinds import uuid_text
from symcache.text import encodable

__all__ = ["ChildFrame", "ChildModule", "ChildReport", "ChildThread", "FetchedModules", "ModulePlan", "Plan", "to_line"]

_KINDS: dict[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "int": int, "int | None": (int, type(None))}
"""What fields of reports are, as they are annotated."""
_T = TypeVar("_T", "ChildFrame", "ChildModule")


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """A module that LLDB is to have, and the files for it."""

    uuid: UUID | None
    address: int
    """Of its Mach-O header in the crashed process."""
    executable: Path | None
    """Its binary; its name is that by which LLDB calls the module."""
    symbols: Path | None
    """Its dSYM's symbol file."""
    layout: UUID | None
    """UUID of the shared cache that the binary was laid out for."""
    placeholder: Path | None
    """What LLDB gets where there is no binary."""
    symbols_only: bool
    """The placeholder is laid out for `symbols`."""
    size: int
    """Bytes of its code, from its header on, as far as the dump tells."""
    deferred: bool
    """It has not been fetched; the child requests it when it needs it."""

    @property
    def file(self) -> Path | None:
        """The file that LLDB takes for the module."""
        return self.executable or self.placeholder


@dataclass(frozen=True, slots=True)
class Plan:
    """What the child does: a core with modules."""

    core: Path
    triple: str
    """LLVM's name of architecture and system, such as `arm64-apple-macosx`."""
    thread: int
    """Index of the crashed thread."""
    source_map: tuple[tuple[str, str], ...]
    """Folders of source files: recorded, and here."""
    modules: tuple[ModulePlan, ...]

    def to_json(self, *, max_frames: int, send_sources: bool) -> dict[str, Any]:
        """Return what the worker reads.

        `max_frames`: of one thread. `send_sources`: the worker may request source files.
        """
        return _fields(self) | {"max_frames": max_frames, "send_sources": send_sources}


@dataclass(frozen=True, slots=True)
class FetchedModules:
    """The response to a request for modules: those with a file now, by their numbers in the plan."""

    modules: tuple[tuple[int, ModulePlan], ...] = ()
    source_map: tuple[tuple[str, str], ...] = ()
    """As of a plan, from their dSYMs."""
    problem: str = ""
    """Why the others could not be had; without it, nobody has them."""

    def to_json(self) -> dict[str, Any]:
        """Return what the worker reads."""
        return {
            "modules": [[number, _fields(module)] for number, module in self.modules],
            "source_map": self.source_map,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class ChildModule:
    """What became of a module of the plan."""

    state: str
    """`loaded`, `symbols` (only its dSYM), `memory` (the core holds it), `missing` or `rejected` (by LLDB)."""
    symbols: bool
    """LLDB uses its dSYM."""
    file_address: int | None
    """The address that its header was linked for."""
    detail: str
    """What went wrong, in words."""


@dataclass(frozen=True, slots=True)
class ChildFrame:
    """One frame as LLDB has it. Texts are empty where it knows nothing."""

    pc: int
    inlined: bool
    module: str = ""
    """Path of the module's file."""
    uuid: str = ""
    function: str = ""
    mangled: str = ""
    """The function's name in the binary, where that is another."""
    offset: int | None = None
    """Bytes from the function's start."""
    file: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class ChildThread:
    """One thread, top frame first."""

    name: str
    frames: tuple[ChildFrame, ...]


@dataclass(frozen=True, slots=True)
class ChildReport:
    """What the child says of a plan, module by module, thread by thread."""

    version: str
    """Of LLDB."""
    modules: tuple[ChildModule, ...]
    threads: tuple[ChildThread, ...]

    @classmethod
    def parse(cls, data: bytes, name: str) -> ChildReport:
        """Parse a report on a dump called `name`.

        Names out of binaries may hold any bytes; those that are no UTF-8 are written out (`\\xff`). Raises DumpError if
        LLDB does not open the core, DebuggerError if this is no report.
        """
        hint = "run again with --debug"
        try:
            report = json.loads(data, object_hook=_encodable)
        except (ValueError, RecursionError) as error:
            raise DebuggerError(f"{name}: LLDB's report is not JSON: {error}", hint=hint) from error
        try:
            if "error" in report:
                raise DumpError(
                    f"{name}: LLDB does not open the core: {report['error']}", hint="the dump may be damaged"
                )
            return cls(
                _of_kind("str", report["version"]),
                tuple(_made(ChildModule, module) for module in report["modules"]),
                tuple(_thread(thread) for thread in report["threads"]),
            )
        except (TypeError, KeyError, AttributeError) as error:
            what = f"{type(error).__name__} {error}"
            raise DebuggerError(f"{name}: LLDB's report is not the expected one: {what}", hint=hint) from error


def _thread(thread: dict[str, Any]) -> ChildThread:
    name = _of_kind("str", thread["name"] or "")
    return ChildThread(name, tuple(_made(ChildFrame, frame) for frame in thread["frames"]))


def _made(cls: type[_T], values: dict[str, Any]) -> _T:
    """Return what an object of JSON says. Raises TypeError where a field is missing, unknown or of another kind."""
    for field in fields(cls):
        if field.name in values:
            _of_kind(str(field.type), values[field.name])
    return cls(**values)


def _of_kind(kind: str, value: Any) -> Any:
    if not isinstance(value, _KINDS[kind]):
        raise TypeError(f"{type(value).__name__} where {kind} was expected")
    return value


def _encodable(values: dict[str, Any]) -> dict[str, Any]:
    return {key: encodable(value) if isinstance(value, str) else value for key, value in values.items()}


def to_line(value: object) -> bytes:
    """Return a line of JSON for the worker."""
    return json.dumps(value, default=_json_value).encode() + b"\n"


def _fields(value: Plan | ModulePlan) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _json_value(value: object) -> object:
    """Return what stands for a value that JSON has no kind for."""
    if isinstance(value, ModulePlan):
        return _fields(value)
    return uuid_text(value) if isinstance(value, UUID) else str(value)
