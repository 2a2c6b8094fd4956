"""Names of functions for frames that LLDB has walked, where it knows none, by the files that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import numpy as np

from symcache.dump.findings import Frame, ThreadReport
from symcache.dump.formats.registers import ADDRESS_BITS
from symcache.dump.loader import LoadedDump
from symcache.images import ImageFile
from symcache.kinds import Kind
from symcache.resolve import FileNamer
from symcache.symbolicate import Location, ModuleOffsets, NamesFolder, call_offsets, is_trampoline

__all__ = ["namer_of", "with_names"]

_OFFSETS = 1 << 32

_Place = tuple[int, int]
"""Number of a module, and offset in it."""


def namer_of(loaded: LoadedDump, names: NamesFolder) -> FileNamer:
    """Return what names places in the modules of a dump or a report, by the files that were found for them."""

    def find(uuids: Sequence[UUID]) -> dict[tuple[UUID, Kind], ImageFile]:
        files: dict[tuple[UUID, Kind], ImageFile] = {}
        for module in loaded.modules:
            uuid = module.module.uuid
            if uuid and uuid in uuids:
                for kind, file in ((Kind.EXECUTABLE, module.executable), (Kind.DEBUGINFO, module.debug_info)):
                    files |= {(uuid, kind): file} if file else {}
        return files

    return FileNamer(names, find)


def with_names(loaded: LoadedDump, threads: Sequence[ThreadReport], names: NamesFolder) -> tuple[ThreadReport, ...]:
    """Return threads, their frames with names where LLDB has none. Raises StorageError, OSError."""
    arch = loaded.dump.core.arch
    places = {
        (number, at): place
        for number, thread in enumerate(threads)
        for at, frame in enumerate(thread.frames)
        if (place := _place(frame, arch, is_call=bool(at) and not is_trampoline(thread.frames[at - 1].function)))
    }
    known = _look_up(loaded, set(places.values()), arch, names) if places else {}

    def named(frame: Frame, place: _Place | None) -> Frame:
        location = known.get(place) if place else None
        if location is None or not location.source.is_certain or not frame.module:
            return frame
        outer = location.calls[-1]
        return replace(
            frame,
            function=outer.function,
            mangled=outer.symbol if outer.symbol != outer.function else "",
            offset=(frame.address & ADDRESS_BITS) - frame.module.loaded.module.address - location.start,
            file=outer.file or frame.file,
            line=outer.line or frame.line,
            source=str(location.source),
        )

    return tuple(
        replace(thread, frames=tuple(named(f, places.get((number, at))) for at, f in enumerate(thread.frames)))
        for number, thread in enumerate(threads)
    )


def _place(frame: Frame, arch: str, *, is_call: bool) -> _Place | None:
    """Return where a frame is that has no name, if there is a file that may have one."""
    module = frame.module
    if module is None or frame.inlined or not frame.wants_name:
        return None
    dumped = module.loaded.module
    offset = (frame.address & ADDRESS_BITS) - dumped.address
    if dumped.uuid is None or not 0 <= offset < _OFFSETS:
        return None
    return module.index, int(call_offsets(np.array([offset], np.int64), arch)[0]) if is_call else offset


def _look_up(loaded: LoadedDump, places: set[_Place], arch: str, names: NamesFolder) -> dict[_Place, Location | None]:
    offsets: dict[int, list[int]] = {}
    for number, offset in sorted(places):
        offsets.setdefault(number, []).append(offset)
    modules = [
        ModuleOffsets(module.uuid, module.name, module.path, arch, np.array(of_module, np.int64))
        for number, of_module in offsets.items()
        for module in [loaded.modules[number].module]
    ]
    looked_up = namer_of(loaded, names).look_up(modules)
    return {
        (number, offset): location
        for (number, of_module), found in zip(offsets.items(), looked_up, strict=True)
        for offset, location in zip(of_module, found.locations, strict=True)
    }
