"""Modules of a bare core: from the notes that LLDB and crash handlers write for it, or else out of its memory.

Sources: LLDB's ObjectFileMachO.cpp (`all image infos`, `load binary`, `main bin spec`); XNU's core_notes.h. Offsets
count from its start.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.core import Core
from symcache.dump.formats.exceptions import describe_exception
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.formats.image_infos import ENTRY, HEADER, OWNER
from symcache.macho import CPU_TYPE, Note

__all__ = ["header_of_core"]

_BINARY = struct.Struct("<I16s2Q")
_SPEC_1, _SPEC_2 = struct.Struct("<2IQ16s"), struct.Struct("<2I2Q16s")
"""Version, type, address; from version 2 on the slide; UUID."""
_MAX_IMAGES = 65_536
_MAX_ENTRY = 4096
_MAX_PATH = 4096
_DYLD, _DYLD_LIST = 2, 4
"""Types of a main binary that is none: dyld, as in cores by a kernel that panics, or its `dyld_all_image_infos`."""
_LINKED_AT = 1 << 32
_UNKNOWN = (1 << 64) - 1


def header_of_core(path: Path, core: Core) -> DumpHeader:
    """Return the header that a bare core lacks; it has no modules if neither notes nor memory tell any.

    Raises DumpError, OSError.
    """
    noted, (kind, main) = _noted(path, core), _main_binary(path, core)
    header = DumpHeader(modules=noted)
    if not noted:
        from symcache.dump.formats.core_images import find_images  # noqa: PLC0415 (numpy takes its time to import)

        places = {kind: main.address} if main else {}
        loaded = find_images(path, core, dyld=places.get(_DYLD), infos=places.get(_DYLD_LIST))
        modules = (DumpModule(i.address, i.path, i.uuid, i.version) for i in loaded.images)
        unique = tuple({m.address: m for m in modules}.values())
        header = DumpHeader(modules=unique, cache_uuid=loaded.cache_uuid, cache_base=loaded.cache_base or None)
    if main and main.uuid and kind != _DYLD_LIST and main.uuid not in {m.uuid for m in header.modules}:
        others = tuple(m for m in header.modules if m.address != main.address)
        header = replace(header, modules=(*others, main) if kind == _DYLD else (main, *others))
    executable = header.modules[0].path if header.modules else ""
    return replace(header, executable=executable, thread=_crashed(core))


def _crashed(core: Core) -> int:
    """Return the thread with an exception that becomes a signal: a core says no more of which one crashed.

    The state of a thread that is in the kernel by its own wish is not zero, either.
    """
    known = [thread for thread in core.threads if thread.registers]
    for thread in known:
        state = thread.exception
        is_set = state and (state.code or (state.number and core.cputype == CPU_TYPE.X86_64))
        if is_set and describe_exception(core, thread).signal:
            return thread.number
    return known[0].number


def _noted(path: Path, core: Core) -> tuple[DumpModule, ...]:
    """Return the images that notes tell: one in each `load binary`, all in the first `all image infos`."""
    modules: list[DumpModule] = []
    listed = next((note for note in core.notes if note.data_owner == OWNER), None)
    telling = (note for note in core.notes if note is listed or note.data_owner == "load binary")
    for note in itertools.islice(telling, _MAX_IMAGES):
        if note is listed:
            found = _all_images(path, note.offset, note.size)
            # LLDB has the images by the frames that are in them, if it keeps the stacks alone. Libraries lie above.
            lowest = min((m.address for m in found), default=0)
            modules += sorted(found, key=lambda m: m.address != lowest)
            continue
        raw = _read(path, note, _BINARY.size + _MAX_PATH)
        if len(raw) >= _BINARY.size:
            _, uuid, address, _ = _BINARY.unpack_from(raw)
            name = raw[_BINARY.size :].partition(b"\0")[0].decode("utf-8", "replace")
            if address != _UNKNOWN:
                modules.append(DumpModule(address, name, _uuid(uuid)))
    return tuple({m.address: m for m in modules}.values())


def _main_binary(path: Path, core: Core) -> tuple[int, DumpModule | None]:
    """Return type and place of the one binary that the core names.

    It is all there is of programs without dyld, and macMiniDump's executable, which has a slide in the place of an
    address: executables are linked for 4 GiB.
    """
    for note in core.notes:
        if note.data_owner == "main bin spec":
            raw = _read(path, note, _SPEC_2.size)
            version, slide = int.from_bytes(raw[:4], "little"), _UNKNOWN
            if version >= 2 and len(raw) >= _SPEC_2.size:
                _, kind, address, slide, uuid = _SPEC_2.unpack_from(raw)
            elif version == 1 and len(raw) >= _SPEC_1.size:
                _, kind, address, uuid = _SPEC_1.unpack_from(raw)
            else:
                continue
            if address == _UNKNOWN and slide != _UNKNOWN:
                address = (slide + _LINKED_AT) % (1 << 64)
            if address != _UNKNOWN and (any(uuid) or kind == _DYLD_LIST):
                return kind, DumpModule(address, uuid=_uuid(uuid))
    return 0, None


def _all_images(path: Path, offset: int, size: int) -> list[DumpModule]:
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(min(size, HEADER.size))
        end = file.seek(0, 2)
        if len(raw) < HEADER.size:
            return []
        _, count, entries, entry_size, _ = HEADER.unpack(raw)
        if entry_size < ENTRY.size or entry_size > _MAX_ENTRY:
            return []
        file.seek(min(entries, end))
        table = file.read(min(count, _MAX_IMAGES) * entry_size)
        count = len(table) // entry_size
        modules = []
        for number in range(count):
            name_offset, uuid, address, _, _, _ = ENTRY.unpack_from(table, number * entry_size)
            name = ""
            if name_offset < end:
                file.seek(name_offset)
                name = file.read(_MAX_PATH).partition(b"\0")[0].decode("utf-8", "replace")
            if address != _UNKNOWN:
                modules.append(DumpModule(address, name, _uuid(uuid)))
    return modules


def _read(path: Path, note: Note, limit: int) -> bytes:
    with path.open("rb") as file:
        file.seek(note.offset)
        return file.read(min(note.size, limit))


def _uuid(raw: bytes) -> UUID | None:
    return UUID(bytes=raw) if any(raw) else None
