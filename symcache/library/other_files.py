"""What a file is that holds nothing to add, for the message: people name shared caches, archives and ELF files."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["instead"]

_UDIF_TRAILER = 512
"""Bytes at the end of a disk image, which begin with `koly`."""
_HEAD = 16
_PAYLOAD = b"\x16\x04IM4P"
"""Of an Image4: DER, in which this string follows behind the length of the whole."""
_MARKS = {
    b"dyld_v1": "a file of a shared cache",
    b"AEA1": "an encrypted archive of Apple's; decrypt it first",
    b"AA01": "an archive of Apple's; unpack it first",
    b"YAA1": "an archive of Apple's; unpack it first",
    b"pbzx": "a packed archive of Apple's; unpack it first",
    b"xar!": "an installer package; unpack it first",
    b"!<arch>\n": "a static library, whose objects have no UUIDs",
    b"\x7fELF": "an ELF file",
    b"MZ": "a program for Windows",
    b"BC\xc0\xde": "LLVM bitcode",
    b"bplist00": "a property list",
}
"""By their first bytes."""
_MOST_FILES = 1000


def instead(path: Path) -> str:
    """Return how `no Mach-O found` goes on: `: it is a property list`, ` among its 12 files`; empty if not known."""
    if path.is_file():
        kind = _kind(path)
        return f": it is {kind}" if kind else ""
    seen = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            seen += 1
            if seen > _MOST_FILES:
                return f" among more than {_MOST_FILES} files"
            if not file.is_symlink() and file.is_file() and (kind := _kind(file)):
                return f": it holds {file.relative_to(path)}, which is {kind}"
    return f" among its {seen} files"


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _UDIF_TRAILER))
            end = file.read(4)
    except OSError:
        return "not readable"
    if path.suffix == ".ipsw":
        return "a restore image, which `symcache harvest` takes"
    if end == b"koly":
        return "a disk image; attach it and name what lies in it"
    if _PAYLOAD in head:
        return "an Image4 payload, such as a kernel cache; unpack it first (`ipsw img4 im4p extract`)"
    return next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), "")
