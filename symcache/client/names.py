"""Names for offsets in images, from a server: `POST /symbolicate/v5`, as Mozilla's servers and symcache's answer it.

Sent are names and UUIDs of images, and offsets in them; nothing else of the report that they are from. What comes back
is checked: its shape, the lengths of names, that there is one frame for each offset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np
import tenacity

from symcache.client.body import read_body
from symcache.client.urls import retry_after
from symcache.errors import IntegrityError, RemoteError
from symcache.symbolicate import Call, Location, ModuleNames, ModuleOffsets, NameSource
from symcache.text import excerpt, printable

__all__ = ["UnspokenError", "fetch_names"]

_MOST_OFFSETS, _MOST_MODULES = 10_000, 500
"""In one request."""
_SECONDS = 300.0
_ATTEMPTS = 4
_ROUNDS = 8
"""In which a server is asked for modules that it is still reading; in each it may take its time for them."""
_MAX_RESPONSE, _MAX_OF_OFFSET = 256 << 20, 32 << 10
"""Bytes, in all and for each offset."""
_MAX_NAME, _MAX_PATH, _MAX_INLINED = 8192, 4096, 1000
_MAX_LINE = 1 << 31
_MAX_ERRORS = 3
"""Of one module; samply has one for each place that it has looked at."""
_OFFSETS = 1 << 32
_UNSPOKEN = {404, 405, 410, 501}
_NAME = re.compile(r"[^A-Za-z0-9_.+{}@<> ~-]")
"""What some servers refuse a whole request for."""
_HEX = re.compile(r"0x[0-9A-Fa-f]{1,8}")


class UnspokenError(RemoteError):
    """A server that names no offsets."""


async def fetch_names(
    session: aiohttp.ClientSession, url: str, token: str | None, modules: Sequence[ModuleOffsets]
) -> list[ModuleNames]:
    """Return what the server at `url` knows of modules, in their order; all of them have a UUID.

    Raises UnspokenError, RemoteError, and IntegrityError for a response that is none.
    """
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=_wait,
        retry=tenacity.retry_if_exception_type(
            (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, _BusyError)
        ),
        reraise=True,
    )
    names: list[ModuleNames] = []
    try:
        for part in _parts(modules):
            named: dict[int, ModuleNames] = {}
            wanted = list(range(len(part)))
            for _ in range(_ROUNDS):
                answer: list[tuple[ModuleNames, bool]]
                answer = await retrying(_post, session, url, token, [part[number] for number in wanted])
                named |= {number: found for number, (found, _) in zip(wanted, answer, strict=True)}
                wanted = [number for number, (_, is_pending) in zip(wanted, answer, strict=True) if is_pending]
                if not wanted:
                    break
            names += [named[number] for number in range(len(part))]
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RemoteError(f"{url}: {error or type(error).__name__}", hint="check that the server is up") from error
    return _joined(modules, names)


def _parts(modules: Sequence[ModuleOffsets]) -> Iterator[list[ModuleOffsets]]:
    """Yield as much as fits into a request; a module of many offsets may be in several."""
    part: list[ModuleOffsets] = []
    room = _MOST_OFFSETS
    for module in modules:
        offsets = module.offsets
        while True:
            part.append(ModuleOffsets(module.uuid, module.name, module.path, module.arch, offsets[:room]))
            offsets, room = offsets[room:], room - len(offsets[:room])
            if not room or len(part) == _MOST_MODULES:
                yield part
                part, room = [], _MOST_OFFSETS
            if not len(offsets):
                break
    if part:
        yield part


def _joined(modules: Sequence[ModuleOffsets], parts: Sequence[ModuleNames]) -> list[ModuleNames]:
    joined, rest = [], iter(parts)
    for module in modules:
        names = next(rest)
        locations, found, problem = list(names.locations), names.found, names.problem
        while len(locations) < len(module.offsets):
            more = next(rest)
            locations += more.locations
            found |= more.found
            problem = problem or more.problem
        joined.append(ModuleNames(locations, found, problem))
    return joined


class _BusyError(RemoteError):
    """A server that may answer another time, in so many seconds."""

    seconds = 0.0


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(tenacity.wait_random_exponential(0.2, max=5)(state), getattr(error, "seconds", 0.0))


async def _post(
    session: aiohttp.ClientSession, url: str, token: str | None, modules: Sequence[ModuleOffsets]
) -> list[tuple[ModuleNames, bool]]:
    """Return what the server knows of each module, and whether it may know more soon."""
    # A frame of no offset that could be one would be refused with all others.
    known = [np.flatnonzero((module.offsets >= 0) & (module.offsets < _OFFSETS)) for module in modules]
    memory_map = [[_NAME.sub("_", module.name), _debug_id(module)] for module in modules]
    job = {
        "memoryMap": memory_map,
        "stacks": [
            [[number, offset] for offset in module.offsets[places].tolist()]
            for number, (module, places) in enumerate(zip(modules, known, strict=True))
        ],
    }
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    limit = min(_MAX_RESPONSE, (1 << 20) + _MAX_OF_OFFSET * sum(map(len, known)))
    async with session.post(
        f"{url}/symbolicate/v5",
        data=json.dumps({"jobs": [job]}).encode(),
        headers=headers,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(_SECONDS),
    ) as response:
        _check_status(url, response)
        data = await read_body(response, limit, f"{url}: its names")
    try:
        (result,) = json.loads(data)["results"]
        stacks, found = result["stacks"], result["found_modules"]
        if len(stacks) != len(modules) or not isinstance(found, Mapping):
            raise ValueError("another number of stacks")
        names = []
        errors = result.get("module_errors") or {}
        for (name, identity), module, places, stack in zip(memory_map, modules, known, stacks, strict=True):
            locations: list[Location | None] = [None] * len(module.offsets)
            for place, frame in zip(places.tolist(), stack, strict=True):
                locations[place] = _location(frame, int(module.offsets[place]))
            key = f"{name}/{identity}"
            of_module = (errors.get(key) or [])[:_MAX_ERRORS]
            is_pending = any(error.get("name") == "Pending" for error in of_module)
            said = "; ".join(excerpt(text) for error in of_module if isinstance(text := error.get("message"), str))
            problem = f"{url}: {module.name}: {said}" if said else ""
            names.append((ModuleNames(locations, found.get(key) is True or any(locations), problem), is_pending))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{url}: what it says of names is not what the protocol promises") from error
    return names


def _debug_id(module: ModuleOffsets) -> str:
    return f"{module.uuid.hex.upper()}0" if module.uuid else ""


def _check_status(url: str, response: aiohttp.ClientResponse) -> None:
    status, said = response.status, f"{url}: answers {response.status} {response.reason} to /symbolicate/v5"
    if status in _UNSPOKEN:
        raise UnspokenError(said)
    if status == 429 or status >= 500:
        busy = _BusyError(said, hint="ask again later, or for less at once")
        busy.seconds = retry_after(response.headers)
        raise busy
    if status in {401, 403}:
        raise RemoteError(said, hint="put a token that it knows into the URL: https://any:TOKEN@host")
    if status != 200:
        raise RemoteError(said)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise IntegrityError(f"{url}: answers in an encoding that was not asked for")


def _location(frame: Mapping[str, Any], offset: int) -> Location | None:
    """Return what a frame says of an offset. Raises ValueError, TypeError, AttributeError for what is none."""
    if not frame.get("function"):
        return None
    inlined = frame.get("inlines") or []
    if len(inlined) > _MAX_INLINED:
        raise ValueError("more inlined functions than any compiler makes")
    calls = tuple(_call(one) for one in (*(one for one in inlined if one.get("function")), frame))
    start = offset - _number(frame.get("function_offset", "0x0"))
    size = _number(frame["function_size"]) if frame.get("function_size") else None
    # Servers that do not say where names are from name the nearest symbol, wherever that ends.
    told = frame.get("source", NameSource.DWARF if any(call.line for call in calls) else NameSource.NEAREST)
    source = NameSource(told) if told in list(NameSource) else NameSource.NEAREST
    return Location(calls, max(start, 0), size, source)


def _call(told: Mapping[str, Any]) -> Call:
    name, file, line = told.get("function", ""), told.get("file") or "", told.get("line")
    if not isinstance(name, str) or not isinstance(file, str):
        raise TypeError("a name is no text")
    function = printable(name, limit=_MAX_NAME)
    known = file and type(line) is int and 0 < line < _MAX_LINE
    return Call(function, function, printable(file, limit=_MAX_PATH) if known else "", line if known else None)


def _number(text: str) -> int:
    if not _HEX.fullmatch(text):
        raise ValueError("no number of 32 bits")
    return int(text, 16)
