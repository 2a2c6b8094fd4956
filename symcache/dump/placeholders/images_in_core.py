"""Images whose code is in a core: noted for LLDB, it takes them out of there, with names and unwind tables.

The note is `all image infos`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core, Note
from symcache.dump.formats.header import DumpModule
from symcache.dump.formats.image_infos import ENTRY, HEADER, OWNER, LoadedImage, image_infos

__all__ = ["images_in_core", "note_images"]

_NOTE = struct.Struct("<2I16s2Q")
_LC_NOTE = 0x31
_HEADER_SIZE, _COUNTS_AT = 32, 16
"""Of mach_header_64, and where its ncmds and sizeofcmds are."""
_NEEDED = frozenset({b"__TEXT", b"__LINKEDIT"})
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
                needed = [s for s in image.segments if s.name.rstrip(b"\0") in _NEEDED]
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
    notes = [note for note in dump.core.notes if note.owner == OWNER]
    if notes:
        noted = _noted(dump, notes[0])
        return {number for number, image in images.items() if image.address in noted}
    return set(images) if images and _add_note(dump, list(images.values())) else set()


def _noted(dump: OpenedDump, note: Note) -> set[int]:
    """Return the addresses of images of which a note tells segments, too; else LLDB looks for a file, and no more."""
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
        file.seek(_COUNTS_AT)
        count, size = struct.unpack("<2I", file.read(8))
        end = _HEADER_SIZE + size
        if any(offset < end + _NOTE.size for offset in contents):
            return False
        start = file.seek(0, os.SEEK_END)
        payload = image_infos(images, start, running=True)
        file.write(payload)
        file.seek(end)
        file.write(_NOTE.pack(_LC_NOTE, _NOTE.size, OWNER.encode(), start, len(payload)))
        file.seek(_COUNTS_AT)
        file.write(struct.pack("<2I", count + 1, size + _NOTE.size))
    return True
