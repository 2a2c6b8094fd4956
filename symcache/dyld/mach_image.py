"""Header and load commands of an image in a cache, which are changed for the file that it becomes.

Source: struct segment_command, segment_command_64, section, section_64 (<mach-o/loader.h>).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from symcache.dyld.address_space import AddressSpace
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import LC, LoadCommand, MachHeader, Segment, is_zerofill, mach_header

__all__ = ["MachImage", "parse_image", "read_image"]

_MAX_COMMANDS_SIZE = 4 << 20
_MAX_COMMANDS = 10_000


@dataclass(slots=True)
class MachImage:
    """The header and commands of one image, as they lie in the cache until they are changed."""

    what: str
    """The image's path, for messages."""
    header: MachHeader
    data: bytearray
    """Header and load commands: a private copy that may be changed."""
    commands: list[LoadCommand] = field(default_factory=list)
    """In `data`."""
    segments: dict[Segment, LoadCommand] = field(default_factory=dict)
    """By segment, as it lies in the cache even if its command was changed, the command; in the order of these."""

    @property
    def text(self) -> Segment:
        """The segment that holds the header."""
        return next(iter(self.segments))

    @property
    def linkedit(self) -> Segment | None:
        """__LINKEDIT, or None."""
        return next((s for s in self.segments if s.segname == "__LINKEDIT" and s is not self.text), None)

    @property
    def content(self) -> list[Segment]:
        """All segments but __LINKEDIT, in the order of their commands."""
        linkedit = self.linkedit
        return [s for s in self.segments if s is not linkedit]

    def find(self, *kinds: LC) -> LoadCommand | None:
        """Return the first command of one of the kinds, or None."""
        return next((c for c in self.commands if c.cmd in kinds), None)

    def sections_end(self, segment: Segment) -> tuple[int, int]:
        """Return where in a segment its last section with bytes in the file ends, and its last one of any kind."""
        filled = last = 0
        places = self.segments[segment].section_offsets()
        raw = self.data[places.start : places.stop]
        for _, _, addr, size, _, _, _, _, flags, *_ in self.header.structs.section.iter_unpack(raw):
            if size:
                end = min(addr + size - segment.vmaddr, segment.vmsize)
                last = max(last, end)
                filled = filled if is_zerofill(flags) else max(filled, end)
        return filled, last

    def set_segment(self, segment: Segment, fileoff: int, filesize: int, vmsize: int) -> None:
        """Give a segment its place in the new file, and its sections theirs; addresses stay."""
        data, command, structs = self.data, self.segments[segment], self.header.structs
        name, vmaddr, _, _, _, *others = structs.segment.unpack_from(data, command.body)
        structs.segment.pack_into(data, command.body, name, vmaddr, vmsize, fileoff, filesize, *others)
        layout = structs.section
        for position in command.section_offsets():
            name, owner, addr, size, offset, align, _, _, flags, *others = layout.unpack_from(data, position)
            inside = segment.vmaddr <= addr <= segment.vmaddr + filesize
            new = fileoff + addr - segment.vmaddr if inside and offset and not is_zerofill(flags) else 0
            # Relocations are gone since the link; a stale offset would only mislead.
            layout.pack_into(data, position, name, owner, addr, size, new, align, 0, 0, flags, *others)


def read_image(space: AddressSpace, address: int, what: str) -> MachImage:
    """Parse the image whose header lies at `address`. Raises SharedCacheError for what cannot be true."""
    head = space.view(address, 32, what)
    header = mach_header(head)
    if header is None or header.structs.order != "<":
        magic = bytes(head[:4]).hex()
        raise SharedCacheError(f"{what}: {magic} at {address:#x} is not the magic of a Mach-O image")
    if header.ncmds > _MAX_COMMANDS or not header.fits(_MAX_COMMANDS_SIZE):
        raise SharedCacheError(f"{what}: ncmds {header.ncmds} with sizeofcmds {header.sizeofcmds} is absurd")
    image = parse_image(space.view(address, header.commands_end, f"{what}: load commands"), what)
    if not image.segments or image.text.vmaddr != address:
        raise SharedCacheError(f"{what}: its first segment does not start at its header, {address:#x}")
    return image


def parse_image(raw: bytes | memoryview, what: str) -> MachImage:
    """Parse an image of which `raw` has header and load commands. Raises SharedCacheError."""
    header = mach_header(raw)
    if header is None:
        raise SharedCacheError(f"{what}: is no Mach-O image")
    data = bytearray(raw[: header.commands_end])
    image = MachImage(what, header, data)
    try:
        for command in header.load_commands(data):
            image.commands.append(command)
            if segment := command.segment():
                command.section_offsets()  # they lie in it
                image.segments[segment] = command
    except MachOError as error:
        raise SharedCacheError(f"{what}: {error}") from None
    return image
