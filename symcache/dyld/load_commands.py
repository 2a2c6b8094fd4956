"""Load commands of an image in a cache, and the numbers of <mach-o/loader.h> that extraction needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from symcache.dyld.address_space import AddressSpace
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import load_commands

__all__ = ["LC", "MH_DYLIB_IN_CACHE", "Command", "Layout", "MachImage", "Segment", "parse_image", "read_image"]

MH_DYLIB_IN_CACHE = 0x8000_0000
_MAX_COMMANDS_SIZE = 4 << 20
_MAX_COMMANDS = 10_000
_ZERO_FILL = {0x1, 0xC, 0x12}
"""S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL: sections without bytes in the file."""


class LC(IntEnum):
    """Load commands, as in <mach-o/loader.h>."""

    SEGMENT = 0x1
    SYMTAB = 0x2
    DYSYMTAB = 0xB
    SYMSEG = 0x3
    LOAD_DYLIB = 0xC
    TWOLEVEL_HINTS = 0x16
    LOAD_WEAK_DYLIB = 0x8000_0018
    SEGMENT_64 = 0x19
    UUID = 0x1B
    CODE_SIGNATURE = 0x1D
    SEGMENT_SPLIT_INFO = 0x1E
    REEXPORT_DYLIB = 0x8000_001F
    ENCRYPTION_INFO = 0x21
    DYLD_INFO = 0x22
    DYLD_INFO_ONLY = 0x8000_0022
    LOAD_UPWARD_DYLIB = 0x8000_0023
    FUNCTION_STARTS = 0x26
    DATA_IN_CODE = 0x29
    DYLIB_CODE_SIGN_DRS = 0x2B
    ENCRYPTION_INFO_64 = 0x2C
    LINKER_OPTIMIZATION_HINT = 0x2E
    NOTE = 0x31
    ATOM_INFO = 0x36
    FUNCTION_VARIANTS = 0x37
    FUNCTION_VARIANT_FIXUPS = 0x38
    DYLD_EXPORTS_TRIE = 0x8000_0033
    DYLD_CHAINED_FIXUPS = 0x8000_0034


@dataclass(frozen=True, slots=True)
class Layout:
    """Where fields lie in the 32-bit and the 64-bit structs."""

    header_size: int
    pointer_size: int
    segment: struct.Struct
    """segname, vmaddr, vmsize, fileoff, filesize, maxprot, initprot, nsects, flags."""
    section_size: int
    section_numbers: struct.Struct
    """addr, size, offset."""
    nlist_size: int


_LAYOUTS = {
    0xFEEDFACE: Layout(28, 4, struct.Struct("<16s8I"), 68, struct.Struct("<3I"), 12),
    0xFEEDFACF: Layout(32, 8, struct.Struct("<16s4Q4I"), 80, struct.Struct("<2QI"), 16),
}


@dataclass(slots=True)
class Command:
    """One load command; `data` is a private copy that may be changed."""

    cmd: int
    data: bytearray

    def u32(self, offset: int) -> int:
        """Return the 32-bit number at `offset` of the command."""
        return int(struct.unpack_from("<I", self.data, offset)[0])


@dataclass(slots=True)
class Segment:
    """One segment command and the numbers in it."""

    command: Command
    name: str
    vmaddr: int
    vmsize: int
    fileoff: int
    filesize: int
    sections: int


@dataclass(slots=True)
class MachImage:
    """The header and commands of one image, as they lie in the cache."""

    what: str
    """The image's path, for messages."""
    layout: Layout
    header: bytes
    cputype: int
    cpusubtype: int
    filetype: int
    flags: int
    commands: list[Command]
    commands_end: int
    """Bytes from the start of the header to the end of the load commands."""
    segments: list[Segment] = field(default_factory=list)

    @property
    def text(self) -> Segment:
        """The segment that holds the header."""
        return self.segments[0]

    @property
    def linkedit(self) -> Segment | None:
        """__LINKEDIT, or None."""
        return next((s for s in self.segments[1:] if s.name == "__LINKEDIT"), None)

    @property
    def content(self) -> list[Segment]:
        """All segments but __LINKEDIT, in the order of their commands."""
        linkedit = self.linkedit
        return [s for s in self.segments if s is not linkedit]

    def find(self, *kinds: LC) -> Command | None:
        """Return the first command of one of the kinds, or None."""
        return next((c for c in self.commands if c.cmd in kinds), None)

    def set_segment(self, segment: Segment, fileoff: int, filesize: int, vmsize: int) -> None:
        """Give a segment its place in the new file, and its sections theirs; addresses stay."""
        layout, data = self.layout, segment.command.data
        values = list(layout.segment.unpack_from(data, 8))
        values[2], values[3], values[4] = vmsize, fileoff, filesize
        layout.segment.pack_into(data, 8, *values)
        position = 8 + layout.segment.size
        for _ in range(segment.sections):
            address, size, offset = layout.section_numbers.unpack_from(data, position + 32)
            kind_at = position + (56 if layout.pointer_size == 4 else 64)
            kind = struct.unpack_from("<I", data, kind_at)[0] & 0xFF
            inside = segment.vmaddr <= address <= segment.vmaddr + segment.vmsize
            new = 0 if kind in _ZERO_FILL or not inside or not offset else fileoff + address - segment.vmaddr
            layout.section_numbers.pack_into(data, position + 32, address, size, new)
            # Relocations are gone since the link; a stale offset would only mislead.
            struct.pack_into("<2I", data, kind_at - 8, 0, 0)
            position += layout.section_size


