"""A whole shared cache: its files, its address space, its images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self
from uuid import UUID

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.cache_file import CacheFilePart, open_part
from symcache.dyld.header import Mapping
from symcache.dyld.images import Image, read_aliases, read_images
from symcache.dyld.names import Companion, companions_of, is_cache_name
from symcache.errors import SharedCacheError
from symcache.kinds import uuid_text

__all__ = ["Image", "MissingFile", "SharedCache"]


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A companion that the header names and that is not there, or is not the one that it names; or a cut main file."""

    companion: Companion
    reason: str


class SharedCache:
    """An opened cache. `close` it, or use it in a `with`."""

    def __init__(
        self,
        main: CacheFilePart,
        parts: list[CacheFilePart],
        symbols: CacheFilePart | None,
        missing: list[MissingFile] | None = None,
    ) -> None:
        self.main = main
        self.files = [*parts, *([symbols] if symbols else [])]
        """Main file, sub-caches in the order of the header, then `.symbols`."""
        self.symbols = symbols
        self.missing = missing or []
        """Companions that are not there. Only `.symbols` may be, unless the cache was opened with `partial`."""
        self.warnings: list[str] = [m.reason for m in self.missing]
        """What is missing or odd but can be done without."""
        self.space = AddressSpace(parts)
        self._table = read_images(main, self.space)
        self.images: list[Image] = self._table.images
        # x86_64 sub-caches repeat the list of all images, none of which lies in them.
        alone = len(parts) == 1 and not any(not m.companion.optional for m in self.missing)
        if alone and self.images and self.space.locate(self.images[0].address) is None:
            raise SharedCacheError(
                f"{main.path}: its first image, at {self.images[0].address:#x}, lies outside of the file",
                hint="name the main file of the cache",
            )

    @classmethod
    def open(cls, path: Path, *, partial: bool = False) -> SharedCache:
        """Open a main cache file and every companion that its header names.

        Raises SharedCacheError when a companion is missing or of another build, or anything is cut or absurd; OSError
        when the main file cannot be read. With `partial` such companions are noted in `missing` instead, and what lies
        in the files that are there can be read; so is the main file, if it is cut behind its tables.
        """
        if not is_cache_name(path.name) and ("." in path.name):
            base = path.name.partition(".")[0]
            hint = f"name the main file instead: {path.with_name(base)}" if is_cache_name(base) else ""
            raise SharedCacheError(f"{path}: not the name of a main shared-cache file", hint=hint)
        opened: list[CacheFilePart] = []
        try:
            missing: list[MissingFile] = []
            try:
                main = open_part(path)
            except SharedCacheError as error:
                if not partial:
                    raise
                main = open_part(path, cut=True)
                missing.append(MissingFile(Companion(path.name, main.header.uuid, "", None, False), str(error)))
            opened.append(main)
            symbols = None
            for wanted in companions_of(path, main.data, main.header):
                try:
                    part = _open_companion(main, wanted)
                except SharedCacheError as error:
                    gone = not path.with_name(wanted.name).is_file()
                    if not partial and not (wanted.optional and gone):
                        raise
                    missing.append(MissingFile(wanted, str(error)))
                    continue
                opened.append(part)
                if wanted.optional:
                    symbols = part
            return cls(main, [p for p in opened if p is not symbols], symbols, missing)
        except BaseException:
            for part in opened:
                with suppress(BufferError):
                    part.data.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the files. Views that were handed out keep theirs alive."""
        for part in self.files:
            with suppress(BufferError):
                part.data.close()

    @cached_property
    def aliases(self) -> dict[str, int]:
        """Other paths of images: path to index in `images`. A table that cannot be read is noted in `warnings`."""
        try:
            return read_aliases(self.main, self.space, self._table)
        except SharedCacheError as error:
            self.warnings.append(f"aliases are not known: {error}")
            return dict(self._table.aliases)

    @property
    def path(self) -> Path:
        """Of the main file."""
        return self.main.path

    @property
    def arch(self) -> str:
        """The architecture as the magic spells it."""
        return self.main.header.arch

    @property
    def uuid(self) -> UUID | None:
        """What the whole cache is known by; None before 10.9."""
        return self.main.header.uuid

    @property
    def base(self) -> int:
        """Unslid address of the main file's header: what offsets in tables and pointers count from."""
        return self.main.mappings[0].address

    @property
    def mappings(self) -> list[tuple[CacheFilePart, Mapping]]:
        """All mappings with their files."""
        return [(part, m) for part in self.files if part is not self.symbols for m in part.mappings]

    @property
    def os_version(self) -> str:
        """The macOS version as the builder noted it (`13.6.9`), or empty."""
        packed = self.main.header.os_version
        return f"{packed >> 16}.{packed >> 8 & 255}.{packed & 255}" if packed else ""


def _open_companion(main: CacheFilePart, wanted: Companion) -> CacheFilePart:
    """Open one companion and hold it against what the main file says of it. Raises SharedCacheError."""
    place = main.path.with_name(wanted.name)
    expected = uuid_text(wanted.uuid) if wanted.uuid else "none"
    if not place.is_file():
        raise SharedCacheError(
            f"{main.path}: its companion {wanted.name} (UUID {expected}) is missing",
            hint="copy all files of the cache from the same machine",
        )
    part = open_part(place, wanted.suffix, mapped=not wanted.optional)
    header, base = part.header, main.mappings[0].address
    try:
        if header.magic != main.header.magic or header.uuid != wanted.uuid:
            raise SharedCacheError(
                f"{place}: UUID {uuid_text(header.uuid) if header.uuid else 'none'} ({header.arch}) where"
                f" {expected} ({main.header.arch}) was expected",
                hint="the files are of different macOS builds: copy them all again from one machine",
            )
        if wanted.vm_offset is not None and part.mappings[0].address != base + wanted.vm_offset:
            raise SharedCacheError(
                f"{place}: lies at {part.mappings[0].address:#x} where the main file expects"
                f" {base + wanted.vm_offset:#x}"
            )
    except SharedCacheError:
        part.data.close()
        raise
    return part
