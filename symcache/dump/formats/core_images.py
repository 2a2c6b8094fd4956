"""Images of a core that has no notes of them, found in the memory that it holds, as a debugger finds them.

First by dyld's own list: `dyld_all_image_infos` lies in a section of dyld, and holds its own address, so that it is
found without dyld's header, too. Without that list, by the Mach-O headers in executable memory.

Sources: struct mach_header_64, segment_command_64, section_64 (<mach-o/loader.h>); struct dyld_all_image_infos
(<mach-o/dyld_images.h>).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from symcache.dump.capture.images import BoundedMemory, LoadedImage, LoadedImages, read_image, read_images
from symcache.dump.formats.core import Core, Segment
from symcache.dump.formats.core_memory import CoreMemory
from symcache.errors import DumpError, EnvironmentFailure, MachOError
from symcache.macho import CPU_TYPE, LITTLE_64, MH, mach_header

__all__ = ["find_images"]

_TYPES = frozenset({MH.EXECUTE, MH.DYLIB, MH.DYLINKER, MH.BUNDLE})
_PAGE = 4096
_BLOCK = 8 << 20
_SELF_AT = 104
"""Offset of dyldAllImageInfosAddress in struct dyld_all_image_infos, where it keeps its own address."""
_READ, _WRITE, _EXECUTE = 1, 2, 4
_MAX_SCANNED = 32 << 30
_MAX_HEADERS = 65_536
_MAX_TRIES = 3
_MAX_COMMANDS = 1 << 20
_SHARED_REGION = {True: (0x7FF8_0000_0000, 0x8000_0000_0000), False: (0x1_8000_0000, 0x4_8000_0000)}
"""Where the shared cache, and dyld in it, lies on x86_64 and arm64 since macOS 12."""


def find_images(path: Path, core: Core, *, dyld: int | None = None, infos: int | None = None) -> LoadedImages:
    """Return the images that the memory of a core shows; none is fine. Raises OSError.

    Reads the kept memory once, at most; the executable comes first. `dyld`, `infos`: where its header and its list are,
    if the core tells.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        search = _Search(descriptor, core)
        return search.told(dyld, infos) or search.run()
    finally:
        os.close(descriptor)


class _Search:
    def __init__(self, descriptor: int, core: Core) -> None:
        self._descriptor, self._core = descriptor, core
        self._memory = CoreMemory(descriptor, core)
        self._bounded = BoundedMemory(self._memory)
        self._kept = [s for s in core.segments if s.filesize]
        self._tells = any(s.protection & ~_READ for s in self._kept)
        """A kernel that panics says of all memory that it may be read, and no more."""
        self._tries = _MAX_TRIES
        self._left = _MAX_SCANNED

    def told(self, dyld: int | None, infos: int | None) -> LoadedImages | None:
        return self._listed([infos] if infos else []) or self._by_dyld([(dyld, MH.DYLINKER)] if dyld else [])

    def run(self) -> LoadedImages:
        # A header lies at the start of a region, except in the shared cache, where dyld is since macOS 13.
        first = [s.address for s in self._kept if not s.address % _PAGE]
        if found := self._by_dyld(self._headers(first)):
            return found
        headers = list(self._headers(self._pages()))
        if found := self._by_dyld(headers):
            return found
        if found := self._listed(self._self_pointers()):
            return found
        images: list[LoadedImage] = []
        for address, _ in headers:
            if image := read_image(self._bounded, address):
                images.append(image)
        images.sort(key=lambda image: image.filetype != MH.EXECUTE)
        return LoadedImages(tuple(images), None, 0, ())

    def _headers(self, addresses: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield (address, file type) of those addresses at which there is a Mach-O header of an image."""
        count = 0
        for address in addresses:
            try:
                header = mach_header(self._memory.read(address, LITTLE_64.header.size))
            except EnvironmentFailure:
                continue
            if header is None or (header.structs, header.cputype) != (LITTLE_64, self._core.cputype):
                continue
            if header.filetype in _TYPES and header.fits(header.sizeofcmds):
                yield address, header.filetype
                count += 1
                if count >= _MAX_HEADERS:
                    return

    def _by_dyld(self, headers: Iterable[tuple[int, int]]) -> LoadedImages | None:
        """Return the images by the list in the section `__all_image_info` of a dynamic linker."""
        dyld = (address for address, filetype in headers if filetype == MH.DYLINKER)
        places = (self._infos_of(address) for address in itertools.islice(dyld, _MAX_TRIES))
        return self._listed(place for place in places if place)

    def _infos_of(self, address: int) -> int:
        text, found = 0, None
        with suppress(MachOError, EnvironmentFailure):
            if header := mach_header(self._memory.read(address, LITTLE_64.header.size)):
                beginning = self._memory.read(address, min(header.commands_end, _MAX_COMMANDS))
                for command in header.load_commands(beginning):
                    if (segment := command.segment()) and segment.segname == "__TEXT":
                        text = segment.vmaddr
                    for section in command.sections():
                        if section.sectname == "__all_image_info":
                            found = section.addr
        return 0 if found is None else (found - text + address) % (1 << 64)

    def _listed(self, places: Iterable[int]) -> LoadedImages | None:
        """Return what dyld's list at one of some places says, the first that makes sense."""
        for place in places:
            if self._tries <= 0:
                break
            self._tries -= 1
            try:
                found = read_images(CoreMemory(self._descriptor, self._core, place))
            except (DumpError, EnvironmentFailure):
                continue
            if any(image.filetype or image.uuid or image.path for image in found.images):
                return found
        return None

    def _pages(self) -> Iterator[int]:
        """Yield where in executable memory the magic number of a Mach-O file begins a page."""
        magic = np.frombuffer(LITTLE_64.magic, "<u4")[0]
        for address, raw in self._blocks(_EXECUTE):
            start = -address % _PAGE
            count = (len(raw) - start - 4) // _PAGE + 1
            if count > 0:
                words = np.ndarray((count,), "<u4", raw, start, (_PAGE,))
                yield from (address + start + int(n) * _PAGE for n in np.flatnonzero(words == magic))

    def _self_pointers(self) -> Iterator[int]:
        """Yield where in writable memory there may be dyld's list, as it holds its own address."""
        ramp = np.arange(0, _BLOCK, 8, dtype="<u8")
        for address, raw in self._blocks(_WRITE):
            start = -address % 8
            count = (len(raw) - start) // 8
            if count > 0:
                words = np.frombuffer(raw, "<u8", count, start)
                first = (address + start - _SELF_AT) % (1 << 64)
                for n in np.flatnonzero(words - ramp[:count] == np.uint64(first)):
                    yield (first + 8 * int(n)) % (1 << 64)

    def _blocks(self, access: int) -> Iterator[tuple[int, bytes]]:
        """Yield (address, content) of the kept memory that allows some access, or does not tell, in pieces."""
        start, end = _SHARED_REGION[self._core.cputype == CPU_TYPE.X86_64]

        def shared(segment: Segment) -> bool:
            return start <= segment.address < end

        for segment in sorted(self._kept, key=lambda s: not shared(s)):
            if self._tells and segment.protection and not segment.protection & access:
                continue
            for position in range(0, segment.filesize, _BLOCK):
                size = min(_BLOCK, segment.filesize - position)
                self._left -= size
                if self._left < 0:
                    return
                yield segment.address + position, os.pread(self._descriptor, size, segment.offset + position)
