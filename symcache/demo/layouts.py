"""How macOS lays itself out on disk, from 10.13 to 27: caches, links, and what is closed to its users.

Nothing here is about what a harvest looks for: that is found by rule. Known from listings of Macs, from dyld's and
CoreSymbolication's lists of paths, and from /usr/share/firmlinks of macOS 11.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAYOUTS", "PREBOOT", "Cache", "Layout", "furnish", "protected_folders"]

PREBOOT = "System/Volumes/Preboot/Cryptexes"
"""Where cryptexes are grafted, since 13."""
_DYLD = "System/Library/dyld"
_OS, _ROSETTA, _EXCLAVES = f"{PREBOOT}/OS", f"{PREBOOT}/Rosetta", f"{PREBOOT}/ExclaveOS"
_TEMPLATE = "System/Library/Templates/Data"

_STUB = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 2, 0, 0, 0, 0)
"""mach_header_64 of a program of arm64 without load commands."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One shared cache: the folder that it lies in, and what it is one of."""

    folder: str
    arch: str
    """As its file is called."""
    family: str = "system"


@dataclass(frozen=True, slots=True)
class Layout:
    """A macOS, and the Mac that it runs on."""

    version: str
    build: str
    model: str
    caches: tuple[Cache, ...]

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(map(int, self.version.split(".")))

    @property
    def product(self) -> str:
        """What it calls itself."""
        return "Mac OS X" if self.number < (11,) else "macOS"


def _system(folder: str, *archs: str) -> tuple[Cache, ...]:
    return tuple(Cache(f"{folder}{_DYLD}", arch) for arch in archs)


_DRIVERKIT = Cache(f"{_OS}/System/DriverKit/{_DYLD}", "arm64e", "driverkit")
_EXCLAVEKIT = Cache(f"{_EXCLAVES}/System/ExclaveKit/{_DYLD}", "arm64e", "exclavekit")
_ROSETTA_CACHES = (
    *_system(f"{_ROSETTA}/", "x86_64"),
    Cache(f"{_ROSETTA}/System/x86Support/{_DYLD}", "x86_64", "x86support"),
)
_APPLE = (*_system(f"{_OS}/", "arm64e", "x86_64"), _DRIVERKIT)

LAYOUTS = {
    # Until 10.15 caches are built on each Mac, and those of one that did not build any are as good.
    "10.13": Layout(
        "10.13.6",
        "17G14042",
        "MacBookPro11,4",
        (Cache("private/var/db/dyld", "x86_64h"), Cache("private/var/db/dyld", "i386")),
    ),
    "10.14": Layout("10.14.6", "18G9323", "Macmini8,1", (Cache("private/var/db/dyld", "x86_64"),)),
    "10.15": Layout("10.15.7", "19H15", "iMac19,1", ()),
    "11": Layout("11.7.10", "20G1427", "Macmini9,1", _system("", "arm64e", "x86_64", "x86_64h")),
    "12": Layout(
        "12.7.6",
        "21H1320",
        "VirtualMac2,1",
        (
            *_system("", "arm64e", "x86_64", "x86_64h"),
            Cache(f"System/DriverKit/{_DYLD}", "arm64e", "driverkit"),
        ),
    ),
    "13": Layout("13.6.9", "22G830", "VirtualMac2,1", _APPLE),
    "13 Intel": Layout("13.6.9", "22G830", "iMac20,1", _system(f"{_OS}/", "x86_64h")),
    "14": Layout("14.6.1", "23G93", "Mac14,8", (*_APPLE, _EXCLAVEKIT)),
    "15": Layout("15.6.1", "24G90", "Mac16,10", _APPLE),
    "26": Layout("26.5", "25F71", "Mac15,12", _APPLE),
    "26 Intel": Layout("26.5", "25F71", "MacPro7,1", _system(f"{_OS}/", "x86_64h")),
    "27": Layout("27.0", "26A428", "Mac14,12", (*_system(f"{_OS}/", "arm64e"), _DRIVERKIT, *_ROSETTA_CACHES)),
    "27 M6": Layout("27.0", "26A428", "Mac18,5", (*_system(f"{_OS}/", "arm64e_x1"), *_ROSETTA_CACHES)),
    "27 VM": Layout("27.0", "26A428", "VirtualMac2,1", _system(f"{_OS}/", "arm64e")),
}
"""By a name that begins with the major version."""

