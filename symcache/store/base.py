"""What a back end of the store has to do. Keys are relative POSIX paths; objects are created once and never changed.

===========================================  ====================================================
key                                          content
===========================================  ====================================================
``blobs/ab/abcd….zst``                       one zstd frame; named by the SHA-256 of what is in it
``records/<writer>/<sequence>.json.zst``     one `HarvestRecord`; sequences count up from 1
===========================================  ====================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from symcache.errors import StorageError, UsageError

__all__ = ["BlobStat", "RecordKey", "Store", "blob_key", "open_store"]

_RECORD = re.compile(r"records/([0-9a-z]{1,64})/([0-9]{10})\.json\.zst\Z")


class BlobStat(NamedTuple):
    """What a back end knows of an object without reading it."""

    stored_size: int
    modified: float
    """Seconds since the epoch on the store's own clock."""


@dataclass(frozen=True, order=True)
class RecordKey:
    """Place of a record: each writer counts its own records, so that a reader knows where to look for more."""

    writer: str
    sequence: int

    def __str__(self) -> str:
        """Return the key in the store."""
        return f"records/{self.writer}/{self.sequence:010d}.json.zst"

    @classmethod
    def parse(cls, key: str) -> RecordKey | None:
        """Return the record key that `key` spells, or None when it is something else."""
        match = _RECORD.fullmatch(key)
        return cls(match[1], int(match[2])) if match else None


def blob_key(sha256: str) -> str:
    """Return the key of the blob whose content has this SHA-256 (hex)."""
    return f"blobs/{sha256[:2]}/{sha256}.zst"


class Store(Protocol):
    """A back end. Errors of the medium are raised as `StorageError`, a missing key as `NotFoundError`."""

    location: str
    """What the user typed, for messages."""

    def create(self, key: str, source: Path) -> bool:
        """Make the object `key` from the file `source`, which must lie in `scratch`; it is moved, not copied.

        Whole or not at all, and never over an existing one: returns False if `key` is there already.
        """

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading."""

    def stat(self, key: str) -> BlobStat | None:
        """Return size and age of an object, or None when there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix` (a folder, ending in a slash), in no particular order."""

    def scratch(self) -> Path:
        """Return a folder for temporary files from which `create` can move."""


def open_store(location: str, *, create: bool = False) -> Store:
    """Return the store at `location`: a folder. Raises StorageError or UsageError."""
    from symcache.store.local import LocalStore  # noqa: PLC0415 - back ends know this module

    if "://" in location and not location.startswith("file://"):
        raise UsageError(f"{location}: only a folder can be a library here", hint="give the path of a folder")
    path = Path(location.removeprefix("file://")).expanduser()
    try:
        return LocalStore(path, create=create)
    except OSError as error:
        raise StorageError(f"library {location}: {error.strerror or error}") from error
