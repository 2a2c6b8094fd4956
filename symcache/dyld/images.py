"""The images of a cache and their other names, from the tables of its main file.

Source: struct dyld_cache_image_info, dyld_cache_image_text_info (`dyld_cache_format.h`); dylibs trie.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import UUID

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.header import parse_header
from symcache.dyld.trie import walk_paths
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import mach_header

__all__ = ["Image", "ImageTable", "read_aliases", "read_images", "tables_end"]

_MAX_IMAGES = 100_000
_MAX_PATH = 1024
"""PATH_MAX of macOS."""
_MAX_COMMANDS = 1 << 20
"""Bytes of one image's load commands."""
_MAX_COMMANDS_OF_ALL = 2_000_000
"""Of all images together; those of a macOS have some 100,000."""
_HAS_DYLIBS_TRIE = 0x118
"""Headers of this size or more have their aliases in the trie; before, as records of the image table."""


@dataclass(frozen=True, slots=True)
class Image:
    """One dylib in the cache (or dyld itself, since macOS 13)."""

    index: int
    path: str
    uuid: UUID | None
    address: int
    """Of its mach_header: unslid VM address."""
    text_size: int
    """Of its __TEXT in bytes; 0 where the cache does not say."""


@dataclass
class ImageTable:
    """What the image table says."""

    images: list[Image] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    """Other paths that the table has records for: path to index in `images`."""
    index_of_record: list[int] = field(default_factory=list)
    """Index in `images` of each record of the table."""


def read_images(main: CacheFilePart, space: AddressSpace) -> ImageTable:
    """Return the images of the cache whose main file is `main`. Raises SharedCacheError."""
    header, table = main.header, ImageTable()
    offset, count = header.images_table
    if count > _MAX_IMAGES:
        raise SharedCacheError(f"{main.path}: imagesCount {count} where at most {_MAX_IMAGES} was expected")
    raw = main.bounded(offset, count * 0x20, f"the image table of {count} images")
    records: dict[int, list[tuple[int, str]]] = {}
    order = []
    for address, _, _, path_offset, _ in struct.iter_unpack("<3Q2I", raw):
        records.setdefault(address, []).append((path_offset, _path(main, path_offset)))
        order.append(address)
    text = _text_infos(main, count)
    commands = _Commands(main, space)
    strings_end = _first_image_offset(main, list(records))
    index_of: dict[int, int] = {}
    for address, names in records.items():
        path = names[0][1] if len(names) == 1 else _own_path(commands, address, names, strings_end)
        uuid, size = text.get(address) or (commands.identity(address)[0], 0)
        index_of[address] = len(table.images)
        table.images.append(Image(len(table.images), path, uuid, address, size))
        table.aliases.update((name, index_of[address]) for _, name in names if name != path)
    table.index_of_record = [index_of[address] for address in order]
    return table


def tables_end(beginning: bytes, name: str) -> int:
    """Return how many of a main file's first bytes its image tables and the paths in them take.

    `beginning` may be cut anywhere behind the header: what it does not hold cannot be counted, so ask again with as
    many bytes as the answer says until it says no more. Raises SharedCacheError naming `name`.
    """
    header = parse_header(beginning, name)
    offset, count = header.images_table
    if max(count, header.images_text_count) > _MAX_IMAGES:
        raise SharedCacheError(f"{name}: imagesCount {count} where at most {_MAX_IMAGES} was expected")
    mappings = header.mapping_offset + header.mapping_count * 0x20
    end = max(mappings, offset + count * 0x20, header.images_text_offset + header.images_text_count * 0x20)
    if len(beginning) < end:
        return end
    records = struct.iter_unpack("<24xI4x", beginning[offset : offset + count * 0x20])
    last: int = max((path for (path,) in records), default=0)
    return max(end, last + _MAX_PATH)


