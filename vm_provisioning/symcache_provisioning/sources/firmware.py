"""A restore image (.ipsw) as a source, mounted by the `ipsw` program where that is installed.

The system volume and the cryptexes are disk images of their own; here they become one system again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from symcache.errors import EnvironmentFailure, IntegrityError, NotFoundError, StorageError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.interrupts import defer_interrupts
from symcache_provisioning.sources.build_manifest import Firmware, read_firmware
from symcache_provisioning.sources.entries import Entry, Limits, RemoteCache
from symcache_provisioning.sources.folder import DirectorySource
from symcache_provisioning.sources.ipsw_mount import PROGRAM, UNMOUNT, IpswMount, removed
from symcache_provisioning.sources.locations import SYSTEM_VERSION_PLISTS
from symcache_provisioning.sources.release import system_versions
from symcache_provisioning.ssh.packets import Attributes, NoSuchFileError
from symcache_provisioning.staging import RESERVE

__all__ = ["IpswSource", "OverlaidSource"]

_PREFIX = "symcache-ipsw-"
_UNPACKED = "images"
_YOUNG_SECONDS = 60
"""A folder may be so old before it is locked."""
_LONGEST_HOST = 4096


class OverlaidSource(DirectorySource):
    """A system whose volumes are mounted in several folders: `parts` maps folders of the system to those."""

    def __init__(self, name: str, parts: Mapping[str, Path], *, limits: Limits | None = None) -> None:
        super().__init__(parts["/"], limits=limits)
        self._name = name
        self._parts = {path: folder.absolute() for path, folder in parts.items() if path != "/"}

    @property
    def name(self) -> str:
        """What the volumes were mounted from."""
        return self._name

    def identity(self) -> Release:
        """See DirectorySource."""
        plists = system_versions(self)
        if not plists:
            raise NotFoundError(
                f"{self._name}: holds no macOS system: it has no {SYSTEM_VERSION_PLISTS[-1]}",
                hint="name a restore image of macOS",
            )
        return plists[0]

    def lstat(self, path: str) -> Entry | None:
        """See Source. The folders above a mounted volume exist, too."""
        if path in self._parts or any(part.startswith(f"{path}/") for part in self._parts):
            entry = super().lstat(path)
            if path in self._parts or entry is None or not stat.S_ISLNK(entry.mode):
                return Entry(path, stat.S_IFDIR | 0o755, 0, 0)
        return super().lstat(path)

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See Source. What is mounted in a folder is listed there, whether the folder itself is there or not."""
        inside = {p[len(path) :].strip("/").partition("/")[0] for p in self._parts if p.startswith(f"{path}/")}
        try:
            for name, attributes in super().scan(path):
                if os.fsdecode(name) not in inside:
                    yield name, attributes
        except NoSuchFileError:
            if not inside:
                raise
        for folder in sorted(inside):
            yield folder.encode(), Attributes(stat.S_IFDIR | 0o755, 0, 0)

    def _at(self, path: str) -> Path:
        for part, folder in self._parts.items():
            if path == part or path.startswith(f"{part}/"):
                return folder.joinpath(*[p for p in path[len(part) :].split("/") if p])
        return super()._at(path)


