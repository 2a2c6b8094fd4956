"""Threads, frames, modules as JSON (docs/dump-format.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from symcache.dump.stacks import Frame, ModuleReport, ThreadReport
from symcache.kinds import uuid_text

if TYPE_CHECKING:
    from symcache.reports import Termination

__all__ = ["frames_json", "hex_or_none", "module_json", "termination_json", "thread_json", "uuid_or_none"]


def thread_json(thread: ThreadReport, *, crashed: bool) -> dict[str, Any]:
    """Return a thread, top frame first."""
    return {
        "index": thread.index,
        "name": thread.name or None,
        "queue": thread.queue or None,
        "crashed": crashed,
        "frames": frames_json(thread.frames),
    }


def termination_json(ended: Termination | None) -> dict[str, Any] | None:
    """Return who ended the process, and why."""
    if ended is None:
        return None
    return {
        "namespace": ended.namespace or None,
        "code": hex_or_none(ended.code),
        "indicator": ended.indicator or None,
        "reasons": list(ended.reasons),
        "by": ended.by or None,
    }


def frames_json(frames: tuple[Frame, ...]) -> list[dict[str, Any]]:
    """Return the frames of a stack or a backtrace."""
    return [_frame_json(n, f) for n, f in enumerate(frames)]


def _frame_json(number: int, frame: Frame) -> dict[str, Any]:
    module = frame.module
    executable = module.loaded.executable if module else None
    return {
        "index": number,
        "address": hex(frame.address),
        "module": frame.module_name or None,
        "module_index": module.index if module else None,
        "module_offset": frame.module_offset,
        "uuid": uuid_or_none(module.loaded.module.uuid) if module else None,
        "build": executable.build if executable else None,
        "function": frame.function or None,
        "mangled": frame.mangled or None,
        "other_function": frame.other_function or None,
        "offset": frame.offset,
        "file": frame.file or None,
        "line": frame.line,
        "column": frame.column,
        "source_line": frame.source_line or None,
        "inlined": frame.inlined,
        "source": frame.source or None,
    }


def module_json(module: ModuleReport) -> dict[str, Any]:
    """Return a module, and what is there of it."""
    dumped, executable = module.loaded.module, module.loaded.executable
    return {
        "index": module.index,
        "address": hex(dumped.address),
        "path": dumped.path or None,
        "name": dumped.name,
        "uuid": uuid_or_none(dumped.uuid),
        "version": _version(dumped.version),
        "status": module.status,
        "detail": module.detail or None,
        "debug_info": module.debug_info,
        "build": executable.build if executable else None,
        "cache_uuid": uuid_or_none(executable.cache_uuid) if executable else None,
        "origin": executable.origin if executable else None,
    }


def _version(packed: int | None) -> str | None:
    return None if packed is None else f"{packed >> 16}.{packed >> 8 & 255}.{packed & 255}"


def uuid_or_none(uuid: UUID | None) -> str | None:
    """Return a UUID in upper case, None for none."""
    return uuid_text(uuid) if uuid else None


def hex_or_none(value: int | None) -> str | None:
    """Return `0x…`, None for none."""
    return None if value is None else hex(value)
