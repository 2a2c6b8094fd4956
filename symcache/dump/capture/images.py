"""Which images a process has loaded, read out of dyld's own lists in its memory.

Sources: struct dyld_all_image_infos, dyld_image_info (<mach-o/dyld_images.h>), 64-bit layout; struct mach_header_64,
segment_command_64, uuid_command, dylib_command (<mach-o/loader.h>). The process has crashed: nothing in its memory is
believed without bounds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from symcache.dump.formats.image_infos import ImageSegment, LoadedImage
from symcache.errors import DumpError, EnvironmentFailure, MachOError
from symcache.macho import LC, LITTLE_64, MH, Segment, mach_header

__all__ = ["BoundedMemory", "ImageMemory", "ImageSegment", "LoadedImage", "LoadedImages", "read_image", "read_images"]

_MAX_IMAGES = 65_536
_MAX_PATH = 4096
_MAX_COMMANDS = 1 << 20
_READ = frozenset({LC.SEGMENT_64, LC.UUID, LC.ID_DYLIB, LC.ID_DYLINKER})
_PAGE = 4096
_MAX_READ = 128 << 20
"""Of all that is read for one process: a few kilobytes an image, where nobody tries to keep us busy."""

# struct dyld_all_image_infos: offsets of what is used, and the version of the struct that brought it.
_INFOS = struct.Struct("<IIQ")
_DYLD_ADDRESS_AT = 32
_UUIDS_AT, _CACHE_UUID_AT, _CACHE_BASE_AT, _SIZE = 88, 160, 176, 184
_HAS_UUIDS, _HAS_CACHE_UUID, _HAS_CACHE_BASE = 8, 13, 15
_INFO = struct.Struct("<3Q")
_UUID_INFO = struct.Struct("<Q16s")


class ImageMemory(Protocol):
    """Memory of a process; a `Task` is one."""

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes. Raises EnvironmentFailure where they are not there."""

    def dyld_all_image_infos(self) -> int:
        """Return the address of dyld's `dyld_all_image_infos`; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class LoadedImages:
    """All of them, the executable first; and the shared cache that some of them are in."""

    images: tuple[LoadedImage, ...]
    cache_uuid: UUID | None
    cache_base: int
    """Address of the shared cache in the process; 0 unknown."""
    problems: tuple[str, ...]


def read_images(memory: ImageMemory) -> LoadedImages:
    """Return the images of a suspended process. Raises DumpError when dyld's list itself makes no sense.

    An image that cannot be read is kept with what is known of it, and named in `problems`.
    """
    at = memory.dyld_all_image_infos()
    if not at:
        raise DumpError("the process has no dyld yet: there are no images to list")
    task = BoundedMemory(memory)
    raw = task.read(at, _SIZE)
    version, count, array = _INFOS.unpack_from(raw)
    if count > _MAX_IMAGES or (count and not array):
        raise DumpError(f"dyld_all_image_infos at {at:#x} speaks of {count} images at {array:#x}")
    problems: list[str] = []
    images: list[LoadedImage] = []
    listed = task.read(array, _INFO.size * count) if count else b""
    for address, path_at, _ in _INFO.iter_unpack(listed):
        images.append(_image(task, address, _text(task, path_at), problems))
    (dyld,) = struct.unpack_from("<Q", raw, _DYLD_ADDRESS_AT)
    if dyld and all(i.address != dyld for i in images):
        images.append(_image(task, dyld, "/usr/lib/dyld", problems))
    if version >= _HAS_UUIDS and not all(i.uuid for i in images):
        uuids = _uuids(task, *struct.unpack_from("<2Q", raw, _UUIDS_AT))
        images = [i if i.uuid else replace(i, uuid=uuids.get(i.address)) for i in images]
    images.sort(key=lambda i: i.filetype != MH.EXECUTE)  # stable: dyld's own order otherwise
    cache = raw[_CACHE_UUID_AT : _CACHE_UUID_AT + 16] if version >= _HAS_CACHE_UUID else b""
    base = struct.unpack_from("<Q", raw, _CACHE_BASE_AT)[0] if version >= _HAS_CACHE_BASE else 0
    return LoadedImages(tuple(images), UUID(bytes=cache) if any(cache) else None, base, tuple(problems))


def read_image(memory: ImageMemory, address: int) -> LoadedImage | None:
    """Return the image whose Mach-O header lies at an address, or None if there is none that can be read.

    Its path is the name that it was linked with; an executable has none.
    """
    try:
        return _parse(memory, address, "")
    except (EnvironmentFailure, DumpError, MachOError, struct.error):
        return None


class BoundedMemory:
    """Memory of which only 128 MiB may be read: all images of a hostile process may be one, a large one."""

    def __init__(self, memory: ImageMemory) -> None:
        self._memory, self._left = memory, _MAX_READ

    def read(self, address: int, size: int) -> bytes:
        """See `ImageMemory.read`."""
        self._left -= size
        if self._left < 0:
            raise EnvironmentFailure(f"{address:#x}: more than {_MAX_READ} bytes would have to be read for all images")
        return self._memory.read(address, size)

    def dyld_all_image_infos(self) -> int:
        """See `ImageMemory.dyld_all_image_infos`."""
        return self._memory.dyld_all_image_infos()


def _uuids(task: ImageMemory, count: int, array: int) -> dict[int, UUID]:
    """Return dyld's own list of UUIDs (struct dyld_uuid_info), which leaves out what is in the shared cache."""
    if not array or count > _MAX_IMAGES:
        return {}
    try:
        listed = task.read(array, _UUID_INFO.size * count)
    except EnvironmentFailure:
        return {}
    return {address: UUID(bytes=raw) for address, raw in _UUID_INFO.iter_unpack(listed) if any(raw)}


