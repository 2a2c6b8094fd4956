"""Writes the response to `/symbolicate/v5`, as text: with objects, a hundred thousand frames would take seconds.

Source: `schemas/symbolicate_v5` and `eliot/symbolicate_resource.py` of mozilla-services/eliot; `function_size` and
`module_errors` as samply has them (samply-api of mstange/samply). `source` is our own: a value of `NameSource`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from json.encoder import encode_basestring_ascii as quote
from uuid import UUID

from symcache.errors import UsageError
from symcache.symbolicate import Call, Location
from symcache_server.lookup.module_names import ModuleError
from symcache_server.symbolicate.jobs import UNKNOWN, Job, Module

__all__ = ["NamedOffsets", "write_results"]

_MAX_TEXT = 128 << 20
"""Characters of a response, all ASCII."""
_UNKNOWN_MODULE = '"module":"<unknown>","module_offset":"'

NamedOffsets = Mapping[UUID, Mapping[int, Location | None]]
"""The location of each offset, by UUID; UUIDs that nobody has are left out."""


def write_results(jobs: list[Job], named: NamedOffsets, errors: Mapping[UUID, ModuleError]) -> bytes:
    """Return the JSON of a response. Raises UsageError where it would be too large."""
    fragments: dict[int, str] = {}
    room = _MAX_TEXT
    results = []
    for job in jobs:
        results.append(_result(job, named, errors, fragments, room))
        room -= len(results[-1])
    return f'{{"results":[{",".join(results)}]}}'.encode("ascii")


def _result(
    job: Job, named: NamedOffsets, errors: Mapping[UUID, ModuleError], fragments: dict[int, str], room: int
) -> str:
    modules = [_ModuleFrames(module, named, fragments) if module else None for module in job.modules]
    referred: set[int] = set()
    stacks = []
    for stack in job.stacks:
        frames = []
        for number, (index, offset) in enumerate(stack):
            if index != UNKNOWN and (module := modules[index]) is not None:
                referred.add(index)
                frame = module[offset]
            else:
                frame = f'{_UNKNOWN_MODULE}{offset:#x}"}}'
            if (room := room - len(frame)) < 0:
                raise UsageError("the response would be too large", hint="send fewer frames at once")
            frames.append(f'{{"frame":{number},{frame}')
        stacks.append(f"[{','.join(frames)}]")
    return f'{{"stacks":[{",".join(stacks)}],{_modules(job.modules, referred, named, errors)}}}'


def _modules(
    modules: Sequence[Module | None], referred: Set[int], named: NamedOffsets, errors: Mapping[UUID, ModuleError]
) -> str:
    """Return which modules were found; null for those that no frame refers to."""
    states: dict[str, bool | None] = {}
    problems: dict[str, list[dict[str, str]]] = {}
    for index, module in enumerate(modules):
        if module is None:
            continue
        if index not in referred:
            states.setdefault(module.key, None)
            continue
        states[module.key] = module.uuid in named
        if module.uuid and (error := errors.get(module.uuid)):
            problems[module.key] = [error._asdict()]
    more = f',"module_errors":{json.dumps(problems)}' if problems else ""
    return f'"found_modules":{json.dumps(states)}{more}'


class _ModuleFrames(dict[int, str]):
    """The frames of one module by offset, each without its number in front; written when they are first wanted."""

    def __init__(self, module: Module, named: NamedOffsets, fragments: dict[int, str]) -> None:
        super().__init__()
        self._start = f'"module":{quote(module.name or "<unknown>")},"module_offset":"'
        self._locations = named.get(module.uuid, {}) if module.uuid else {}
        self._fragments = fragments

    def __missing__(self, offset: int) -> str:
        location = self._locations.get(offset)
        if location is None:
            text = f'{self._start}{offset:#x}"}}'
        else:
            if (rest := self._fragments.get(id(location))) is None:
                rest = self._fragments[id(location)] = _fragment(location)
            text = f'{self._start}{offset:#x}","function_offset":"{offset - location.start:#x}"{rest}'
        self[offset] = text
        return text


def _fragment(location: Location) -> str:
    """Return what frames with this location have in common."""
    calls = location.calls
    text = f',{_call(calls[-1])},"source":"{location.source}"'
    if location.size is not None:
        text += f',"function_size":"{location.size:#x}"'
    if len(calls) > 1:
        text += f',"inlines":[{",".join([f"{{{_call(call)}}}" for call in calls[:-1]])}]'
    return text + "}"


def _call(call: Call) -> str:
    text = f'"function":{quote(call.function)}'
    if call.file:
        text += f',"file":{quote(call.file)}'
        if call.line:
            text += f',"line":{call.line}'
    return text
