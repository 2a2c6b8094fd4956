"""Universal files for clients that want them: `?universal` behind the path of a binary or a dSYM.

A library keeps every image by itself, so a universal file is put together anew from the slices that one record has
under the same path: each as it was, signature included, though not at the offset that it once had.
Source: struct fat_header, fat_arch, fat_arch_64 (<mach-o/fat.h>), big-endian.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError
from symcache.files import atomic_write
from symcache.macho.constants import FAT_MAGIC, FAT_MAGIC_64, MH_MAGIC, MH_MAGIC_64
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.content import Content

__all__ = ["make_universal"]

_HEADER = struct.Struct(">2I")
_ARCH, _ARCH_64 = struct.Struct(">5I"), struct.Struct(">2I2Q2I")
_SLICE = struct.Struct("<3I")
"""How a slice begins: magic, cputype, cpusubtype."""
_ALIGN = 14
"""Of every slice, as a power of two: the pages of arm64, which suit x86_64 as well."""
_ALIGNED = 1 << _ALIGN
_REVISION = 1
"""Part of the name that a made file is cached under."""


async def make_universal(decoded: DecodedCache, slices: Sequence[Occurrence]) -> tuple[Path, Content]:
    """Return a universal file of these slices, made when it is first requested. Raises as `DecodedCache.open`."""
    return await decoded.made([(decoded, one.sha256, one.size) for one in slices], f"fat{_REVISION}", _write)


def _write(descriptors: Sequence[int], target: Path) -> None:
    sizes = [os.fstat(descriptor).st_size for descriptor in descriptors]
    offsets, end = [], _ALIGNED
    for size in sizes:
        offsets.append(end)
        end += size + -size % _ALIGNED
    wide = end >= 1 << 32
    with atomic_write(target, mode=0o600) as part, part.open("wb") as out:
        out.write(_HEADER.pack(FAT_MAGIC_64 if wide else FAT_MAGIC, len(descriptors)))
        for descriptor, offset, size in zip(descriptors, offsets, sizes, strict=True):
            magic, cputype, cpusubtype = _SLICE.unpack(os.pread(descriptor, _SLICE.size, 0).ljust(_SLICE.size, b"\0"))
            if magic not in {MH_MAGIC, MH_MAGIC_64}:
                raise IntegrityError(f"a slice begins with {magic:#x}, which no slice of a universal file can")
            fields = cputype, cpusubtype, offset, size, _ALIGN
            out.write(_ARCH_64.pack(*fields, 0) if wide else _ARCH.pack(*fields))
        for descriptor, offset in zip(descriptors, offsets, strict=True):
            out.seek(offset)
            with open(descriptor, "rb", closefd=False) as file:
                shutil.copyfileobj(file, out, 1 << 20)
