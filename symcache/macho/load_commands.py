"""The Mach-O header of a thin image, and its load commands one after the other.

Sources: struct mach_header, mach_header_64, load_command (<mach-o/loader.h>).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from symcache.errors import MachOError
from symcache.macho.constants import MH_MAGIC, MH_MAGIC_64

__all__ = ["MAGICS", "MAX_COMMANDS", "Buffer", "MachHeader", "load_commands", "mach_header"]

MAX_COMMANDS = 16 << 20
"""Bytes of load commands that no image of anybody has had."""
Buffer = bytes | bytearray | memoryview | mmap.mmap

_ORDERS = {
    struct.pack(order + "I", magic): (order, wide)
    for order in "<>"
    for magic, wide in ((MH_MAGIC, False), (MH_MAGIC_64, True))
}
MAGICS = frozenset(_ORDERS)
"""The first four bytes of thin images."""
_HEADERS = {order: struct.Struct(order + "4x6I") for order in "<>"}
_COMMANDS = {order: struct.Struct(order + "2I") for order in "<>"}


class MachHeader(NamedTuple):
    """Header of a thin image, of either width and byte order."""

    order: str
    """Of bytes, as `struct` writes it."""
    wide: bool
    """64 bit."""
    cputype: int
    cpusubtype: int
    filetype: int
    ncmds: int
    sizeofcmds: int
    flags: int

    @property
    def size(self) -> int:
        """Of the header in bytes: where the load commands begin."""
        return 32 if self.wide else 28

    def commands(self, image: Buffer) -> Iterator[tuple[int, int, int]]:
        """As `load_commands`, of the image that begins with `image`."""
        return load_commands(image, self.ncmds, self.size, self.size + self.sizeofcmds, self.order)


def mach_header(head: Buffer) -> MachHeader | None:
    """Return the header that `head` begins with; None for what is no thin image, or ends inside its header."""
    found = _ORDERS.get(bytes(head[:4]))
    if found is None or len(head) < (32 if found[1] else 28):
        return None
    return MachHeader(*found, *_HEADERS[found[0]].unpack_from(head))


def load_commands(data: Buffer, ncmds: int, start: int, end: int, order: str = "<") -> Iterator[tuple[int, int, int]]:
    """Yield (cmd, position in `data`, cmdsize) of the load commands that lie between `start` and `end`.

    Raises MachOError at the first that does not lie there whole; those before it were yielded.
    """
    end = min(end, len(data))
    unpack = _COMMANDS[order].unpack_from
    position = start
    for number in range(ncmds):
        if position + 8 > end:
            raise MachOError(f"load command {number} of {ncmds} lies beyond sizeofcmds {end - start}")
        cmd, cmdsize = unpack(data, position)
        if cmdsize < 8 or position + cmdsize > end:
            raise MachOError(f"load command {number} ({cmd:#x}) has an impossible size of {cmdsize}")
        yield cmd, position, cmdsize
        position += cmdsize
