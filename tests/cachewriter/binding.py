"""Every pointer of every image, with its target in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from tests.cachewriter.fixups import FLAT_LOOKUP, MAIN_EXECUTABLE, SELF, Auth, Bind
from tests.cachewriter.linkedit import moved_exports
from tests.cachewriter.machinput import LC_REEXPORT, N_EXT, N_STAB, N_TYPE, Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.options import CacheOptions
from tests.cachewriter.slide import Pointer

ABSOLUTE = 2  # EXPORT_SYMBOL_FLAGS_KIND_ABSOLUTE


class Linker:
    """Looks symbols up across the images of one cache, as dyld binds them in two-level namespaces."""

    def __init__(self, images: list[Image], movers: list[Mover], aliases: dict[str, str]) -> None:
        self.images = images
        self._exports = [moved_exports(i, m) for i, m in zip(images, movers, strict=True)]
        self._headers = [i.text.vmaddr + m.text_delta for i, m in zip(images, movers, strict=True)]
        self._by_path = {i.path: n for n, i in enumerate(images)}
        self._by_path |= {alias: self._by_path[path] for alias, path in aliases.items() if path in self._by_path}
        self._tables = [self._symbol_table(i, m) if not i.exports else {} for i, m in zip(images, movers, strict=True)]

    @staticmethod
    def _symbol_table(image: Image, mover: Mover) -> dict[str, int]:
        """Defined external symbols of an image without an exports trie."""
        found = {}
        for name, symbol in zip(image.names, image.symbols, strict=True):
            if symbol["type"] & N_EXT and not symbol["type"] & N_STAB and symbol["type"] & N_TYPE == 0xE:
                found[name.decode("utf-8", "surrogateescape")] = mover.moved(int(symbol["value"]))
        return found

    def image_at(self, path: str) -> int | None:
        return self._by_path.get(path)

    def lookup(self, image: int, name: str, seen: frozenset[int] = frozenset()) -> tuple[int, bool] | None:
        """(cache address or absolute value, absolute?) of a symbol that `image` exports, following re-exports."""
        if image in seen:
            return None
        seen |= {image}
        export = self._exports[image].get(name)
        if export and export.reexport:
            library = self._dependent(image, export.ordinal)
            return None if library is None else self.lookup(library, export.imported or name, seen - {image})
        if export:
            absolute = export.flags & 3 == ABSOLUTE
            return (export.address if absolute else self._headers[image] + export.address), absolute
        if name in self._tables[image]:
            return self._tables[image][name], False
        for command, path in self.images[image].dependents:
            library = self._by_path.get(path)
            if command == LC_REEXPORT and library is not None and (found := self.lookup(library, name, seen)):
                return found
        return None

    def _dependent(self, image: int, ordinal: int) -> int | None:
        dependents = self.images[image].dependents
        return self._by_path.get(dependents[ordinal - 1][1]) if 0 < ordinal <= len(dependents) else None

    def resolve(self, image: int, bind: Bind) -> tuple[int, bool] | None:
        if bind.ordinal == SELF:
            return self.lookup(image, bind.name)
        if bind.ordinal == MAIN_EXECUTABLE:
            return None
        if bind.ordinal <= FLAT_LOOKUP:
            candidates = (self.lookup(i, bind.name) for i in range(len(self.images)))
            return next((c for c in candidates if c), None)
        library = self._dependent(image, bind.ordinal)
        return None if library is None else self.lookup(library, bind.name)


class Decorator:
    """Chooses, by hash and so alike in every run, which pointers are signed or tagged."""

    def __init__(self, options: CacheOptions) -> None:
        self._options = options

    def __call__(self, path: str, address: int, writable: bool, code: bool) -> tuple[int, Auth | None]:
        """(top byte, authentication) of a pointer."""
        o = self._options
        if not (o.authenticated or o.high8) or not writable:
            return 0, None
        digest = hashlib.sha256(f"{path} {address:#x}".encode()).digest()
        chance, other = digest[0] / 256, digest[1] / 256
        if o.arch.startswith("arm64e") and o.slide in (3, 5) and chance < o.authenticated:
            keys = (0, 1, 2, 3) if o.slide == 3 else (0, 2)
            return 0, Auth(keys[digest[2] % len(keys)], int.from_bytes(digest[3:5], "little"), bool(digest[5] & 1))
        tagged = other < o.high8 and not code and o.is64 and o.slide in (2, 3, 5)
        return (digest[6] if tagged else 0), None


def pointers_of(
    number: int, image: Image, mover: Mover, linker: Linker, decorate: Decorator, missing: list[tuple[str, str]]
) -> Iterator[tuple[int, Pointer | int]]:
    """(segment, Pointer with its offset in the segment), or (segment, offset) of a pointer that stays 0 or absolute.

    Absolute values come as a Pointer with `high8` -1: to be stored, but not slid.
    """
    starts = np.array([s.vmaddr for s in image.segments])
    for rebase in image.rebases:
        segment = mover.segment(rebase.address)
        target_segment = mover.segment(rebase.target)
        high8, auth = rebase.high8, rebase.auth
        if not auth and not high8:
            code = image.segments[target_segment].name == "__TEXT"
            high8, auth = decorate(image.path, rebase.address, True, code)
        target = rebase.target + mover.delta(target_segment)
        yield segment, Pointer(int(rebase.address - starts[segment]), target, high8, auth)
    for bind in image.binds:
        segment = mover.segment(bind.address)
        offset = int(bind.address - starts[segment])
        found = linker.resolve(number, bind)
        if found is None:
            missing.append((image.path, bind.name))
            yield segment, offset
            continue
        value, absolute = found
        auth = bind.auth
        if not auth:
            _, auth = decorate(image.path, bind.address, True, True)
        value = (value + bind.addend) & 0xFFFFFFFFFFFFFFFF
        if absolute:
            yield segment, Pointer(offset, value, -1)
        else:  # libc++ adds a tag in the top bit to names of types
            yield segment, Pointer(offset, value & 0x00FFFFFFFFFFFFFF, value >> 56, auth)