def read_image(space: AddressSpace, address: int, what: str) -> MachImage:
    """Parse the image whose header lies at `address`. Raises SharedCacheError for what cannot be true."""
    head = space.view(address, 28, what)
    magic, _, _, _, ncmds, sizeofcmds = struct.unpack_from("<6I", head)
    layout = _LAYOUTS.get(magic)
    if layout is None:
        raise SharedCacheError(f"{what}: magic {magic:#x} at {address:#x} is not that of a Mach-O image")
    if sizeofcmds > _MAX_COMMANDS_SIZE or ncmds > _MAX_COMMANDS or ncmds * 8 > sizeofcmds:
        raise SharedCacheError(f"{what}: ncmds {ncmds} with sizeofcmds {sizeofcmds} is absurd")
    image = parse_image(bytes(space.view(address, layout.header_size + sizeofcmds, f"{what}: load commands")), what)
    if not image.segments or image.text.vmaddr != address:
        raise SharedCacheError(f"{what}: its first segment does not start at its header, {address:#x}")
    return image


def parse_image(raw: bytes, what: str) -> MachImage:
    """Parse header and load commands, of which `raw` has all and nothing else. Raises SharedCacheError."""
    layout = _LAYOUTS[int.from_bytes(raw[:4], "little")]
    cputype, cpusubtype, filetype, ncmds, sizeofcmds, flags = struct.unpack_from("<6I", raw, 4)
    image = MachImage(what, layout, raw[: layout.header_size], cputype, cpusubtype, filetype, flags, [], len(raw))
    start, segment = layout.header_size, LC.SEGMENT if layout.pointer_size == 4 else LC.SEGMENT_64
    if start + sizeofcmds > len(raw):
        raise SharedCacheError(f"{what}: sizeofcmds {sizeofcmds} where {len(raw) - start} bytes are there")
    try:
        for cmd, position, size in load_commands(raw, ncmds, start, start + sizeofcmds):
            command = Command(cmd, bytearray(raw[position : position + size]))
            image.commands.append(command)
            if cmd == segment:
                number = len(image.commands) - 1
                image.segments.append(_segment(command, layout, f"{what}: load command {number}"))
    except MachOError as error:
        raise SharedCacheError(f"{what}: {error}") from None
    return image


def _segment(command: Command, layout: Layout, what: str) -> Segment:
    if len(command.data) < 8 + layout.segment.size:
        raise SharedCacheError(f"{what}: a segment command of {len(command.data)} bytes")
    name, vmaddr, vmsize, fileoff, filesize, _, _, sections, _ = layout.segment.unpack_from(command.data, 8)
    if 8 + layout.segment.size + sections * layout.section_size > len(command.data):
        raise SharedCacheError(f"{what}: {sections} sections do not fit into its {len(command.data)} bytes")
    text = name.partition(b"\0")[0].decode("ascii", "replace")
    return Segment(command, text, vmaddr, vmsize, fileoff, filesize, sections)
