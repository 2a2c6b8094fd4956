"""Folders with a part of a release, which their names tell: copies that Apple's tools make."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from symcache.dyld import SharedCache
from symcache.errors import IntegrityError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.sources.discovery import Discovery
from symcache_provisioning.sources.folder import DirectorySource
from symcache_provisioning.sources.locations import CRYPTEX_FOLDERS

__all__ = ["PartSource"]

_WHOLE = "copy all files of the cache again, from the same machine or image"

_DEVICE_CRYPTEXES = "/private/preboot/Cryptexes"
"""Where iOS and its relatives graft cryptexes to."""


class _Discovery(Discovery):
    """Looks for Mach-O files in all folders, or in none."""

    cryptex_folders = (*CRYPTEX_FOLDERS, _DEVICE_CRYPTEXES)
    has_files = True

    def roots(self, build: str = "") -> list[str]:
        """See Discovery."""
        del build
        return ["/"] if self.has_files else []


class PartSource(DirectorySource):
    """A folder that is laid out as a system, and has a part of one.

    `place` is what it is known by, `root` what takes the place of `/`.
    """

    has_files = True
    """It has Mach-O files outside of shared caches."""

    def __init__(
        self,
        place: Path,
        root: Path,
        release: Release | None,
        *,
        what: str,
        lacks: str = "",
        host: str = "",
        extracted_by: str = "",
    ) -> None:
        super().__init__(root)
        self._place, self._release, self._host = place.absolute(), release, host
        self.what, self.extracted_by = what, extracted_by
        self.lacks = lacks or ("" if release else "nothing says of which build it is")

    @property
    def name(self) -> str:
        """See Source."""
        return str(self._place)

    @cached_property
    def discovery(self) -> Discovery:
        """See Source."""
        discovery = _Discovery(self)
        discovery.has_files = self.has_files
        return discovery

    def identity(self) -> Release | None:
        """Return the release that the folder's name tells.

        Raises IntegrityError where shared caches in it lack files, or are of several builds: nothing is taken of these.
        """
        for cache in self._whole_caches():
            cache.close()
        return self._release

    def _whole_caches(self) -> Iterator[SharedCache]:
        """Yield its shared caches, opened. Raises IntegrityError as `identity`, SharedCacheError."""
        versions: dict[int, tuple[str, str]] = {}
        for remote in self.caches():
            cache = SharedCache.open(self._at(remote.path), partial=True)
            lost = [m.reason for m in cache.missing if not m.companion.optional]
            platform, version = cache.main.header.platform, cache.os_version
            other = versions.setdefault(platform, (remote.path, version)) if version else (remote.path, version)
            if lost or other[1] != version:
                cache.close()
                if lost:
                    raise IntegrityError(f"{lost[0]}: nothing was taken", hint=_WHOLE)
                raise IntegrityError(
                    f"{self.name}: shared caches of several builds lie in there: {excerpt(other[0])} is of {other[1]},"
                    f" {excerpt(remote.path)} of {version}: nothing was taken",
                    hint="name each main file by itself, with its --build",
                )
            yield cache

    def host(self) -> str:
        """Return the model of device that it is of, as far as that is known."""
        return self._host
