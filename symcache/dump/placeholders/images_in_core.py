"""Images whose code is in a core: noted for LLDB, it takes them out of there, with names and unwind tables.

The note is `all image infos`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core
from symcache.dump.formats.header import DumpModule
from symcache.dump.formats.image_infos import ENTRY, HEADER, OWNER, LoadedImage, image_infos
from symcache.macho import LC, LITTLE_64, Note, mach_header

__all__ = ["images_in_core", "note_images"]

_NEEDED = frozenset({"__TEXT", "__LINKEDIT"})
"""Code with unwind tables; symbols and starts of functions, without which LLDB finds no table for a function."""
_MAX_IMAGES = 65_536
_MAX_PIECES = 256
"""Regions that the code of one image may be in."""


def images_in_core(dump: OpenedDump, modules: Iterable[tuple[int, DumpModule]]) -> dict[int, LoadedImage]:
    """Return the images, by the numbers of the modules, whose code and symbols are in the core.

    Raises OSError.
    """
    core = dump.core
    kept = ((n, m, core.segment_at(m.address)) for n, m in modules if m.uuid)
    candidates = [(n, m) for n, m, segment in kept if segment and segment.filesize]
    if not candidates:
        return {}
    from symcache.dump.capture.images import BoundedMemory, read_image  # noqa: PLC0415 (few dumps have code)
    from symcache.dump.formats.core_memory import CoreMemory  # noqa: PLC0415

    images = {}
    with dump.core_path.open("rb") as file:
        memory = BoundedMemory(CoreMemory(file.fileno(), core))
        for number, module in candidates:
            image = read_image(memory, module.address)
            if image and image.uuid == module.uuid:
                needed = [s for s in image.segments if s.name in _NEEDED]
                if len(needed) == len(_NEEDED) and all(_has(core, s.address, s.size) for s in needed):
                    images[number] = replace(image, path=module.path)
    return images


def _has(core: Core, address: int, size: int) -> bool:
    end = address + size
    for _ in range(_MAX_PIECES):
        segment = core.segment_at(address)
        if segment is None or segment.address + segment.filesize <= address:
            return False
        address = segment.address + segment.filesize
        if address >= end:
            return True
    return False


def note_images(dump: OpenedDump, images: Mapping[int, LoadedImage]) -> set[int]:
    """Have LLDB take images out of the core, which must be our copy. Return the numbers of those that it will take.

    A core with such a note already is left as it is, and so is one without space for it behind its load commands.
    Raises OSError.
    """
    notes = [note for note in dump.core.notes if note.data_owner == OWNER]
    if notes:
        noted = _noted(dump, notes[0])
        return {number for number, image in images.items() if image.address in noted}
    return set(images) if images and _add_note(dump, list(images.values())) else set()


def _noted(dump: OpenedDump, note: Note) -> set[int]:
    """Return the addresses of the images whose segments a note tells: for others, LLDB only looks for a file."""
    with dump.core_path.open("rb") as file:
        file.seek(note.offset)
        head = file.read(min(note.size, HEADER.size))
        if len(head) < HEADER.size:
            return set()
        _, count, entries, entry_size, _ = HEADER.unpack(head)
        if count > _MAX_IMAGES or entry_size != ENTRY.size or entries > dump.core_path.stat().st_size:
            return set()
        file.seek(entries)
        table = file.read(count * ENTRY.size)
    whole = table[: len(table) // ENTRY.size * ENTRY.size]
    return {address for _, _, address, _, segments, _ in ENTRY.iter_unpack(whole) if segments}


def _add_note(dump: OpenedDump, images: Sequence[LoadedImage]) -> bool:
    core = dump.core
    contents = [s.offset for s in core.segments if s.filesize] + [note.offset for note in core.notes]
    with dump.core_path.open("r+b") as file:
        header = mach_header(file.read(LITTLE_64.header.size))
        start = file.seek(0, os.SEEK_END)
        payload = image_infos(images, start, running=True)
        note = LITTLE_64.command(LC.NOTE, LITTLE_64.note.pack(OWNER.encode(), start, len(payload)))
        if header is None or any(offset < header.commands_end + len(note) for offset in contents):
            return False
        file.write(payload)
        file.seek(header.commands_end)
        file.write(note)
        file.seek(0)
        file.write(replace(header, ncmds=header.ncmds + 1, sizeofcmds=header.sizeofcmds + len(note)).packed())
    return True
