"""A collection of kernel and kernel extensions, put together from the structs of <mach-o/loader.h>."""

from __future__ import annotations

import struct
from uuid import UUID

__all__ = ["COLLECTION", "ENTRIES", "kernel_collection"]

COLLECTION = UUID("C0113C70-0000-3000-8000-000000000001")
ENTRIES = {
    "com.apple.kernel": UUID("C0113C70-0000-3000-8000-00000000000A"),
    "com.apple.driver.AppleACPIPlatform": UUID("C0113C70-0000-3000-8000-00000000000B"),
}
_PAGE = 0x1000
_ARM64E = (0x0100_000C, 2)
_MH_EXECUTE, _MH_KEXT_BUNDLE, _MH_FILESET = 2, 11, 12


def _header(filetype: int, commands: list[bytes]) -> bytes:
    body = b"".join(commands)
    return struct.pack("<IIIIIIII", 0xFEEDFACF, *_ARM64E, filetype, len(commands), len(body), 0, 0) + body


def _uuid(uuid: UUID) -> bytes:
    return struct.pack("<II16s", 0x1B, 24, uuid.bytes)


def _segment(name: str, address: int, offset: int) -> bytes:
    numbers = (address, _PAGE, offset, _PAGE, 5, 5, 0, 0)
    return struct.pack("<II16sQQQQIIII", 0x19, 72, name.encode(), *numbers)


def _entry(name: str, address: int, offset: int) -> bytes:
    text = name.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return struct.pack("<IIQQII", 0x8000_0035, 32 + len(text), address, offset, 32, 0) + text


def kernel_collection(entries: dict[str, UUID] | None = None) -> bytes:
    """Return one: a page for its header, and one for each image in it."""
    entries = ENTRIES if entries is None else entries
    base, pages, commands = 0xFFFFFE00_07004000, [], [_uuid(COLLECTION), _segment("__TEXT", 0xFFFFFE00_07004000, 0)]
    room = -(-(32 + 24 + 72 + sum(40 + len(n) + 8 for n in entries)) // _PAGE)
    for number, (name, uuid) in enumerate(entries.items()):
        offset = (room + number) * _PAGE
        filetype = _MH_EXECUTE if name == "com.apple.kernel" else _MH_KEXT_BUNDLE
        page = _header(filetype, [_uuid(uuid), _segment("__TEXT", base + offset, offset)])
        pages.append(page.ljust(_PAGE, b"\0"))
        commands.append(_entry(name, base + offset, offset))
    return _header(_MH_FILESET, commands).ljust(room * _PAGE, b"\0") + b"".join(pages)
