"""The code signature of a Mach-O file, as bytes."""

from __future__ import annotations

from pathlib import Path

from symcache.errors import MachOError
from symcache.macho import identify
from tests.dyld.macho_reader import read

__all__ = ["signature_of"]

_LC_CODE_SIGNATURE = 0x1D
_LARGEST = 64 << 20


def signature_of(program: Path) -> bytes:
    """Return the signature of a file's first slice; empty for one that is no Mach-O, too large, or not signed."""
    try:
        if program.stat().st_size > _LARGEST:
            return b""
        image = identify(program)[0]
        data = program.read_bytes()[image.offset : image.offset + image.size]
        return read(data).payload(_LC_CODE_SIGNATURE)
    except (MachOError, OSError, AssertionError, IndexError):
        return b""
