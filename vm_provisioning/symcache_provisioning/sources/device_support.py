"""Xcode's device support: what it copies of a device's system when that is connected.

::

    iOS DeviceSupport/26.2 (23B87)/Symbols/System/…, usr/…       loose libraries, once it has taken the caches apart
    iOS DeviceSupport/15.0 (19A346) arm64e/Symbols/…             an architecture each, since Xcode 13
    iOS DeviceSupport/iPhone12,1 26.4.2 (23E261)/Symbols/…       a model each
    iOS DeviceSupport/26.2 (23B87)/arm64e/Symbols/…              since Xcode 27
    …/Symbols/System/Library/Caches/com.apple.dyld               where an older Xcode leaves the caches themselves, or
    …/Symbols/private/preboot/Cryptexes/OS/System/…

Xcode is through with it when it has written `.finalized` or, since 27, `.processed_dyld_shared_cache_ARCH`; older ones
wrote that beside the caches. `.copied_…` alone says that it was still at it.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from symcache.errors import IncompleteError, MachOError, NotFoundError
from symcache.macho import LC, PLATFORMS, identify, mach_header
from symcache.model import APPLE_BUILD, Release
from symcache_provisioning.extractors.dsc_extractor_bundle import BUNDLE
from symcache_provisioning.sources.part import PartSource

__all__ = ["device_support", "device_support_folders"]

_PARENT = re.compile(r"([A-Za-z]{1,32}) DeviceSupport")
_VERSION = r"[0-9]{1,4}(?:\.[0-9]{1,6}){0,3}"
_NAME = re.compile(
    rf"(?:(?P<model>[A-Za-z]{{1,32}}[0-9]{{1,4}},[0-9]{{1,4}}) )?(?P<version>{_VERSION})(?: (?P<extra>\([a-z]\)))?"
    rf"(?: \((?P<build>{APPLE_BUILD})\))?(?: (?P<arch>[A-Za-z0-9_.]{{1,16}}))?"
)
_PRODUCTS = {
    "iPhone": "iOS", "iPad": "iOS", "iPod": "iOS", "Watch": "watchOS", "AppleTV": "tvOS", "RealityDevice": "visionOS",
}  # fmt: skip
"""By the model of device."""
_SYMBOLS = "Symbols"
_ARCH = re.compile(r"(arm|i386|x86)[A-Za-z0-9_.]{0,12}")
_FINALIZED = ".finalized"
_PROCESSED = ".processed_dyld_shared_cache_"
_COPIED = ".copied_dyld_shared_cache_"
_CACHES = ("System/Library/Caches/com.apple.dyld", "private/preboot/Cryptexes/OS/System/Library/Caches/com.apple.dyld")
_LACKS = "only the libraries of its shared caches are in there, and no other file of the system"
_COMMANDS = 32 << 10
_SAMPLE = 200
"""Files that are looked at for their platform."""
_MINIMUM_VERSIONS = {
    LC.VERSION_MIN_MACOSX: 1, LC.VERSION_MIN_IPHONEOS: 2, LC.VERSION_MIN_TVOS: 3, LC.VERSION_MIN_WATCHOS: 4,
}  # fmt: skip
"""Load commands that took the place of LC_BUILD_VERSION in older systems, and the platform that each means."""


def device_support_folders(path: Path) -> list[Path]:
    """Return the folders of single systems in `path`: itself, those of one product, or of all products.

    Where each architecture has a folder of its own, it is that one; beside these, what an older Xcode left.
    """
    path = path.absolute()
    if _PARENT.fullmatch(path.name):
        systems = [f for f in _folders(path) if _NAME.fullmatch(f.name) or _has_symbols(f)]
    elif _PARENT.fullmatch(path.parent.name) or (_NAME.fullmatch(path.name) and _has_symbols(path)):
        systems = [path]
    elif _ARCH.fullmatch(path.name) and _NAME.fullmatch(path.parent.name) and _is_folder(path / _SYMBOLS):
        return [path]
    else:
        inner = _folders(path)
        products = [f for f in inner if _PARENT.fullmatch(f.name)]
        if products:
            return [f for product in products for f in _systems_of(product)]
        systems = [f for f in inner if (named := _NAME.fullmatch(f.name)) and named["build"] and _has_symbols(f)]
    return [f for system in systems for f in _parts(system)]


def _systems_of(product: Path) -> list[Path]:
    """Return the folders of systems of one product; itself, if that cannot be read: `device_support` says so."""
    try:
        return device_support_folders(product)
    except OSError:
        return [product]


def device_support(folder: Path) -> PartSource:
    """Return one of these folders as a source.

    Raises NotFoundError when there is nothing in it, IncompleteError when Xcode was not through with it, OSError when
    it cannot be read.
    """
    os.scandir(folder).close()
    symbols = folder / _SYMBOLS
    if not symbols.is_dir():
        raise NotFoundError(
            f"{folder}: has no folder {_SYMBOLS}: at most a disk image for developers is what Xcode has of that system",
            hint="connect the device, let Xcode prepare it, and come again",
        )
    named = _NAME.fullmatch(folder.name)
    arch = ""
    if named is None and (named := _NAME.fullmatch(folder.parent.name)):
        arch = folder.name
    if not _finished(folder, arch):
        raise IncompleteError(
            f"{folder}: Xcode was not through with it: neither {_FINALIZED} nor {_PROCESSED}{arch or '…'} is there,"
            " and nothing of it was taken",
            hint="let Xcode finish with the device, or have what is there as own files:"
            f" symcache add {shlex.quote(str(symbols))}",
        )
    model = (named["model"] or "") if named else ""
    release = None
    if named and named["build"]:
        product = _product(folder.parent.parent if arch else folder.parent, symbols, model)
        release = Release(product=product, version=named["version"], extra=named["extra"] or "", build=named["build"])
    return PartSource(
        folder,
        symbols,
        release,
        what="device support of Xcode's",
        lacks=_LACKS,
        host=model,
        extracted_by=BUNDLE,
    )


def _has_symbols(folder: Path) -> bool:
    return _is_folder(folder / _SYMBOLS) or bool(_architectures(folder))


def _is_folder(path: Path) -> bool:
    """Return whether it is a folder, as far as one can see: `device_support` says what cannot be read."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _parts(system: Path) -> list[Path]:
    architectures = _architectures(system)
    return [system, *architectures] if _is_folder(system / _SYMBOLS) else architectures or [system]


