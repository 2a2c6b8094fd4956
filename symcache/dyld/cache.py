"""A whole shared cache: its files, its address space, its images."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.cache_file import CacheFilePart, open_part
from symcache.dyld.header import Header, Mapping
from symcache.dyld.names import companions_of, is_cache_name
from symcache.dyld.trie import walk_paths
from symcache.errors import SharedCacheError
from symcache.model import uuid_text

__all__ = ["Image", "SharedCache"]

_MAX_IMAGES = 100_000
_MAX_PATH = 4096
_MAX_COMMANDS = 1 << 20
_LC_UUID = 0x1B
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


class SharedCache:
    """An opened cache. `close` it, or use it in a `with`."""

    def __init__(self, main: CacheFilePart, parts: list[CacheFilePart], symbols: CacheFilePart | None) -> None:
        self.main = main
        self.files = [*parts, *([symbols] if symbols else [])]
        """Main file, sub-caches in the order of the header, then `.symbols`."""
        self.symbols = symbols
        self.warnings: list[str] = []
        """What is missing but can be done without."""
        self.space = AddressSpace(parts)
        self.aliases: dict[str, int] = {}
        """Other paths of images: path to index in `images`."""
        self.images: list[Image] = []
        self._read_images()

    @classmethod
    def open(cls, path: Path) -> SharedCache:
        """Open a main cache file and every companion that its header names.

        Raises SharedCacheError when a companion is missing or of another build, or anything is cut or absurd.
        """
        if not is_cache_name(path.name) and ("." in path.name):
            base = path.name.partition(".")[0]
            hint = f"name the main file instead: {path.with_name(base)}" if is_cache_name(base) else ""
            raise SharedCacheError(f"{path}: not the name of a main shared-cache file", hint=hint)
        opened: list[CacheFilePart] = []
        try:
            main = open_part(path)
            opened.append(main)
            warnings: list[str] = []
            symbols = None
            for wanted in companions_of(path.name, main.head, main.header):
                place = path.with_name(wanted.name)
                if not place.is_file():
                    text = f"{path}: its companion {wanted.name} (UUID {uuid_text(wanted.uuid)}) is missing"
                    if not wanted.optional:
                        raise SharedCacheError(text, hint="copy all files of the cache from the same machine")
                    warnings.append(text)
                    continue
                part = open_part(place, wanted.suffix)
                opened.append(part)
                if part.header.magic != main.header.magic or part.uuid != wanted.uuid:
                    raise SharedCacheError(
                        f"{place}: UUID {uuid_text(part.uuid) if part.uuid else 'none'} ({part.header.arch}) where"
                        f" {uuid_text(wanted.uuid)} ({main.header.arch}) was expected",
                        hint="the files are of different macOS builds: copy them all again from one machine",
                    )
                if wanted.vm_offset is None:
                    symbols = part
                elif part.mappings[0].address != main.mappings[0].address + wanted.vm_offset:
                    raise SharedCacheError(
                        f"{place}: lies at {part.mappings[0].address:#x} where the main file expects"
                        f" {main.mappings[0].address + wanted.vm_offset:#x}"
                    )
            cache = cls(main, [p for p in opened if p is not symbols], symbols)
            cache.warnings += warnings
        except BaseException:
            for part in opened:
                with suppress(BufferError):
                    part.data.close()
            raise
        return cache

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the files. Views that were handed out keep theirs alive."""
        for part in self.files:
            with suppress(BufferError):
                part.data.close()

    @property
    def path(self) -> Path:
        """Of the main file."""
        return self.main.path

    @property
    def header(self) -> Header:
        """Of the main file."""
        return self.main.header

    @property
    def arch(self) -> str:
        """The architecture as the magic spells it."""
        return self.main.header.arch

    @property
    def uuid(self) -> UUID | None:
        """What the whole cache is known by; None before 10.9."""
        return self.main.uuid

    @property
    def base(self) -> int:
        """Unslid address of the main file's header: what offsets in tables and pointers count from."""
        return self.main.mappings[0].address

    @property
    def mappings(self) -> list[tuple[CacheFilePart, Mapping]]:
        """All mappings with their files."""
        return [(part, m) for part in self.files if part is not self.symbols for m in part.mappings]

    @property
    def platform(self) -> int:
        """Mach-O platform number: 1 macOS, 10 DriverKit, …; 0 unknown."""
        return self.main.header.platform

    @property
    def os_version(self) -> str:
        """The macOS version as the builder noted it (`13.6.9`), or empty."""
        packed = self.main.header.os_version
        return f"{packed >> 16}.{packed >> 8 & 255}.{packed & 255}" if packed else ""

    def _read_images(self) -> None:
        main, header = self.main, self.main.header
        offset, count = header.images_table
        if count > _MAX_IMAGES:
            raise SharedCacheError(f"{main.path}: imagesCount {count} where at most {_MAX_IMAGES} was expected")
        raw = bytes(main.bounded(offset, count * 0x20, "the image table"))
        text = self._text_infos(count)
        path_at = self._path_reader()
        by_address: dict[int, int] = {}
        pending_aliases: list[tuple[str, int]] = []
        for address, _, _, path_offset, _ in struct.iter_unpack("<3Q2I", raw):
            path = path_at(path_offset)
            known = by_address.get(address)
            if known is not None:
                # Until 10.15 an alias is a second record of the same address, its path among the alias strings.
                pending_aliases.append((path, known))
                continue
            uuid, size = text.get(address) or (self._uuid_from_header(address), 0)
            by_address[address] = len(self.images)
            self.images.append(Image(len(self.images), path, uuid, address, size))
        if self.images and not self._in_first_mapping(self.images[0].address):
            raise SharedCacheError(
                f"{main.path}: its first image lies outside of the file", hint="name the main file of the cache"
            )
        for path, index in pending_aliases:
            self._add_alias(path, index)
        if header.mapping_offset >= _HAS_DYLIBS_TRIE and header.dylibs_trie_address and header.dylibs_trie_size:
            trie = bytes(
                self.space.view(header.dylibs_trie_address, header.dylibs_trie_size, f"{main.path}: its dylibs trie")
            )
            for path, index in walk_paths(trie, f"{main.path}: its dylibs trie"):
                if index < len(self.images) and path != self.images[index].path:
                    self.aliases[path] = index

    def _add_alias(self, path: str, index: int) -> None:
        """Note an alias record. The image's own path is the one stored behind the aliases' strings: the later."""
        if path != self.images[index].path:
            self.aliases[path] = index

    def _in_first_mapping(self, address: int) -> bool:
        return any(m.address <= address < m.address + m.size for m in self.main.mappings) or len(self.files) > 1

    def _text_infos(self, count: int) -> dict[int, tuple[UUID | None, int]]:
        """Return {address: (UUID, size of __TEXT)} from the dyld_cache_image_text_info array, where there is one."""
        header = self.main.header
        if not header.images_text_count:
            return {}
        if header.images_text_count > max(count, _MAX_IMAGES):
            raise SharedCacheError(f"{self.main.path}: imagesTextCount {header.images_text_count} is absurd")
        raw = self.main.bounded(header.images_text_offset, header.images_text_count * 0x20, "the image text table")
        return {
            address: (UUID(bytes=uuid) if any(uuid) else None, size)
            for uuid, address, size, _ in struct.iter_unpack("<16sQ2I", raw)
        }

    def _path_reader(self) -> Callable[[int], str]:
        data, name = self.main.data, self.main.path

        def path_at(offset: int) -> str:
            end = data.find(b"\0", offset, offset + _MAX_PATH) if offset < len(data) else -1
            if end < 0:
                raise SharedCacheError(f"{name}: an image's path at {offset:#x} does not end in the file")
            return data[offset:end].decode("utf-8", "surrogateescape")

        return path_at

    def _uuid_from_header(self, address: int) -> UUID | None:
        """Read LC_UUID of the image at `address`: what caches before 10.12 have no table for."""
        what = f"{self.main.path}: image at {address:#x}"
        magic, ncmds, sizeofcmds = struct.unpack_from("<I12xII", self.space.view(address, 28, what))
        start = address + (32 if magic == 0xFEEDFACF else 28)
        if sizeofcmds > _MAX_COMMANDS:
            raise SharedCacheError(f"{what}: sizeofcmds {sizeofcmds} is absurd")
        commands = self.space.view(start, sizeofcmds, what)
        position = 0
        for _ in range(ncmds):
            if position + 8 > sizeofcmds:
                break
            cmd, size = struct.unpack_from("<2I", commands, position)
            if size < 8 or position + size > sizeofcmds:
                break
            if cmd == _LC_UUID and size >= 24:
                raw = bytes(commands[position + 8 : position + 24])
                return UUID(bytes=raw) if any(raw) else None
            position += size
        return None
