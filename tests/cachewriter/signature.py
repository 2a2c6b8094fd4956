"""An ad-hoc code signature over a cache file: SuperBlob with one CodeDirectory (<kern/cs_blobs.h>)."""

from __future__ import annotations

import hashlib
import struct
from typing import overload

_IDENTIFIER = b"dyld_shared_cache\0"
_PAGE_SHIFT = 14


@overload
def code_signature(content: int) -> int: ...
@overload
def code_signature(content: bytes, page: int) -> bytes: ...
def code_signature(content: int | bytes, page: int = 0) -> int | bytes:
    """The signature of a file's content; or, for the size of a content, the size of its signature."""
    length = content if isinstance(content, int) else len(content)
    slots = (length + (1 << _PAGE_SHIFT) - 1) >> _PAGE_SHIFT
    directory_size = 44 + len(_IDENTIFIER) + 32 * slots
    total = 20 + directory_size
    if isinstance(content, int):
        return total
    hashes = b"".join(hashlib.sha256(content[i << _PAGE_SHIFT : (i + 1) << _PAGE_SHIFT]).digest() for i in range(slots))
    # version 0x20001 without scatter: hashOffset, identOffset, special slots, code slots, limit, hash size and type.
    directory = struct.pack(
        ">IIIIIIIIIBBBBI",
        0xFADE0C02, directory_size, 0x20001, 0x2, 44 + len(_IDENTIFIER), 44, 0, slots, length,
        32, 2, 0, _PAGE_SHIFT, 0,
    ) + _IDENTIFIER + hashes  # fmt: skip
    return struct.pack(">IIIII", 0xFADE0CC0, total, 1, 0, 20) + directory
