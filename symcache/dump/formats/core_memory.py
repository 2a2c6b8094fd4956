"""Reads the memory of a process from its core."""

from __future__ import annotations

import os

from symcache.dump.formats.core import Core
from symcache.errors import EnvironmentFailure

__all__ = ["CoreMemory"]

_MAX_PIECES = 64


class CoreMemory:
    """The memory that a core holds, with dyld's list at an address; see `ImageMemory`."""

    def __init__(self, descriptor: int, core: Core, infos: int = 0) -> None:
        self._descriptor, self._core, self._infos = descriptor, core, infos

    def dyld_all_image_infos(self) -> int:
        """See `ImageMemory.dyld_all_image_infos`."""
        return self._infos

    def read(self, address: int, size: int) -> bytes:
        """See `ImageMemory.read`."""
        data = b""
        for _ in range(_MAX_PIECES):
            at = address + len(data)
            segment = self._core.segment_at(at)
            left = segment.address + segment.filesize - at if segment else 0
            if segment is None or left <= 0:
                break
            part = os.pread(self._descriptor, min(size - len(data), left), segment.offset + at - segment.address)
            data += part
            if len(data) == size:
                return data
            if not part:
                break
        raise EnvironmentFailure(f"the core does not hold the {size} bytes at {address:#x}")
