"""Names for places in images, from wherever binaries are: files here, then servers, of which only names are wanted."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from symcache.errors import IntegrityError, RemoteError
from symcache.images import ImageFile
from symcache.kinds import Kind
from symcache.macho import header_address
from symcache.resolve.model import ModuleResolver, find_variants
from symcache.symbolicate import Content, ImageNames, ModuleNames, ModuleOffsets, NamesFolder
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.client import SymbolClient
    from symcache.resolve.sources import BinarySources

__all__ = ["FileNamer", "SourceNamer"]

_MOST_OPEN, _MOST_MISSING = 256, 100_000
"""Images whose names are held open, and those that are known to be nowhere."""
_MOST_PROBLEMS = 3
"""Modules of which it is told why servers have no names now."""
_ORDER = (Kind.DEBUGINFO, Kind.EXECUTABLE)

FindFiles = Callable[[Sequence[UUID]], Mapping[tuple[UUID, Kind], ImageFile]]
"""Returns the files that there are of some images."""


class FileNamer:
    """Names places by files on this machine, and remembers which these are. To be used from one thread at a time."""

    def __init__(self, folder: NamesFolder, find: FindFiles) -> None:
        self._folder, self._find = folder, find
        self._names: OrderedDict[UUID, ImageNames | None] = OrderedDict()
        self._missing: set[UUID] = set()
        self._hashes: dict[Path, str] = {}
        self.problems: dict[UUID, str] = {}
        """Why nothing could be read of the files of an image."""

    def look_up(self, modules: Sequence[ModuleOffsets]) -> list[ModuleNames]:
        """See `Namer.look_up`. Raises StorageError where names cannot be kept, and what looking for files raises."""
        names = self._open([uuid for module in modules if (uuid := module.uuid)])
        looked_up = []
        for module in modules:
            image, found = names.get(module.uuid, (None, False)) if module.uuid else (None, False)
            looked_up.append(
                ModuleNames(image.look_up(module.offsets) if image else [None] * len(module.offsets), found)
            )
        return looked_up

    def _open(self, uuids: Sequence[UUID]) -> dict[UUID, tuple[ImageNames | None, bool]]:
        """Return the names of images, and whether there is a file."""
        opened: dict[UUID, tuple[ImageNames | None, bool]] = {}
        for uuid in dict.fromkeys(uuids):
            if uuid in self._names:
                self._names.move_to_end(uuid)
                opened[uuid] = self._names[uuid], True
        wanted = [uuid for uuid in dict.fromkeys(uuids) if uuid not in opened and uuid not in self._missing]
        files = self._find(wanted) if wanted else {}
        contents = {
            uuid: [self._content(files[uuid, kind]) for kind in _ORDER if (uuid, kind) in files] for uuid in wanted
        }
        there = [uuid for uuid in wanted if contents[uuid]]
        if len(self._missing) > _MOST_MISSING:
            self._missing.clear()
        self._missing.update(uuid for uuid in wanted if not contents[uuid])
        if not there:
            return opened
        self._folder.build_small([(uuid, content) for uuid in there for content in contents[uuid]])
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="names") as pool:
            for uuid, image in zip(there, pool.map(lambda uuid: self._image(uuid, contents[uuid]), there), strict=True):
                opened[uuid] = image, True
                self._names[uuid] = image
        while len(self._names) > _MOST_OPEN:
            self._names.popitem(last=False)
        return opened

    def _image(self, uuid: UUID, contents: Sequence[Content]) -> ImageNames | None:
        try:
            return self._folder.open(uuid, contents)
        except IntegrityError as error:
            self.problems[uuid] = str(error)
            return None

    def _content(self, file: ImageFile) -> Content:
        sha256 = file.sha256 or self._hashes.get(file.path, "")
        if not sha256:
            with file.path.open("rb") as opened:
                sha256 = self._hashes[file.path] = hashlib.file_digest(opened, "sha256").hexdigest()
        return Content(sha256, partial(os.open, file.path, os.O_RDONLY))


class SourceNamer:
    """Names places by own folders and library, then by servers that do; of servers that do not, files are fetched.

    Servers get UUIDs and offsets. To be used from one thread at a time.
    """

    def __init__(
        self, sources: BinarySources, folder: NamesFolder, cache: UUID | None = None, build: str | None = None
    ) -> None:
        def namer(resolver: ModuleResolver) -> FileNamer:
            return FileNamer(folder, lambda uuids: find_variants(resolver, uuids, cache, build))

        self._sources, self._pin = sources, (cache, build)
        self._own = namer(sources.own or sources.resolver)
        self._fetched = namer(sources.resolver)
        self._before = namer(sources.here) if sources.here else None
        self._unspoken: set[str] = set()
        """Servers that name nothing, or that could not be asked."""
        self.explained: set[UUID] = set()
        """Images that nobody has, where a server said why: that is among the problems."""

    @property
    def problems(self) -> list[str]:
        """Files and servers that could not be used, and why."""
        namers = [self._own, self._fetched, *([self._before] if self._before else [])]
        return [*self._sources.problems, *(problem for namer in namers for problem in namer.problems.values())]

    def linked_address(self, uuid: UUID) -> int | None:
        """Return the address that an image was linked for, by own files; None where there is none."""
        files = find_variants(self._sources.own or self._sources.resolver, [uuid], *self._pin)
        addresses = (header_address(file.path, uuid) for file in files.values())
        return next((address for address in addresses if address is not None), None)

    def look_up(self, modules: Sequence[ModuleOffsets]) -> list[ModuleNames]:
        """See `Namer.look_up`. Raises SymcacheError for own files; what goes wrong with servers is a problem."""
        names = self._own.look_up(modules)
        client = self._sources.client
        if client is None:
            return names

        def ask(look_up: Callable[[Sequence[ModuleOffsets]], Sequence[ModuleNames]]) -> None:
            left = [n for n, module in enumerate(modules) if module.uuid and not names[n].found]
            for number, found in zip(left, look_up([modules[n] for n in left]) if left else (), strict=True):
                if found.found or found.problem:
                    names[number] = found

        for url in client.urls:
            if url not in self._unspoken:
                ask(partial(self._by_server, client, url))
        if self._unspoken:
            ask(self._fetched.look_up)
        elif self._before:
            ask(self._before.look_up)
        silent = [(module.uuid, one.problem) for module, one in zip(modules, names, strict=True) if not one.found]
        said = [problem for _, problem in silent if problem]
        self.explained.update(uuid for uuid, problem in silent if uuid and problem)
        self._sources.problems.extend(said[:_MOST_PROBLEMS])
        if len(said) > _MOST_PROBLEMS:
            self._sources.problems.append(
                f"servers say the like of {counted(len(said) - _MOST_PROBLEMS, 'more module')}"
            )
        return names

    def _by_server(self, client: SymbolClient, url: str, modules: Sequence[ModuleOffsets]) -> Sequence[ModuleNames]:
        names = None
        try:
            names = client.look_up_names(url, modules)
        except (RemoteError, IntegrityError) as error:
            self._sources.problems.append(str(error))
        if names is None:
            self._unspoken.add(url)
            return [ModuleNames([None] * len(module.offsets), False) for module in modules]
        return names
