"""Shared caches by themselves, as they are downloaded or copied: a main file, or a folder with some."""

from __future__ import annotations

from pathlib import Path

from symcache.dyld import is_cache_name, is_main_name
from symcache.errors import FormatError
from symcache.macho import PLATFORMS
from symcache.model import Release
from symcache_provisioning.sources.discovery import CACHE_MAGIC
from symcache_provisioning.sources.entries import Entry, RemoteCache
from symcache_provisioning.sources.part import PartSource

__all__ = ["BareCaches", "folders_with_caches", "has_main_files", "is_cache_file"]

_LACKS = "only shared caches are in there, and no other file of the system"
_DEVELOPMENT = ".development"
_DRIVERKIT = 10
_DEPTH = 3
_MOST_FOLDERS = 2000
"""Folders below the named one that are searched."""


class BareCaches(PartSource):
    """A folder of shared caches: those at its top, and those that lie in it where a system has them.

    With `main`, the one main file of that name and its companions only.
    """

    has_files = False

    def __init__(self, folder: Path, *, main: str = "", build: str | None = None, product: str = "") -> None:
        place = folder / main if main else folder
        super().__init__(place, folder, None, what="folder of shared caches", lacks=_LACKS)
        self._main, self._build, self._product = main, build, product

    def identity(self) -> Release | None:
        """Return the release: its build is what the user says; version and product are what the caches say.

        Raises as `PartSource`.
        """
        product = version = ""
        for cache in self._whole_caches():
            with cache:
                platform = cache.main.header.platform
                if platform and (not product or platform != _DRIVERKIT):
                    product, version = PLATFORMS.get(platform, f"platform {platform}"), cache.os_version or version
        if not self._build:
            return None
        short = version.removesuffix(".0") if version.count(".") > 1 else version
        return Release(product=self._product or product or "macOS", version=short or "unknown", build=self._build)

    def caches(self, build: str = "") -> list[RemoteCache]:
        """See Source."""
        if self._main:
            return [c for c in self.discovery.caches_in("/") if c.name == self._main]
        return [*self.discovery.caches_in("/"), *self.discovery.caches(build)]

    def entries(self, folder: str, *, needed: bool = False) -> list[Entry]:
        """See Tree: where one main file was named, nothing else of the folder is looked at."""
        entries = super().entries(folder, needed=needed)
        stem = self._main.removesuffix(_DEVELOPMENT)
        return [e for e in entries if not stem or e.name == stem or e.name.startswith(f"{stem}.")]


def is_cache_file(path: Path) -> bool:
    """Return whether a file begins as one of a shared cache. Raises FormatError for one that is only a part of one."""
    with path.open("rb") as file:
        if file.read(len(CACHE_MAGIC)) != CACHE_MAGIC:
            return False
    if not is_main_name(path.name):
        raise FormatError(
            f"{path}: is a part of a shared cache",
            hint="name its main file, e.g. dyld_shared_cache_arm64e, or the folder",
        )
    return True


def has_main_files(folder: Path) -> bool:
    """Return whether main files of shared caches lie at the top of a folder."""
    for path in _entries(folder):
        if is_main_name(path.name) and path.is_file() and not path.is_symlink():
            try:
                with path.open("rb") as file:
                    begins = file.read(len(CACHE_MAGIC)) == CACHE_MAGIC
            except OSError:
                begins = is_cache_name(path.name)  # that it cannot be read is said when it shall be
            if begins:
                return True
    return False


def folders_with_caches(top: Path) -> tuple[list[Path], list[tuple[Path, OSError]]]:
    """Return the folders below one that hold shared caches, by their names: not far down, and of many not all.

    Beside them, those that cannot be read.
    """
    found, closed = list[Path](), list[tuple[Path, OSError]]()
    level = [top]
    for depth in range(_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            try:
                entries = sorted(folder.iterdir())
                if depth < _DEPTH:
                    below += [e for e in entries if e.is_dir() and not e.is_symlink()]
            except OSError as error:
                closed.append((folder, error))
                continue
            if depth and any(is_cache_name(e.name) for e in entries) and has_main_files(folder):
                found.append(folder)
        level = below[:_MOST_FOLDERS]
    return found, closed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []  # whoever asks for what lies below is told
