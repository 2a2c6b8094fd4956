"""A store by its location."""

from __future__ import annotations

from pathlib import Path

from symcache.errors import StorageError, UsageError
from symcache.store.base import Store
from symcache.store.local import LocalStore
from symcache.store.outage import PATIENCE

__all__ = ["open_store"]


def open_store(location: str, *, create: bool = False, patience: float = PATIENCE) -> Store:
    """Return the store at `location`: a folder, or `s3://bucket/prefix`. Raises StorageError or UsageError.

    `patience`: seconds that each of its methods waits for a store that is away.
    """
    if location.startswith("s3://"):
        from symcache.store.s3 import S3Store  # noqa: PLC0415 - an optional dependency

        return S3Store(location, create=create, patience=patience)
    if location.startswith("s3:"):  # a folder of this name is written ./s3:…
        raise UsageError(f"{location}: not an object store", hint="write s3://bucket/prefix")
    if "://" in location and not location.startswith("file://"):
        raise UsageError(
            f"{location}: not a kind of library that is known", hint="give the path of a folder, or s3://bucket/prefix"
        )
    path = Path(location.removeprefix("file://")).expanduser()
    try:
        return LocalStore(path, create=create)
    except OSError as error:
        raise StorageError(
            f"library {location}: {error.strerror or error}", hint="check space and permissions"
        ) from error
