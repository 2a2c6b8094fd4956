"""What a back end of the store has to do. Keys are relative POSIX paths; objects are created once and never changed.

================================================  ==================================================
key                                               content
================================================  ==================================================
``blobs/ab/abcd….zst``                            zstd frames; named by the SHA-256 of what is in them
``records/<writer>/<sequence>.json.zst``          one record; the sequences of a writer have no gaps
``snapshots/v<schema>-<count>-<sha256>.db.zst``   a catalog of `count` records, to start from
``quarantine/…``                                  damaged objects under the names they had
``symcache-library.json``                         marks the place as a library; never changed
``symcache-library-id.json``                      which library it is; see `library_id`
``sync/…``                                        what was tried to harvest; see `symcache.library.sync_log`
``uses/…``                                        what was asked for on which day; see `symcache.library.uses`
================================================  ==================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "BLOB_KEY",
    "LIBRARY_ID",
    "MARKER",
    "BlobStat",
    "RecordKey",
    "SigningStore",
    "Store",
    "blob_key",
    "last_sequence",
]

MARKER = "symcache-library.json"
"""Key of what marks a place as a library, with the number of the format."""
LIBRARY_ID = "symcache-library-id.json"
"""Key of what says which library it is."""

_RECORD = re.compile(r"records/([0-9a-z]{1,64})/([0-9]{10})\.json\.zst\Z")
_MAX_GAP = 100_000
"""Records in a row that can have been lost."""
BLOB_KEY = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})\.zst\Z")
"""Matches the key of a blob; group 2 is its SHA-256."""


class BlobStat(NamedTuple):
    """What a back end knows of an object without reading it."""

    stored_size: int
    modified: float
    """Seconds since the epoch on the store's own clock."""
    etag: str = ""
    """Differs between contents, where the store knows such a thing."""

    @property
    def validator(self) -> str:
        """What tells an object from another one that has come into its place, as ETag and Last-Modified do."""
        return f"{self.stored_size} {self.etag or repr(self.modified)}"


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
        """Return the record key that `key` spells, or None if it is something else."""
        match = _RECORD.fullmatch(key)
        return cls(match[1], int(match[2])) if match else None


def last_sequence(sequences: Iterable[int], start: int = 0) -> int:
    """Return the last number that one writer has given, from those found; a number beyond all reason is no record's."""
    for sequence in sorted(sequences):
        if sequence > start + _MAX_GAP:
            break
        start = max(start, sequence)
    return start


def blob_key(sha256: str) -> str:
    """Return the key of the blob whose content has this SHA-256 (hex)."""
    return f"blobs/{sha256[:2]}/{sha256}.zst"


class Store(Protocol):
    """A back end. Errors of the medium are raised as `StorageError`, a missing key as `NotFoundError`."""

    location: str
    """What the user typed, for messages."""
    fast_reads: bool
    """Whether looking into an object costs little more than asking for its size."""
    settle: float
    """Seconds that a deletion which was decided on may still take to happen; see `delete_older`."""

    def create(self, key: str, source: Path) -> bool:
        """Make the object `key` from the file `source`, which must lie in `scratch`; it is moved, not copied.

        Whole or not at all, and never over an existing one: returns False if `key` is there already.
        """

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading; seekable."""

    def stat(self, key: str) -> BlobStat | None:
        """Return size and age of an object, or None if there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix` (a folder, ending in a slash), in no particular order."""

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """As `list`, with what `stat` says of each."""

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders directly below `prefix`, sorted."""

    def refresh(self, key: str) -> bool:
        """Make an object as young as a new one; return False if it is not there (any more)."""

    def delete_older(self, key: str, before: float) -> bool:
        """Delete an object unless it was made or refreshed since `before`; return True if it is gone.

        A local folder decides and deletes in one step. An object store decides and then deletes: who refreshes an
        object has it for certain only when it is still there `settle` seconds later.
        """

    def quarantine(self, key: str) -> str:
        """Move an object out of the way and return its new key, below `quarantine/`."""

    def now(self) -> float:
        """Return the store's own time, in seconds since the epoch."""

    def scratch(self) -> Path:
        """Return a folder for temporary files from which `create` can move."""

    def clean_scratch(self, before: float) -> int:
        """Remove what interrupted runs left in `scratch` before that time; return how many files."""


@runtime_checkable
class SigningStore(Protocol):
    """A back end that others can be sent to for an object."""

    def presigned(self, key: str, seconds: float) -> str:
        """Return a URL from which anybody can download an object for so long."""

    def encoding(self, key: str) -> str:
        """Return the Content-Encoding that the object is delivered with, or an empty string. Raises NotFoundError."""