def read_aliases(main: CacheFilePart, space: AddressSpace, table: ImageTable) -> dict[str, int]:
    """Return the other paths of images: those of the table, and those of the dylibs trie. Raises SharedCacheError."""
    header, aliases = main.header, dict(table.aliases)
    if header.mapping_offset >= _HAS_DYLIBS_TRIE and header.dylibs_trie_address and header.dylibs_trie_size:
        what = f"{main.path}: its dylibs trie"
        trie = bytes(space.view(header.dylibs_trie_address, header.dylibs_trie_size, what))
        for path, number in walk_paths(trie, what):
            index = table.index_of_record[number] if number < len(table.index_of_record) else -1
            if index >= 0 and path != table.images[index].path:
                aliases[path] = index
    return aliases


def _own_path(commands: _Commands, address: int, names: list[tuple[int, str]], strings_end: int) -> str:
    """Return which of several records of one address is the image itself; the others are aliases.

    Until 10.12 an image's path is the string in its own LC_ID_DYLIB, that of an alias lies before all images. Later
    all strings lie there, and the image's own name tells.
    """
    for offset, name in names:
        if offset >= strings_end:
            return name
    own = commands.identity(address)[1]
    return own if any(name == own for _, name in names) else names[0][1]


def _first_image_offset(main: CacheFilePart, addresses: list[int]) -> int:
    """Return the file offset of the first image in the main file, or its size."""
    first, offset = min(addresses, default=0), main.size
    for mapping in main.mappings:
        if mapping.address <= first < mapping.address + mapping.size:
            offset = mapping.file_offset + first - mapping.address
    return offset


def _text_infos(main: CacheFilePart, count: int) -> dict[int, tuple[UUID | None, int]]:
    """Return {address: (UUID, size of __TEXT)} from the dyld_cache_image_text_info array, where there is one."""
    header = main.header
    if not header.images_text_count:
        return {}
    if header.images_text_count > max(count, _MAX_IMAGES):
        raise SharedCacheError(
            f"{main.path}: imagesTextCount {header.images_text_count} where {count} images were expected"
        )
    raw = main.bounded(header.images_text_offset, header.images_text_count * 0x20, "the image text table")
    return {
        address: (UUID(bytes=uuid) if any(uuid) else None, size)
        for uuid, address, size, _ in struct.iter_unpack("<16sQ2I", raw)
    }


def _path(main: CacheFilePart, offset: int) -> str:
    data = main.data
    end = data.find(b"\0", offset, offset + _MAX_PATH) if offset < len(data) else -1
    if end < 0:
        raise SharedCacheError(f"{main.path}: an image's path at {offset:#x} does not end within {_MAX_PATH} bytes")
    return data[offset:end].decode("utf-8", "surrogateescape")


class _Commands:
    """Reads load commands of images, a bounded number of all together."""

    def __init__(self, main: CacheFilePart, space: AddressSpace) -> None:
        self._main, self._space = main, space
        self._left = _MAX_COMMANDS_OF_ALL

    def identity(self, address: int) -> tuple[UUID | None, str]:
        """Return (LC_UUID, install name) of the image at `address`; what cannot be read there is None and empty.

        Caches before 10.12 have no table of UUIDs. An image that is broken is found to be so when it is extracted.
        Raises SharedCacheError where all images together have absurdly many commands.
        """
        uuid, name = None, b""
        with suppress(SharedCacheError, MachOError):
            if header := mach_header(self._space.view(address, 32, "")):
                beginning = self._space.view(address, min(header.commands_end, _MAX_COMMANDS), "")
                for command in replace(header, ncmds=min(header.ncmds, self._left)).load_commands(beginning):
                    self._left -= 1
                    uuid = uuid or command.uuid()
                    name = command.install_name() or name
        if self._left <= 0:
            raise SharedCacheError(f"{self._main.path}: its images have more than {_MAX_COMMANDS_OF_ALL} load commands")
        return uuid, name.decode("utf-8", "surrogateescape")