def _architectures(system: Path) -> list[Path]:
    try:
        return [f for f in _folders(system) if _ARCH.fullmatch(f.name) and _is_folder(f / _SYMBOLS)]
    except OSError:
        return []


def _finished(folder: Path, arch: str) -> bool:
    """Return whether Xcode is through with a folder, which is one of several if it is of one architecture."""
    symbols = folder / _SYMBOLS
    names = {
        file.name for f in (folder, symbols, *(symbols / p for p in _CACHES)) if f.is_dir() for file in f.iterdir()
    }
    # In a folder that both used, Xcode 26 marks its `Symbols` with the one, and 27 an architecture with the other.
    if arch:
        marks = {_PROCESSED + arch} if _is_folder(folder.parent / _SYMBOLS) else {_PROCESSED + arch, _FINALIZED}
        names |= {f.name for f in folder.parent.iterdir() if f.name in marks}
    else:
        names -= {_PROCESSED + f.name for f in _architectures(folder)}
    processed = {name.removeprefix(_PROCESSED) for name in names if name.startswith(_PROCESSED)}
    copied = {name.removeprefix(_COPIED) for name in names if name.startswith(_COPIED)}
    return _FINALIZED in names or bool(processed and copied <= processed)


def _product(parent: Path, symbols: Path, model: str) -> str:
    """Return the product: by the folder that all of its systems lie in, else by the model, else by its libraries."""
    if named := _PARENT.fullmatch(parent.name):
        return named[1]
    if product := _PRODUCTS.get(model.rstrip("0123456789,")):
        return product
    platforms = (_platform(file) for file in itertools.islice(_files(symbols), _SAMPLE))
    return PLATFORMS.get(next(filter(None, platforms), 0), "unknown system")


def _platform(file: Path) -> int:
    """Return the platform that a Mach-O file is of, or 0."""
    try:
        slices = identify(file)
        if not slices:
            return 0
        with file.open("rb") as opened:
            opened.seek(slices[0].offset)
            head = opened.read(_COMMANDS)
        header = mach_header(head)
        for command in header.load_commands(head) if header else ():
            if command.cmd == LC.BUILD_VERSION and command.cmdsize >= 24:
                return int(command.structs.lc_str.unpack_from(command.data, 8)[0])
            if command.cmd in _MINIMUM_VERSIONS:
                return _MINIMUM_VERSIONS[LC(command.cmd)]
    except (MachOError, OSError):
        pass
    return 0


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(folder) / n for n in sorted(names) if not (Path(folder) / n).is_symlink())


def _folders(path: Path) -> list[Path]:
    """Return the folders in one, by name, each once: links to folders count, as people move large ones to other disks.

    So does a link that leads nowhere now: `device_support` says it.
    """
    found: dict[str, Path] = {}
    for entry in sorted(path.iterdir(), key=lambda e: (e.is_symlink(), e.name)):
        if _is_folder(entry) or (entry.is_symlink() and not entry.exists()):
            found.setdefault(os.path.realpath(entry), entry)
    return sorted(found.values())
