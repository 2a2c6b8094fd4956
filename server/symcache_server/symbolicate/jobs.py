"""Reads requests to `/symbolicate/v5`.

Source: `eliot/symbolicate_resource.py` of mozilla-services/eliot, docs/symbolication.rst there, and what its clients
send. Where eliot refuses a whole request for one odd module, stack or frame, that one alone goes without names here.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from symcache.errors import UsageError

__all__ = ["UNKNOWN", "Job", "Module", "parse_debug_id", "read_jobs", "wanted_offsets"]

_MAX_JOBS = 100
_MAX_FRAMES = 100_000
_MAX_MODULES = 100_000
_MAX_VALUES = 2 * _MAX_FRAMES + 2 * _MAX_MODULES
UNKNOWN = -1
"""Stands for a module or an offset that a frame does not name."""
_OFFSET_END = 1 << 63
_DEBUG_ID = re.compile(
    r"([0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12})[0-9A-Fa-f]{0,8}"
)


@dataclass(frozen=True, slots=True)
class Module:
    """One row of a memory map, as it was sent."""

    name: str
    debug_id: str
    uuid: UUID | None
    """None where the id is no UUID."""

    @property
    def key(self) -> str:
        """What `found_modules` calls it: name and id as they were sent, since clients look for them so."""
        return f"{self.name}/{self.debug_id}"


@dataclass(frozen=True, slots=True)
class Job:
    """Stacks, and the modules that they are in."""

    modules: list[Module | None]
    """None for a row that is not a pair of strings."""
    stacks: list[list[tuple[int, int]]]
    """Of each frame its position in `modules`, and bytes from the module's header; both may be `UNKNOWN`."""


def read_jobs(body: bytes) -> list[Job]:
    """Return the jobs of a request, of either shape: several, or one at top level. Raises UsageError."""
    if body.count(b",") > _MAX_VALUES:  # its values take twenty times the memory
        raise UsageError(f"more than {_MAX_VALUES} values", hint=f"send {_MAX_FRAMES} frames at once at most")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("Payload is not valid JSON") from None
    if not isinstance(payload, dict):
        raise UsageError("Payload is no JSON object")
    jobs = payload.get("jobs", [payload])
    if not isinstance(jobs, list):
        raise UsageError("jobs is no list")
    if len(jobs) > _MAX_JOBS:
        raise UsageError(f"{len(jobs)} jobs are too many", hint=f"send {_MAX_JOBS} at once at most")
    read = [_job(number, job) for number, job in enumerate(jobs)]
    frames = sum(len(stack) for job in read for stack in job.stacks)
    if frames > _MAX_FRAMES:
        raise UsageError(f"{frames} frames are too many", hint=f"send {_MAX_FRAMES} at once at most")
    return read


def _job(number: int, job: Any) -> Job:
    if not isinstance(job, dict):
        raise UsageError(f"job {number} is invalid: no JSON object")
    for name in ("memoryMap", "stacks"):
        if not isinstance(job.get(name), list):
            raise UsageError(f"job {number} is invalid: no {name} specified")
    modules = [_module(row) for row in job["memoryMap"]]
    return Job(modules, [_stack(stack, len(modules)) for stack in job["stacks"]])


def _module(row: Any) -> Module | None:
    match row:
        case [str(name), str(debug_id)]:
            return Module(name, debug_id, parse_debug_id(debug_id))
    return None


def parse_debug_id(text: str) -> UUID | None:
    """Return the UUID of a Breakpad debug id: 32 digits, then its age, which is 0 for Mach-O; None for what is none."""
    match = _DEBUG_ID.fullmatch(text)
    uuid = UUID(match[1]) if match else None
    return uuid if uuid and uuid.int else None


def _stack(stack: Any, modules: int) -> list[tuple[int, int]]:
    if not isinstance(stack, list):
        return []
    return [
        (frame[0], frame[1])  # without a call for what is as it should be
        if type(frame) is list
        and len(frame) == 2
        and type(frame[0]) is type(frame[1]) is int
        and 0 <= frame[0] < modules
        and 0 <= frame[1] < _OFFSET_END
        else _frame(frame, modules)
        for frame in stack
    ]


def _frame(frame: Any, modules: int) -> tuple[int, int]:
    if type(frame) is not list or len(frame) != 2:
        return UNKNOWN, UNKNOWN
    module, offset = frame
    # Not `isinstance`: true and false are integers.
    known = type(module) is int and 0 <= module < modules
    if type(offset) is int and 0 <= offset < _OFFSET_END:
        return (module if known else UNKNOWN), offset
    return (module if known else UNKNOWN), UNKNOWN


def wanted_offsets(jobs: list[Job]) -> dict[UUID, set[int]]:
    """Return the offsets that are asked for of each UUID that a frame refers to."""
    wanted: defaultdict[UUID, set[int]] = defaultdict(set)
    for job in jobs:
        offsets = [None if module is None or module.uuid is None else wanted[module.uuid] for module in job.modules]
        for stack in job.stacks:
            for module, offset in stack:
                if module != UNKNOWN and (known := offsets[module]) is not None:
                    known.add(offset)
    return {uuid: offsets for uuid, offsets in wanted.items() if offsets}
