"""Finds names for the code of modules: by artifacts made from files of the library, or of another server.

Contents are those that look-ups without a pin get: code has the same names in every shared cache that an image lies in.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np
from aiohttp import web

from symcache.errors import SymcacheError
from symcache.images import ImageRequest
from symcache.model import Kind
from symcache.symbolicate import Content, Location, NamesFolder
from symcache.text import printable
from symcache_server.config import ServerConfig
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.body import BodyRoom
from symcache_server.http.limits import charge
from symcache_server.http.metrics import MISSES, NAMED_ADDRESSES, NAMED_MODULES
from symcache_server.layouts import What
from symcache_server.lookup.misses import MissLog
from symcache_server.lookup.resolver import Resolver

__all__ = ["ModuleError", "ModuleFiles", "ServedNames"]

_T = TypeVar("_T")
_KINDS = (Kind.DEBUGINFO, Kind.EXECUTABLE)
_FRAMES_OF_ONE, _MODULES_OF_ONE, _COLD_COST = 100, 10, 10
"""Frames and modules that cost as much as one look-up, and the cost in look-ups of a module that is read first."""
_MOST_COLD = 256
"""Modules that are read for one request; the client asks again for the others."""
_PATIENCE = 45.0
"""Seconds that a request waits for them. What is not done by then goes on, for the next request."""
_MOST_OF_BODIES = 128 << 20
_REPORTS = 8
"""Reports that are named at the same time; most of the time they wait for modules."""
_AT_ONCE = max(2, os.cpu_count() or 2)


class ModuleError(NamedTuple):
    """Why a module that may exist has no names now."""

    name: str
    """Of the class of errors."""
    message: str


_PENDING = ModuleError("Pending", "its symbols are being read: ask again")
_Outcome = tuple[Content, ...] | ModuleError


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """What is there of the modules of a request, ready to be looked up in."""

    contents: Mapping[UUID, tuple[Content, ...]]
    """Of each UUID that has any, its dSYM first."""
    errors: dict[UUID, ModuleError] = field(default_factory=dict)
    """Why others may have names, but not now."""


class ServedNames:
    """Names of the modules that a server has, in `folder`."""

    def __init__(
        self, config: ServerConfig, resolver: Resolver, decoded: DecodedCache, misses: MissLog, folder: NamesFolder
    ) -> None:
        self._config, self._resolver, self._decoded = config, resolver, decoded
        self._misses, self._folder = misses, folder
        self._builders = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="build-names")
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names")
        self._report_threads = ThreadPoolExecutor(_REPORTS, thread_name_prefix="reports")
        self.bodies = BodyRoom(_MOST_OF_BODIES)
        """What clients may send at once to have named."""
        self._building: dict[UUID, asyncio.Task[_Outcome]] = {}

    async def close(self) -> None:
        """End the reading of modules, and wait for running look-ups."""
        for task in self._building.values():
            task.cancel()
        self._folder.stop()
        for pool in (self._report_threads, self._threads, self._builders):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Do what takes milliseconds, in a thread of a few."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def in_report_thread(self, work: Callable[[], _T]) -> _T:
        """Do what may wait for `files`, in a thread that nobody else waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._report_threads, work)

    async def files(
        self, request: web.BaseRequest, modules: Mapping[UUID, str], frames: int, build: str = ""
    ) -> ModuleFiles:
        """Return what there is of the modules of a request, by UUID and name, and have it read if it never was.

        What nobody has is noted as missing, of a `build` where one is known. Raises HTTPTooManyRequests.
        """
        contents: dict[UUID, tuple[Content, ...]] = {}
        for number, uuid in enumerate(modules):
            if number % 64 == 63:
                await asyncio.sleep(0)  # thousands may be in no memory yet
            if images := await self._of_library(uuid):
                contents[uuid] = images
        cold = await asyncio.to_thread(self._cold, contents)
        elsewhere = [uuid for uuid in modules if uuid not in contents]
        cost = frames // _FRAMES_OF_ONE + len(modules) // _MODULES_OF_ONE + len(elsewhere)
        charge(request, cost + _COLD_COST * len(cold))
        files = ModuleFiles(contents)
        gate = asyncio.Semaphore(_AT_ONCE)  # who wants few does not wait for who wants many
        wanted = [*cold, *elsewhere] if self._resolver.has_upstreams else cold
        tasks = {uuid: self._task(request, uuid, contents.get(uuid, ()), gate) for uuid in wanted[:_MOST_COLD]}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=_PATIENCE)
        for uuid in wanted:
            outcome = tasks[uuid].result() if uuid in tasks and tasks[uuid].done() else _PENDING
            contents.pop(uuid, None)
            if isinstance(outcome, ModuleError):
                files.errors[uuid] = outcome
            elif outcome:
                contents[uuid] = outcome
        missing = [uuid for uuid in elsewhere if uuid not in contents and uuid not in files.errors]
        for uuid in missing:
            MISSES.labels("symbolicate").inc()
            self._misses.add(uuid, What.EXECUTABLE, build=build, name=printable(modules[uuid], limit=255))
        NAMED_MODULES.labels("built").inc(len(tasks))
        NAMED_MODULES.labels("missing").inc(len(missing))
        return files

    def look_up(
        self, files: ModuleFiles, offsets: Mapping[UUID, Collection[int]]
    ) -> dict[UUID, dict[int, Location | None]]:
        """Return what is known of offsets, by UUID; what cannot be read has an error then. Takes milliseconds."""
        known: dict[UUID, dict[int, Location | None]] = {}
        sources: Counter[str] = Counter()
        for uuid, contents in files.contents.items():
            asked = list(offsets[uuid])
            try:
                locations = self._folder.open(uuid, contents).look_up(np.array(asked, np.int64))
            except (SymcacheError, OSError) as error:
                files.errors[uuid] = self._error(error)
                continue
            known[uuid] = dict(zip(asked, locations, strict=True))
            sources.update(["none" if location is None else str(location.source) for location in locations])
        NAMED_MODULES.labels("used").inc(len(known))
        NAMED_MODULES.labels("failed").inc(len(files.errors))
        for source, count in sources.items():
            NAMED_ADDRESSES.labels(source).inc(count)
        return known

    def _cold(self, contents: Mapping[UUID, tuple[Content, ...]]) -> list[UUID]:
        return [uuid for uuid, images in contents.items() if not self._folder.is_built(uuid, images)]

    def _task(
        self, request: web.BaseRequest, uuid: UUID, contents: tuple[Content, ...], gate: asyncio.Semaphore
    ) -> asyncio.Task[_Outcome]:
        """Return the one task that makes a module ready, for everybody who waits for it."""
        task = self._building.get(uuid)
        if task is None:
            task = self._building[uuid] = asyncio.create_task(self._make_ready(request, uuid, contents, gate))
            task.add_done_callback(lambda _: self._building.pop(uuid, None))
        return task

    async def _make_ready(
        self, request: web.BaseRequest, uuid: UUID, contents: tuple[Content, ...], gate: asyncio.Semaphore
    ) -> _Outcome:
        """Read a module for the first time; of one that the library has no contents of, those of another server."""
        async with gate:
            try:
                contents = contents or await self._of_upstream(request, uuid)
                if contents:
                    await asyncio.get_running_loop().run_in_executor(self._builders, self._folder.open, uuid, contents)
            except (SymcacheError, OSError) as error:
                return self._error(error)
            return contents

    async def _of_library(self, uuid: UUID) -> tuple[Content, ...]:
        images = [await self._resolver.resolve(ImageRequest(uuid, kind)) for kind in _KINDS]
        loop = asyncio.get_running_loop()
        return tuple(
            Content(one.sha256, partial(_wait, loop, partial(self._decoded.open, one.sha256, one.size)))
            for one in images
            if one is not None
        )

    async def _of_upstream(self, request: web.BaseRequest, uuid: UUID) -> tuple[Content, ...]:
        fetched = [await self._resolver.fetch(ImageRequest(uuid, kind), request) for kind in _KINDS]
        return tuple(Content(one.sha256, partial(os.open, one.path, os.O_RDONLY)) for one in fetched if one is not None)

    def _error(self, error: Exception) -> ModuleError:
        return ModuleError(type(error).__name__, self._config.without_paths(printable(str(error), limit=500)))


def _wait(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Return what `work` does in the event loop's thread, from another one."""
    return asyncio.run_coroutine_threadsafe(work(), loop).result()
