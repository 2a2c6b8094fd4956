"""Recognizes what kind of source a file or folder is, by its layout."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from symcache.errors import StorageError, SymcacheError, UsageError
from symcache.model import BUILD_PATTERN
from symcache.text import excerpt
from symcache_provisioning.sources.bare_caches import BareCaches, folders_with_caches, has_main_files, is_cache_file
from symcache_provisioning.sources.developer_kits import (
    kernel_debug_kit,
    kernel_debug_kits,
    simulator_caches,
    simulator_runtime,
    simulator_runtimes,
)
from symcache_provisioning.sources.device_support import device_support, device_support_folders
from symcache_provisioning.sources.locations import BUILT_CACHES, CACHE_FOLDERS, OS_CRYPTEX, SYSTEM_VERSION_PLISTS
from symcache_provisioning.sources.part import PartSource

__all__ = ["Recognized", "recognize"]

_NAMED: tuple[tuple[Callable[[Path], list[Path]], Callable[[Path], PartSource]], ...] = (
    (device_support_folders, device_support),
    (simulator_runtimes, simulator_runtime),
    (kernel_debug_kits, kernel_debug_kit),
)
"""What folders of each kind there are in one, and what each of these holds."""


@dataclass
class Recognized:
    """What a folder holds: sources, and for those that cannot be used, why."""

    sources: list[PartSource] = field(default_factory=list)
    refused: list[SymcacheError] = field(default_factory=list)
    others: bool = False
    """Beside them, there may be files of any other kind."""


def recognize(path: Path, build: str | None = None) -> Recognized | None:
    """Return what `path` holds of what Apple's tools make; None for a whole system, and for what is none of these.

    `build` is what a user says of caches that say it nowhere. Raises UsageError where something else says it or it is
    none, FormatError for a part of a cache, and StorageError for what cannot be read.
    """
    if build and not re.fullmatch(BUILD_PATTERN, build):
        raise UsageError(
            f"--build {excerpt(build, 80)!r}: is no build: at most 64 letters, digits, dots, dashes and underscores",
            hint="name it as sw_vers does, e.g. 22G120",
        )
    try:
        return _recognize(path.resolve(), build)
    except OSError as error:
        raise _unreadable(path, error) from error


def _recognize(path: Path, build: str | None) -> Recognized | None:
    if path.is_file():
        return Recognized([BareCaches(path.parent, main=path.name, build=build)]) if is_cache_file(path) else None
    if not path.is_dir():
        return None
    if any((path / p.lstrip("/")).is_file() for p in SYSTEM_VERSION_PLISTS):
        return None
    for found, opener in _NAMED:
        if folders := found(path):
            if build:
                raise UsageError(f"{path}: says itself of which build it is", hint="leave --build out")
            return _open(folders, opener)
    places = [path / p.lstrip("/") for p in (*CACHE_FOLDERS, OS_CRYPTEX, BUILT_CACHES)]
    below, closed = folders_with_caches(path)
    folders = [f for f in below if f not in places]
    if has_main_files(path) or any(p.is_dir() for p in places):
        folders.insert(0, path)  # with what lies where a system has it
    caches: list[PartSource] = [simulator_caches(f, build) or BareCaches(f, build=build) for f in folders]
    return Recognized(caches, [_unreadable(*c) for c in closed], others=True) if caches else None


def _open(folders: Iterable[Path], opener: Callable[[Path], PartSource]) -> Recognized:
    found = Recognized()
    for folder in folders:
        try:
            found.sources.append(opener(folder))
        except SymcacheError as error:
            found.refused.append(error)
        except OSError as error:
            found.refused.append(_unreadable(folder, error))
    return found


def _unreadable(folder: Path, error: OSError) -> StorageError:
    inside = f" ({excerpt(str(error.filename))})" if error.filename and str(error.filename) != str(folder) else ""
    if isinstance(error, PermissionError):
        hint = f"get the right to read it: chmod -R u+rX {shlex.quote(str(folder))}, or as its owner"
    elif folder.is_symlink():
        hint = "attach the disk that the link leads to, or remove the link"
    else:
        hint = "check the disk that it lies on"
    return StorageError(f"{folder}: cannot be read: {error.strerror}{inside}: nothing of it was taken", hint=hint)
