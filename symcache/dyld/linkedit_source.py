"""Where the load commands of an image in a cache point: into the __LINKEDIT that all images share."""

from __future__ import annotations

from symcache.dyld.address_space import AddressSpace
from symcache.dyld.mach_image import MachImage
from symcache.errors import SharedCacheError

__all__ = ["LinkeditSource"]


class LinkeditSource:
    """The image's view of the shared __LINKEDIT: file offsets of its commands to bytes."""

    def __init__(self, space: AddressSpace, image: MachImage) -> None:
        self._space, self._image = space, image
        self._linkedit = image.linkedit

    def view(self, dataoff: int, size: int, what: str) -> memoryview:
        """Return what a command names. Offsets count from where the segment says its own file offset is."""
        name = f"{self._image.what}: {what}"
        if self._linkedit is None:
            raise SharedCacheError(f"{name}: there is no __LINKEDIT")
        return self._space.view(self._linkedit.vmaddr + dataoff - self._linkedit.fileoff, size, name)

    def to_end(self, dataoff: int, size: int, what: str) -> memoryview:
        """As `view`, but cut where the mapping ends: the shared pool may be claimed larger than it is."""
        linkedit = self._linkedit
        found = self._space.locate(linkedit.vmaddr + dataoff - linkedit.fileoff) if linkedit else None
        return self.view(dataoff, min(size, found.available) if found else size, what)
