"""A Mach-O core of a suspended process, laid out in memory and written in one pass.

Sources: struct mach_header_64, segment_command_64, thread_command, note_command (<mach-o/loader.h>); the payloads of
the notes are those that LLDB documents for Mach-O cores. Notes hold absolute offsets in the core, which a dump counts
from the byte behind its XML header.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from symcache.dump.capture.images import LoadedImage
from symcache.dump.capture.regions import Kept
from symcache.dump.capture.task import ThreadCapture
from symcache.dump.formats.image_infos import OWNER, image_infos
from symcache.macho import LC, LITTLE_64, MH, MachHeader, Segment, pack_thread_states

__all__ = ["CoreLayout", "lay_out"]

_PAGE = 4096
_NOTE_SIZE = LITTLE_64.load_command.size + LITTLE_64.note.size
_SEGMENT_SIZE = LITTLE_64.load_command.size + LITTLE_64.segment.size
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class CoreLayout:
    """A core that is ready to be written: everything before the memory, and which memory follows where."""

    head: bytes
    memory: tuple[tuple[int, int, int], ...]
    """(offset in the core, address, size) of what is kept, by offset."""
    size: int

    def chunks(self, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
        """Yield the whole core in order, in pieces of at most a mebibyte behind the head."""
        yield self.head
        position = len(self.head)
        for offset, address, size in self.memory:
            yield bytes(offset - position)
            for start in range(0, size, _BLOCK):
                yield read(address + start, min(_BLOCK, size - start))
            position = offset + size


def lay_out(
    cputype: int,
    cpusubtype: int,
    threads: Sequence[ThreadCapture],
    regions: Sequence[Kept],
    images: Sequence[LoadedImage],
    addressable_bits: int,
) -> CoreLayout:
    """Decide where everything lies in the core."""
    thread_commands = b"".join(LITTLE_64.command(LC.THREAD, pack_thread_states(t.states)) for t in threads)
    metadata = json.dumps({"threads": [{"thread_id": t.thread_id} for t in threads]}).encode()
    owners = [OWNER.encode(), *([b"addrable bits"] if addressable_bits else []), b"process metadata"]
    sizeofcmds = len(owners) * _NOTE_SIZE + len(thread_commands) + len(regions) * _SEGMENT_SIZE
    position = LITTLE_64.header.size + sizeofcmds
    notes, payload = b"", b""
    for owner in owners:
        if owner == OWNER.encode():
            data = image_infos(images, position)
        elif owner == b"addrable bits":
            data = struct.pack("<4I", 4, addressable_bits, addressable_bits, 0)
        else:
            data = metadata
        notes += LITTLE_64.command(LC.NOTE, LITTLE_64.note.pack(owner, position, len(data)))
        payload += data + bytes(-len(data) % 8)
        position += len(data) + -len(data) % 8
    segments, memory = [], []
    for region in regions:
        offset = 0
        if region.kept:
            offset = position + -position % _PAGE
            position = offset + region.size
            memory.append((offset, region.address, region.size))
        place = region.address, region.size, offset, region.size if region.kept else 0
        fields = Segment("", *place, region.protection, region.protection, 0, 0)
        segments.append(LITTLE_64.segment_command(fields))
    ncmds = len(owners) + len(threads) + len(regions)
    header = MachHeader(LITTLE_64, cputype, cpusubtype, MH.CORE, ncmds, sizeofcmds, 0).packed()
    head = header + notes + thread_commands + b"".join(segments) + payload
    return CoreLayout(head, tuple(memory), position)