def _image(task: ImageMemory, address: int, path: str, problems: list[str]) -> LoadedImage:
    try:
        return _parse(task, address, path)
    except (EnvironmentFailure, DumpError, MachOError, struct.error) as error:
        problems.append(f"{path or 'an image'} at {address:#x}: {error}")
        return LoadedImage(address, path, None, None, (), 0)


def _parse(task: ImageMemory, address: int, path: str) -> LoadedImage:
    beginning = task.read(address, LITTLE_64.header.size)
    header = mach_header(beginning)
    if header is None or header.structs is not LITTLE_64:
        raise DumpError(f"its header begins with {beginning[:4].hex()}, as no 64-bit Mach-O image does")
    if not header.fits(_MAX_COMMANDS):
        raise DumpError(f"its header says {header.ncmds} load commands in {header.sizeofcmds} bytes")
    beginning += task.read(address + header.size, header.sizeofcmds)
    uuid = version = None
    segments: list[Segment] = []
    text = 0
    for command in header.load_commands(beginning, _READ):
        if segment := command.segment():
            if segment.segname == "__TEXT":
                text = segment.vmaddr
            if segment.vmsize and segment.segname != "__PAGEZERO":
                segments.append(segment)
        if (current := command.current_version()) is not None:
            version = current
        uuid = uuid or command.uuid()
        path = path or (command.install_name() or b"").decode("utf-8", "replace")
    slide = address - text
    placed = tuple(ImageSegment(s.segname, (s.vmaddr + slide) % (1 << 64), s.vmsize) for s in segments)
    return LoadedImage(address, path, uuid, version, placed, header.filetype)


def _text(task: ImageMemory, address: int) -> str:
    """Return the C string at an address; empty when it cannot be read. No page behind its end is touched."""
    path = bytearray()
    try:
        while len(path) < _MAX_PATH and address:
            piece = task.read(address, _PAGE - address % _PAGE)
            text, end, _ = piece.partition(b"\0")
            path += text
            if end:
                break
            address += len(piece)
    except EnvironmentFailure:
        pass
    return path[:_MAX_PATH].decode("utf-8", "replace")
