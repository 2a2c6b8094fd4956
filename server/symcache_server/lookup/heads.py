"""The first bytes of stored images, read without decoding the rest."""

from __future__ import annotations

import zstandard

from symcache.errors import NotFoundError
from symcache.library import Library

__all__ = ["read_head"]


def read_head(library: Library, sha256: str, size: int) -> bytes:
    """Return the first `size` bytes of a content, or fewer; an empty string if it is lost or damaged.

    They are not checked against the hash: `fsck` does that, and so does sending the content.
    """
    try:
        with library.open_stored(sha256) as stored:
            return zstandard.ZstdDecompressor().stream_reader(stored).read(size)
    except (NotFoundError, zstandard.ZstdError):
        return b""
