"""A finished cache, and what its writer knows about it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.cachewriter.layout import Layout, Region
from tests.cachewriter.linkedit import moved_exports, moved_symbols
from tests.cachewriter.machinput import LC_REEXPORT, Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.options import CacheOptions
from tests.cachewriter.trie import Export

__all__ = ["BuiltCache", "ExpectedImage", "ExpectedSegment", "PlacedImage", "Symbol"]


@dataclass(frozen=True)
class PlacedImage:
    """An image of the cache. `segments` has (name, original vmaddr, cache vmaddr, vmsize), __LINKEDIT excepted."""

    path: str
    uuid: bytes
    address: int
    segments: list[tuple[str, int, int, int]]


@dataclass(frozen=True)
class Symbol:
    """One symbol with its value in the cache."""

    name: str
    value: int
    type: int
    section: int
    desc: int

    @property
    def line(self) -> str:
        return f"{self.value:x} {self.type:02x} {self.section} {self.desc:04x} {self.name}"


@dataclass(frozen=True)
class ExpectedSegment:
    """A segment of a right extraction; `content` has plain pointers."""

    name: str
    vmaddr: int
    content: bytes


@dataclass(frozen=True)
class ExpectedImage:
    """What a right extraction of one image holds. Load commands are left out: those an extractor rewrites."""

    path: str
    uuid: bytes
    cputype: int
    cpusubtype: int
    filetype: int
    address: int
    text_after_load_commands: int
    segments: list[ExpectedSegment]
    symbols: list[Symbol]
    indirect_symbols: list[str]
    reexports: list[tuple[str, str]]
    function_starts: bytes
    data_in_code: bytes
    exports: dict[str, Export] = field(default_factory=dict)

    @property
    def symbol_lines(self) -> list[str]:
        """Sorted lines `value type section desc name`, with an N_INDR line for each single re-exported symbol."""
        lines = [s.line for s in self.symbols]
        return sorted(lines + [f"{imported} 0b 0 0000 {name}" for name, imported in self.reexports])

    def as_json(self) -> dict[str, Any]:
        """The same facts in hashes."""

        def digest(data: bytes) -> dict[str, Any]:
            return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        segments = []
        for s in self.segments:
            content = s.content[self.text_after_load_commands :] if s.name == "__TEXT" else s.content
            segments.append(
                {"name": s.name, "vmaddr": s.vmaddr, "vmsize": len(s.content), "sha256": digest(content)["sha256"]}
            )
        text = self.uuid.hex().upper()
        return {
            "path": self.path,
            "cputype": self.cputype,
            "cpusubtype": self.cpusubtype & 0xFFFFFF,
            "filetype": self.filetype,
            "text_after_load_commands_from": self.text_after_load_commands,
            "address": self.address,
            "uuid": "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) if any(self.uuid) else None,
            "function_starts": digest(self.function_starts),
            "data_in_code": digest(self.data_in_code),
            "segments": segments,
            "symbols": self.symbol_lines,
            "indirect_symbols": self.indirect_symbols,
        }


@dataclass
class BuiltCache:
    """The files of a cache by suffix ("" is the main file), and the knowledge to check a reader with."""

    options: CacheOptions
    files: dict[str, bytes]
    uuid: bytes
    base: int
    images: list[Image]
    movers: list[Mover]
    layout: Layout
    missing: list[tuple[str, str]]
    file_uuids: dict[str, bytes]
    stubs: list[Region] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.options.file_name

    def write(self, folder: Path, name: str | None = None) -> Path:
        """Write all files of the cache into `folder` and return the main file's path."""
        folder.mkdir(parents=True, exist_ok=True)
        main = folder / (name or self.name)
        for suffix, data in self.files.items():
            main.with_name(main.name + suffix).write_bytes(data)
        return main

    @cached_property
    def placed(self) -> list[PlacedImage]:
        """All images in the order of the image table."""
        result = []
        for number in self.layout.order:
            image, addresses = self.images[number], self.layout.addresses[number]
            segments = [(s.name, s.vmaddr, a, s.size) for s, a in zip(image.segments, addresses, strict=True)]
            header = next(a for name, _, a, _ in segments if name == "__TEXT")
            result.append(PlacedImage(image.path, image.uuid, header, segments))
        return result

    def placed_image(self, path: str) -> PlacedImage:
        return next(p for p in self.placed if p.path == path)

    def memory(self, slide: int = 0) -> list[tuple[int, bytes, int]]:
        """(address, bytes, initial protection) of all mappings as dyld leaves them: slid, pointers plain, unsigned."""
        result = []
        width = 8 if self.options.is64 else 4
        for region in [*self.layout.regions, *self.stubs]:
            content = bytearray(region.content.ljust(region.size, b"\0"))
            if slide:
                for p in region.pointers:
                    value = (p.plain + slide) & ((1 << 8 * width) - 1)
                    content[p.offset : p.offset + width] = value.to_bytes(width, "little")
            result.append((region.address + slide, bytes(content), region.initprot))
        return result

    def read(self, address: int, size: int) -> bytes:
        """Bytes at an unslid address, pointers plain."""
        for region in [*self.layout.regions, *self.stubs]:
            if region.address <= address < region.address + region.size:
                return bytes(region.content[address - region.address :][:size].ljust(size, b"\0"))
        raise KeyError(f"{address:#x} lies in no mapping")

    def expected(self, path: str) -> ExpectedImage:
        """What a right extraction of the image at an install path holds."""
        number = next(n for n, i in enumerate(self.images) if i.path == path)
        image, mover = self.images[number], self.movers[number]
        commands = self.read(mover.addresses[image.segments.index(image.text)], len(image.header))
        (sizeofcmds,) = struct.unpack_from("<I", commands, 20)
        segments = [
            ExpectedSegment(s.name, a, self.read(a, s.size))
            for s, a in zip(image.segments, mover.addresses, strict=True)
        ]
        names = [n.decode("utf-8", "surrogateescape") for n in image.names]
        entries = moved_symbols(image, mover)
        symbols = [
            Symbol(name, int(e["value"]), int(e["type"]), int(e["sect"]), int(e["desc"]))
            for name, e in zip(names, entries, strict=True)
        ]
        exports = moved_exports(image, mover)
        return ExpectedImage(
            image.path, image.uuid, image.cputype, image.cpusubtype, image.filetype,
            image.text.vmaddr + mover.text_delta, (32 if image.is64 else 28) + sizeofcmds, segments, symbols,
            [_indirect_name(i, self._indirect_names(image, names)) for i in image.indirect.tolist()],
            _single_reexports(image, exports),
            image.function_starts or b"", image.data_in_code or b"", exports,
        )  # fmt: skip

    def _indirect_names(self, image: Image, names: list[str]) -> Callable[[int], str]:
        first, count = image.dysymtab[:2]
        unmapped = self.options.unmapped_locals is not None

        def name(index: int) -> str:
            # A builder that takes locals out cannot keep entries that pointed at them.
            return names[0] if unmapped and first <= index < first + count else names[index]

        return name


def _indirect_name(index: int, name: Callable[[int], str]) -> str:
    special = index & 0xC0000000
    if special:
        return "+".join(word for bit, word in ((0x80000000, "LOCAL"), (0x40000000, "ABS")) if special & bit)
    return name(index)


def _single_reexports(image: Image, exports: dict[str, Export]) -> list[tuple[str, str]]:
    """Symbols that the image re-exports one by one, and not as part of a whole re-exported library."""
    result = []
    for name, export in exports.items():
        if not export.reexport:
            continue
        whole = 0 < export.ordinal <= len(image.dependents) and image.dependents[export.ordinal - 1][0] == LC_REEXPORT
        if not whole:
            result.append((name, export.imported or name))
    return sorted(result)


def dump_expected(cache: BuiltCache) -> str:
    """All images' expectations as one JSON text."""
    return json.dumps({"cache": cache.name, "images": [cache.expected(p.path).as_json() for p in cache.placed]})
