"""Universal files for clients that want them: `?universal` behind the path of a binary or a dSYM.

A library keeps every image by itself, so a universal file is put together anew from the slices that one record has
under the same path: each as it was, signature included, though not at the offset that it once had.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError
from symcache.files import atomic_write
from symcache.macho import LITTLE_64, FatArch, fat_table, mach_header
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.made import MadeFiles
from symcache_server.http.content import Content, Source

__all__ = ["make_universal"]

_ALIGN = 14
"""Of every slice, as a power of two: the pages of arm64, which suit x86_64 as well."""
_ALIGNED = 1 << _ALIGN
_REVISION = 1
"""Part of the name that a made file is cached under."""


async def make_universal(
    made: MadeFiles, decoded: DecodedCache, slices: Sequence[Occurrence]
) -> tuple[Source, Content]:
    """Return a universal file of these slices, made when it is first requested. Raises as `DecodedCache.open`."""
    return await made.get([(decoded, one.sha256, one.size) for one in slices], f"fat{_REVISION}", _write)


def _write(descriptors: Sequence[int], target: Path) -> None:
    arches, end = [], _ALIGNED
    for descriptor in descriptors:
        head, size = os.pread(descriptor, LITTLE_64.header.size, 0), os.fstat(descriptor).st_size
        header = mach_header(head)
        if header is None:
            raise IntegrityError(f"a slice begins with {head[:4].hex()}, which no slice of a universal file can")
        arches.append(FatArch(header.cputype, header.cpusubtype, end, size, _ALIGN))
        end += size + -size % _ALIGNED
    with atomic_write(target, mode=0o600) as part, part.open("wb") as out:
        out.write(fat_table(arches))
        for descriptor, arch in zip(descriptors, arches, strict=True):
            out.seek(arch.offset)
            with open(descriptor, "rb", closefd=False) as file:
                shutil.copyfileobj(file, out, 1 << 20)
