"""The first bytes of stored images, read without decoding the rest."""

from __future__ import annotations

import zstandard

from symcache.errors import NotFoundError
from symcache.library import Library

__all__ = ["read_head"]


def read_head(library: Library, sha256: str, size: int) -> bytes:
    """Return up to `size` bytes that a content begins with; none of one that is lost or damaged.

    Nothing is proven of them: whoever verifies the library, or sends the content, finds what is wrong.
    """
    try:
        with library.open_stored(sha256) as stored:
            return zstandard.ZstdDecompressor().stream_reader(stored).read(size)
    except (NotFoundError, zstandard.ZstdError):
        return b""
