"""Source files of own binaries in the local cache, by the binary's UUID and the path that the compiler recorded.

A source file is a blob as binaries are, indexed under the key `source-<sha256 of the path>`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from symcache.client.local_cache import IndexEntry, LocalCache
from symcache.files import atomic_write
from symcache.images import SourceRequest

__all__ = ["find_source", "is_source_path", "write_source"]

_MAX_PATH = 4096


def is_source_path(path: str) -> bool:
    """Return whether a path out of debug info can be requested."""
    return path.startswith("/") and len(path) <= _MAX_PATH and path.isprintable() and not path.endswith("/")


def find_source(cache: LocalCache, request: SourceRequest) -> Path | None:
    """Return the cached file, or None. No server is contacted."""
    entry = cache.entry(request.uuid, _key(request))
    return cache.blob(entry.sha256) if entry else None


def write_source(cache: LocalCache, request: SourceRequest, data: bytes, server: str) -> Path:
    """Store a source file and return its path. Raises StorageError."""
    entry = IndexEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data), server=server)
    blob = cache.blob(entry.sha256)
    try:
        blob.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(blob, mode=0o444) as part:
            part.write_bytes(data)
        cache.write_entry(request.uuid, _key(request), entry)
    except OSError as error:
        raise cache.refusal(error) from error
    return blob


def _key(request: SourceRequest) -> str:
    return f"source-{hashlib.sha256(request.path.encode()).hexdigest()}"
