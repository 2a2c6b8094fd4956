"""The exports trie of an image: where it is, where it goes, and the symbols that it re-exports one by one.

Source: linkedit_data_command, dyld_info_command, EXPORT_SYMBOL_FLAGS.REEXPORT (<mach-o/loader.h>).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from symcache.dyld.mach_image import MachImage
from symcache.dyld.trie import uleb, walk
from symcache.macho import LC

__all__ = ["may_reexport", "place_exports", "read_exports", "single_reexports"]

_REEXPORT, _KIND = 0x08, 0x03
_MAX_SEARCHED = 1 << 29
"""Bytes to search for edges to what could be re-exports; instead of more, a walk tells sooner."""
_MAX_AT_ONCE = 16 << 20
"""Bytes of a trie whose places are looked at together, which takes up to forty times as many; real ones are smaller."""
_DYLIB_COMMANDS = {LC.LOAD_DYLIB, LC.LOAD_WEAK_DYLIB, LC.REEXPORT_DYLIB, LC.LOAD_UPWARD_DYLIB}
"""Those that dyld counts for ordinals."""


def read_exports(image: MachImage, view: Callable[[int, int, str], memoryview]) -> bytes:
    """Return the exports trie, from its own command or from LC_DYLD_INFO; `view`: as `LinkeditSource.view`."""
    command = image.find(LC.DYLD_EXPORTS_TRIE)
    if command and (own := command.linkedit_data()) and own.datasize:
        return bytes(view(*own, "exports trie"))
    command = image.find(LC.DYLD_INFO, LC.DYLD_INFO_ONLY)
    if command and (info := command.dyld_info()) and info.export_size:
        return bytes(view(info.export_off, info.export_size, "exports trie"))
    return b""


def place_exports(image: MachImage, exports: bytes, append: Callable[[bytes], int]) -> None:
    """Carry the exports trie over, under one command only: LLDB stops at a file that has both."""
    place = (append(exports) if exports else 0, len(exports))
    if own := image.find(LC.DYLD_EXPORTS_TRIE):
        image.header.structs.linkedit_data.pack_into(image.data, own.body, *place)
        place = (0, 0)
    if info := image.find(LC.DYLD_INFO, LC.DYLD_INFO_ONLY):
        # Rebase, bind, weak and lazy opcodes were applied when the cache was built.
        image.header.structs.dyld_info.pack_into(image.data, info.body, *[0] * 8, *place)


def single_reexports(
    image: MachImage, exports: bytes
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], bytes] | None:
    """Return (name offsets, target-name offsets, text) of the individually re-exported symbols, or None.

    Whole re-exported dylibs (LC_REEXPORT_DYLIB) are not meant: their symbols are found through the command. Nor are
    thread-local and absolute symbols, for which Apple's extractor makes none either.
    """
    if not may_reexport(exports):
        return None
    dylibs = [c.cmd for c in image.commands if c.cmd in _DYLIB_COMMANDS]
    what = f"{image.what}: exports trie"
    names: list[int] = []
    targets: list[int] = []
    text = bytearray()
    for name, payload in walk(exports, what):
        flags, position = uleb(payload, 0, what)
        if flags & (_REEXPORT | _KIND) != _REEXPORT:
            continue
        ordinal, position = uleb(payload, position, what)
        if 0 < ordinal <= len(dylibs) and dylibs[ordinal - 1] == LC.REEXPORT_DYLIB:
            continue
        imported = payload[position:].partition(b"\0")[0] or name
        names.append(len(text))
        text += name + b"\0"
        targets.append(len(text))
        text += imported + b"\0"
    if not names:
        return None
    return np.array(names, np.uint32), np.array(targets, np.uint32), bytes(text)


def may_reexport(trie: bytes) -> bool:
    """Return False when no terminal of the trie can be a re-export, without walking its names.

    Such a terminal is a size, a flags byte with bit 3 set, an ordinal and a text that ends in NUL with the payload.
    All places that could be one are looked at together, so that a walk is needed for few images.
    """
    data = np.frombuffer(trie, np.uint8)
    if len(data) < 4:
        return False
    if len(data) > _MAX_AT_ONCE:
        return True
    searched = 0
    for size_bytes in (1, 2):
        flags_at = np.flatnonzero(data[size_bytes:] & 0xF8 == _REEXPORT) + size_bytes
        size = data[flags_at - size_bytes].astype(np.int64)
        if size_bytes == 2:
            long = (size >= 0x80) & (data[flags_at - 1] < 0x80)
            flags_at, size = flags_at[long], size[long] & 0x7F | data[flags_at[long] - 1].astype(np.int64) << 7
        last = flags_at + size - 1
        fits = (size >= 3) & (last < len(data))
        flags_at, last = flags_at[fits], last[fits]
        ends = data[last] == 0
        # Behind flags and ordinal (one byte, rarely two) such a payload is a name, and some edge leads to its node.
        for flags, end in zip(flags_at[ends].tolist(), last[ends].tolist(), strict=True):
            if b"\0" not in trie[flags + 3 : end]:
                searched += len(trie)
                if searched > _MAX_SEARCHED or _has_edge_to(trie, flags - size_bytes):
                    return True
    return False


def _has_edge_to(trie: bytes, node: int) -> bool:
    """Return whether an edge, which ends in NUL, is followed by the offset of this node; it may be padded."""
    offset = bytearray()
    while True:
        offset.append(node & 0x7F)
        node >>= 7
        if not node:
            break
        offset[-1] |= 0x80
    padded = offset[:-1] + bytes([offset[-1] | 0x80])
    return b"\0" + offset in trie or b"\0" + padded in trie