class IpswSource(OverlaidSource):
    """A context manager: inside of it, the disk images of the restore image are mounted.

    `announce` is told, in one sentence, of everything that is left behind.
    """

    cache_advice = "see whether `ipsw mount sys` of this image shows a folder System/Library/dyld"

    def __init__(
        self, image: Path, *, limits: Limits | None = None, announce: Callable[[str], None] | None = None
    ) -> None:
        self._image, self._limits = image.absolute(), limits
        self._firmware: Firmware = read_firmware(image)
        self._announce = announce or (lambda _: None)
        self._mounts: list[IpswMount] = []
        self._folder: Path | None = None
        self._lock = -1
        program = shutil.which(PROGRAM)
        if program is None:
            raise EnvironmentFailure(
                f"{image}: the program `{PROGRAM}` is not installed, which opens restore images",
                hint="install it (https://github.com/blacktop/ipsw), or mount the image and name its mount point",
            )
        self._program = program

    def host(self) -> str:
        """Return the products that the firmware is for, apart by spaces."""
        products = ""
        for product in self._firmware.products:
            if len(products) + len(product) < _LONGEST_HOST:
                products = f"{products} {product}".lstrip()
        return products

    def identity(self) -> Release:
        """See OverlaidSource. Raises IntegrityError if the manifest names another build."""
        release = super().identity()
        if self._firmware.build not in {"", release.build}:
            raise IntegrityError(
                f"{self.name}: its BuildManifest.plist is of {excerpt(self._firmware.build)}, and its system of"
                f" {release.build}",
                hint="download it again",
            )
        return release

    def caches(self, build: str = "") -> list[RemoteCache]:
        """See Source. Of several images of the OS cryptex, one without any cache is a problem."""
        caches = super().caches(build)
        for image in self._firmware.images:
            folders = self.discovery.cache_folders
            if image.volume == "sys" and image.device and not any(f.startswith(f"{image.place}/") for f in folders):
                self.problems.add(
                    f"{image}: holds no shared cache",
                    f"see whether `ipsw mount sys --device {image.device}` shows a folder System/Library/dyld",
                )
        return caches

    def __enter__(self) -> Self:
        folder = self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            self._lock = _locked(folder)
            self._sweep(folder.parent)
            unpacked = folder / _UNPACKED
            unpacked.mkdir()
            self._require_room(folder)
            parts, absent = {}, []
            for number, image in enumerate(self._firmware.images):
                # No name may be a part of another: the program finds what to detach by comparing substrings.
                target = folder / f"{image.volume}-{number:02}"
                with defer_interrupts():
                    mount = IpswMount(self._program, self._image, image, target, unpacked)
                    self._mounts.append(mount)
                if mount.wait():
                    parts[image.place] = mount.root
                else:
                    absent.append(image)
            if "/" not in parts:
                raise EnvironmentFailure(
                    f"{self._image}: `ipsw mount fs` finds no system volume: BuildManifest.plist names {absent[0]}",
                    hint="bring ipsw up to date, or mount the disk images by hand and harvest each mount point",
                )
            super().__init__(str(self._image), parts, limits=self._limits)
        except BaseException:
            self.close()
            raise
        for image in absent:
            self.problems.add(
                f"{image}: `ipsw mount {image.volume}` does not find it",
                "bring ipsw up to date, or mount it by hand and harvest that, too",
            )
        for cryptex in self._firmware.unknown:
            self.problems.add(
                f"{cryptex}: is a cryptex of this firmware that cannot be mounted", "harvest a Mac of this release, too"
            )
        return self

    def _sweep(self, parent: Path) -> None:
        """Remove what harvests that were killed have left; tell what is still mounted, and needs its disk image."""
        for folder in parent.glob(f"{_PREFIX}*"):
            try:
                if time.time() - folder.lstat().st_mtime < _YOUNG_SECONDS:
                    continue
                lock = _locked(folder)
            except OSError:
                continue  # in use, another user's, or gone
            try:
                mounted = [point for point in folder.glob("*-[0-9][0-9]") if not removed(point)]
                for point in mounted:
                    self._announce(
                        f"{point}: is mounted since a harvest that was killed: unmount it by `{UNMOUNT} {point}`, then"
                        f" remove {folder}"
                    )
                if not mounted:
                    _remove(folder)
            finally:
                os.close(lock)

    def _require_room(self, folder: Path) -> None:
        """Raise StorageError if not all disk images fit into the folder, unpacked."""
        free, need = shutil.disk_usage(folder).free, self._firmware.room + RESERVE
        if free < need:
            raise StorageError(
                f"{folder}: {free >> 20} MiB are free where {(need >> 20) + 1} MiB are needed, for the disk images of"
                f" {self._image} and a reserve of {RESERVE >> 20} MiB",
                hint="free some space, or name a folder on another disk as TMPDIR",
            )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount everything, last first. What is left behind is announced."""
        with defer_interrupts():
            left = []
            while self._mounts:
                left.append(self._mounts.pop().close())
            folder, self._folder = self._folder, None
            if folder is None:
                return
            for told in filter(None, left):
                self._announce(f"{told}, then remove {folder}")
            if not any(left):
                # What is mounted needs its disk image; and nothing may be removed inside of a volume.
                _remove(folder)
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def _locked(folder: Path) -> int:
    """Open a folder of this user's alone. Raises OSError, also if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path) -> None:
    """Remove the unpacked disk images, and the folder if nothing else is in it."""
    shutil.rmtree(folder / _UNPACKED, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
