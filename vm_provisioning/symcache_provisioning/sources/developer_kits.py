"""What Apple gives to developers beside the systems themselves: simulator runtimes, and kernels with their debug info.

::

    /Library/Developer/CoreSimulator/Volumes/iOS_23B86/Library/Developer/CoreSimulator/Profiles/Runtimes/
        iOS 26.1.simruntime/Contents/Resources/RuntimeRoot/System/…   a whole system of the simulator
    /Library/Developer/CoreSimulator/Caches/dyld/25A354/
        com.apple.CoreSimulator.SimRuntime.iOS-17-0.21A328/           its caches, where they are built on the Mac
    /Library/Developer/KDKs/KDK_14.2_23C64.kdk/System/Library/{Kernels,Extensions}
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from symcache.errors import NotFoundError, RemoteError
from symcache.model import APPLE_BUILD, SIMULATOR, Release, canonical_product
from symcache_provisioning.sources.bare_caches import BareCaches
from symcache_provisioning.sources.locations import SYSTEM_VERSION
from symcache_provisioning.sources.part import PartSource
from symcache_provisioning.sources.release import parse_system_version

__all__ = ["kernel_debug_kit", "kernel_debug_kits", "simulator_caches", "simulator_runtime", "simulator_runtimes"]

_KIT = re.compile(rf"KDK_([0-9]{{1,4}}(?:\.[0-9]{{1,6}}){{0,3}})_({APPLE_BUILD})\.kdk")
_RUNTIMES = "Library/Developer/CoreSimulator/Profiles/Runtimes"
_RUNTIME = ".simruntime"
_RUNTIME_ROOT = "Contents/Resources/RuntimeRoot"
_RUNTIME_NAME = re.compile(r"([A-Za-z]{1,32}) ([0-9]{1,4}(?:\.[0-9]{1,6}){0,3})\.simruntime")
_VOLUME = re.compile(rf"[A-Za-z]{{1,32}}_({APPLE_BUILD})")
_BUILT = re.compile(
    rf"com\.apple\.CoreSimulator\.SimRuntime\.([A-Za-z]{{1,32}})-([0-9]{{1,4}}(?:-[0-9]{{1,6}}){{0,3}})\.({APPLE_BUILD})"
)
"""What CoreSimulator calls the folder of caches that it builds: the runtime's identifier, and its build."""
_PLIST_LIMIT = 64 << 10


def simulator_runtimes(path: Path) -> list[Path]:
    """Return the runtimes in `path`: itself, those of a folder or volume, or of a folder of volumes.

    Beside them, folders of such that cannot be read: whoever opens these is told.
    """
    if path.name.endswith(_RUNTIME) and path.is_dir():
        return [path]
    volumes = sorted(path.iterdir()) if path.is_dir() else []
    found = [*_named(path, _RUNTIME), *_named(path / _RUNTIMES, _RUNTIME)]
    for volume in volumes:
        inside = _named(volume / _RUNTIMES, _RUNTIME)
        # Other folders that cannot be read do not matter here.
        found += [p for p in inside if p.name.endswith(_RUNTIME) or _VOLUME.fullmatch(volume.name)]
    return sorted(found)


def _named(folder: Path, ending: str) -> list[Path]:
    """Return the folders in one whose names end so, or itself if it is there and cannot be read."""
    try:
        return [p for p in folder.iterdir() if p.name.endswith(ending) and p.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [folder]


def simulator_runtime(folder: Path) -> PartSource:
    """Return a runtime as a source: a whole system. Raises NotFoundError, OSError when it cannot be read."""
    os.scandir(folder).close()
    root = folder / _RUNTIME_ROOT
    if not root.is_dir():
        raise NotFoundError(
            f"{folder}: is a simulator runtime without {_RUNTIME_ROOT}",
            hint="attach its disk image, or download it again",
        )
    return PartSource(folder, root, _runtime_release(folder, root), what="simulator runtime")


def _runtime_release(folder: Path, root: Path) -> Release | None:
    """Return the release that its SystemVersion.plist names, else what folder and volume are called."""
    plist = root / SYSTEM_VERSION
    if plist.is_file():
        with plist.open("rb") as file:
            data = file.read(_PLIST_LIMIT)
        try:
            told = parse_system_version(data, str(plist))
            product = canonical_product(told.product) + SIMULATOR
            return told.model_copy(update={"product": product})
        except RemoteError:
            pass  # its folders' names tell, too
    named = _RUNTIME_NAME.fullmatch(folder.name)
    volume = next((m for p in folder.absolute().parents if (m := _VOLUME.fullmatch(p.name))), None)
    if named is None or volume is None:
        return None
    return Release(product=named[1] + SIMULATOR, version=named[2], build=volume[1])


def simulator_caches(folder: Path, build: str | None = None) -> BareCaches | None:
    """Return a folder of caches that CoreSimulator built as a source; None for any other."""
    named = _BUILT.fullmatch(folder.name)
    if named is None:
        return None
    return BareCaches(folder, build=build or named[3], product=named[1] + SIMULATOR)


def kernel_debug_kits(path: Path) -> list[Path]:
    """Return the kits in `path`: itself, or those in it."""
    if path.name.endswith(".kdk"):
        return [path]
    return sorted(_named(path, ".kdk"))


def kernel_debug_kit(folder: Path) -> PartSource:
    """Return a kit as a source. Raises OSError when it cannot be read."""
    os.scandir(folder).close()
    named = _KIT.fullmatch(folder.name)
    return PartSource(
        folder,
        folder,
        Release(version=named[1], build=named[2]) if named else None,
        what="kernel debug kit",
        lacks="only kernels and kernel extensions are in there, with their debug info",
    )