_PRIVATE = ("etc", "tmp", "var")
_FIRMLINKS = ("Applications", "Library", "Users", "Volumes", "private", "usr/local", "usr/libexec/cups")
"""Folders of the Data volume which are seen in the system's, since 10.15."""
_SUDO, _SUDO_MODE = "usr/bin/sudo", 0o4511
"""A program that root alone may read."""
_CLOSED = ("System/Library/DirectoryServices/DefaultLocalDB/Default", "private/var/root", "private/var/db/sudo")
_CLOSED_IN_TEMPLATE = (
    "Library/Application Support/Apple/ParentalControls/Users",
    "private/var/db/dslocal/nodes/Default",
    "private/var/root",
)
"""Folders that only their owner, one of the system's accounts, may enter."""
_PROTECTED = ("Library/Application Support/com.apple.TCC", "private/var/db/oah")
"""Folders of the template that macOS keeps from root, too (EPERM), with the modes that they have."""


def protected_folders(layout: Layout) -> list[str]:
    """Return the folders that nobody may list, though their mode says otherwise."""
    return [f"{_TEMPLATE}/{name}" for name in _PROTECTED] if layout.number >= (10, 15) else []


def furnish(root: Path, layout: Layout) -> None:
    """Lay the folder `root`, with whatever it holds already, out as this macOS does: folders, links and modes.

    Firmlinks are links here, from the Data volume to the system's, whose folders are real ones, as they seem to be on a
    Mac. What is closed is closed by its mode alone: `protected_folders` are left to whoever serves the folder.
    """
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    for name in ("Applications", "Library", "Users", "Volumes", *(f"private/{n}" for n in _PRIVATE), "usr/local/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "private/tmp").chmod(0o1777)
    for name in _PRIVATE:
        _link(root / name, f"private/{name}")
    _link(root / "Volumes/Macintosh HD", "/")
    (root / _SUDO).parent.mkdir(parents=True, exist_ok=True)
    (root / _SUDO).write_bytes(_STUB)
    (root / _SUDO).chmod(_SUDO_MODE)
    closed = [*_CLOSED]
    if layout.number < (10, 15):
        closed.append("System/Library/User Template")
    else:
        closed += [f"{_TEMPLATE}/{name}" for name in _CLOSED_IN_TEMPLATE]
        _data_volume(root)
    for name in protected_folders(layout):
        (root / name).mkdir(parents=True, exist_ok=True)
    if layout.number >= (13,):
        _cryptexes(root, layout)
    for name in closed:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o700)


def _data_volume(root: Path) -> None:
    for name in _FIRMLINKS:
        (root / name).mkdir(parents=True, exist_ok=True)
        link = root / "System/Volumes/Data" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        _link(link, "/".join([".."] * (3 + name.count("/")) + [name]))
    for volume in ("Preboot", "VM", "Update"):
        (root / "System/Volumes" / volume).mkdir(exist_ok=True)


def _cryptexes(root: Path, layout: Layout) -> None:
    """Link to every cryptex there is, and to one that few Macs have; the images that they come of lie beside."""
    images = root / "System/Volumes/Preboot/5F8A7E42-3E1B-4222-8333-00C0FFEE0001/cryptex1/current"
    images.mkdir(parents=True, exist_ok=True)
    for name in ("os.dmg", "os.clone.dmg", "app.dmg"):
        (images / name).touch()
    (root / "System/Cryptexes").mkdir(parents=True, exist_ok=True)
    (root / PREBOOT / "App/System/Applications").mkdir(parents=True, exist_ok=True)
    present = {path.name for path in (root / PREBOOT).iterdir()} - {"Incoming"}
    for name in present | ({"ExclaveOS"} if layout.number >= (14, 4) else set()):
        _link(root / "System/Cryptexes" / name, f"../../{PREBOOT}/{name}")


def _link(path: Path, target: str) -> None:
    if not path.is_symlink():
        path.symlink_to(target)
