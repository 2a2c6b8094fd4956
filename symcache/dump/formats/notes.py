"""Modules of a bare core: from the notes that LLDB and crash handlers write for it, or else out of its memory.

Source: LLDB's ObjectFileMachO.cpp (`all image infos`, `load binary`, `main bin spec`). Offsets count from its start.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.core import Core, read_note, uuid_or_none
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.formats.image_infos import ENTRY, HEADER, OWNER
from symcache.errors import DumpError

__all__ = ["header_of_core"]

_BINARY = struct.Struct("<I16s2Q")
_SPEC_1, _SPEC_2 = struct.Struct("<2IQ16s"), struct.Struct("<2I2Q16s")
"""Version, type, address; from version 2 on the slide; UUID."""
_MAX_IMAGES = 65_536
_MAX_PATH = 4096
_UNKNOWN = (1 << 64) - 1


def header_of_core(path: Path, core: Core) -> DumpHeader:
    """Return the header that a bare core lacks; it has no modules if neither notes nor memory tell any.

    Raises DumpError, OSError.
    """
    header = DumpHeader(modules=_noted(path, core))
    if not header.modules:
        from symcache.dump.formats.core_images import find_images  # noqa: PLC0415 (numpy takes its time to import)

        loaded = find_images(path, core)
        modules = (DumpModule(i.address, i.path, _real(i.uuid), i.version) for i in loaded.images)
        unique = tuple({m.address: m for m in modules}.values()) or _main_binary(path, core)
        header = DumpHeader(modules=unique, cache_uuid=loaded.cache_uuid, cache_base=loaded.cache_base or None)
    # A core of LLDB's own says nothing of an exception: the thread that has one is the one that crashed.
    known = [t for t in core.threads if t.registers]
    faulting = [t.number for t in known if t.exception is not None and t.exception.code]
    executable = header.modules[0].path if header.modules else ""
    return replace(header, executable=executable, thread=faulting[0] if faulting else known[0].number)


def _noted(path: Path, core: Core) -> tuple[DumpModule, ...]:
    modules: list[DumpModule] = []
    for note in core.notes:
        if note.data_owner == OWNER:
            modules += _all_images(path, note.offset, note.size)
        elif note.data_owner == "load binary":
            raw = read_note(path, note, _BINARY.size + _MAX_PATH)
            if len(raw) >= _BINARY.size:
                _, uuid, address, _ = _BINARY.unpack_from(raw)
                name = raw[_BINARY.size :].partition(b"\0")[0].decode("utf-8", "replace")
                if address != _UNKNOWN:
                    modules.append(DumpModule(address, name, uuid_or_none(uuid)))
    return tuple({m.address: m for m in modules}.values())


def _main_binary(path: Path, core: Core) -> tuple[DumpModule, ...]:
    """Return the one binary that the core names, if it says where that is: all there is of programs without dyld."""
    for note in core.notes:
        if note.data_owner == "main bin spec":
            raw = read_note(path, note, _SPEC_2.size)
            version = int.from_bytes(raw[:4], "little")
            if version >= 2 and len(raw) >= _SPEC_2.size:
                _, _, address, _, uuid = _SPEC_2.unpack_from(raw)
            elif version == 1 and len(raw) >= _SPEC_1.size:
                _, _, address, uuid = _SPEC_1.unpack_from(raw)
            else:
                continue
            if address != _UNKNOWN and any(uuid):
                return (DumpModule(address, uuid=uuid_or_none(uuid)),)
    return ()


def _real(uuid: UUID | None) -> UUID | None:
    return uuid if uuid and uuid.int else None


def _all_images(path: Path, offset: int, size: int) -> list[DumpModule]:
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(min(size, HEADER.size))
        end = file.seek(0, 2)
        if len(raw) < HEADER.size:
            return []
        _, count, entries, entry_size, _ = HEADER.unpack(raw)
        if count > _MAX_IMAGES or (count and entry_size < ENTRY.size) or entry_size > 1 << 12:
            raise DumpError(f"{path}: its note lists {count} images of {entry_size} bytes, which cannot be")
        file.seek(min(entries, end))
        table = file.read(count * entry_size)
        if len(table) < count * entry_size:
            raise DumpError(f"{path}: its table of {count} images lies outside the core")
        modules = []
        for number in range(count):
            name_offset, uuid, address, _, _, _ = ENTRY.unpack_from(table, number * entry_size)
            name = ""
            if name_offset < end:
                file.seek(name_offset)
                name = file.read(_MAX_PATH).partition(b"\0")[0].decode("utf-8", "replace")
            if address != _UNKNOWN:
                modules.append(DumpModule(address, name, uuid_or_none(uuid)))
    return modules
