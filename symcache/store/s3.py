"""A store in an S3-compatible object store: many machines, no lock, no database server.

Needs a store that honours `If-None-Match: *` on PUT (AWS S3, MinIO, SeaweedFS, Ceph, R2 do), and writes to no other.
Credentials and endpoint come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL. Whoever may write to the bucket is trusted fully.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from symcache.errors import NotFoundError, StorageError
from symcache.scratch import ScratchFolder
from symcache.store.base import MARKER, BlobStat
from symcache.store.bucket import REQUEST_SECONDS, Bucket
from symcache.store.outage import PATIENCE

__all__ = ["S3Store"]

_FORMAT = 1
_SINGLE_PUT = 64 << 20
"""Larger objects are sent in parts; smaller ones are held in memory."""
_SINGLE_COPY = 5 << 30
"""S3 copies no larger object in one request."""


class S3Store:
    """Blobs and records below one prefix of a bucket."""

    fast_reads = False
    settle = REQUEST_SECONDS + 5.0

    def __init__(self, location: str, *, create: bool = False, patience: float = PATIENCE) -> None:
        """`patience`: seconds that an outage of the store is waited for."""
        self.location = location.rstrip("/")
        self._bucket = Bucket(self.location, patience)
        self._scratch = ScratchFolder("s3")
        self._may_write = False
        try:
            found = json.loads(self._bucket.content(MARKER)).get("format")
        except NotFoundError:
            if not create:
                raise NotFoundError(
                    f"{location}: no library here",
                    hint="check bucket and prefix, or begin one with `symcache harvest` or `add`",
                ) from None
            if any(key != MARKER for key in self.list("")) and self.stat(MARKER) is None:
                raise StorageError(
                    f"{location}: holds other objects, so no library is made here", hint="name an empty prefix"
                ) from None
            found = _FORMAT
            self._bucket.put_new(MARKER, json.dumps({"format": found}).encode() + b"\n")
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{location}: {MARKER} is not readable as JSON", hint="restore this object") from error
        if found != _FORMAT:
            raise StorageError(
                f"{location}: library format {found!r}, this version knows {_FORMAT}", hint="use a newer symcache"
            )
        if create:
            self._require_conditions()

    def _require_conditions(self) -> None:
        """Raise StorageError where the store would overwrite what is there: records would be lost without a word."""
        if not self._may_write:
            self._may_write = self._bucket.honours_conditions(f"tmp/conditions-{uuid.uuid4().hex}")
        if not self._may_write:
            raise StorageError(
                f"{self.location}: this store overwrites objects even if it is told not to (If-None-Match: *)",
                hint="use one that honours conditional PUTs; newer versions of most stores do",
            )

    def create(self, key: str, source: Path) -> bool:
        """Upload `source` unless `key` is there; see `Store.create`."""
        try:
            self._require_conditions()
            with source.open("rb") as content:
                if source.stat().st_size <= _SINGLE_PUT:
                    return self._bucket.put_new(key, content.read())
                # Parts cannot be sent on condition. Objects of this size are named by what is in them: two writers at
                # once write the same bytes.
                if self.stat(key) is not None:
                    return False
                self._bucket.put(key, content)
            return True
        except OSError as error:
            raise StorageError(f"{source}: {error.strerror or error}", hint="check the disk") from error
        finally:
            with contextlib.suppress(OSError):
                source.unlink()

    def open(self, key: str) -> BinaryIO:
        """Download an object, into memory or a temporary file, and return it open."""
        target = tempfile.SpooledTemporaryFile(max_size=_SINGLE_PUT, dir=self._scratch.name)  # noqa: SIM115
        size = self._bucket.download(key, cast(BinaryIO, target))
        if target.tell() != size:
            raise StorageError(f"{self.location}: {key}: {target.tell()} bytes came where {size} were promised")
        target.seek(0)
        return cast(BinaryIO, target)

    def stat(self, key: str) -> BlobStat | None:
        """Return size and age of an object, or None."""
        try:
            return self._bucket.stat(key)
        except NotFoundError:
            return None

    def presigned(self, key: str, seconds: float) -> str:
        """Return a URL from which anybody can download an object for so long; the object is not looked at."""
        return self._bucket.signed(key, seconds)

    def encoding(self, key: str) -> str:
        """Return the Content-Encoding that an object is delivered with, or an empty string."""
        return self._bucket.encoding(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix`."""
        for key, _ in self.scan(prefix):
            yield key

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """Yield (key, size and age) below `prefix`: one request a thousand."""
        return self._bucket.scan(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the common prefixes directly below `prefix`."""
        return self._bucket.folders(prefix)

    def refresh(self, key: str) -> bool:
        """Copy an object away and back, inside the store: S3 cannot touch one, nor copy it onto itself."""
        aside = f"tmp/refresh-{uuid.uuid4().hex}"
        found = self.stat(key)
        if found is None:
            return False
        try:
            if found.stored_size > _SINGLE_COPY:
                with self.open(key) as stored:
                    self._bucket.put(key, stored)
                return True
            self._bucket.copy(key, aside)
            self._bucket.copy(aside, key)
            self._bucket.discard(aside)
        except NotFoundError:
            return False
        return True

    def delete_older(self, key: str, before: float) -> bool:
        """Look at the object's age and delete it at once; see `Store.delete_older`."""
        return self._bucket.delete_if(key, lambda stat: stat.modified < before)

    def quarantine(self, key: str) -> str:
        """Copy below `quarantine/`, then delete, unless another object has come to its place meanwhile."""
        target, damaged = f"quarantine/{key}", self._bucket.stat(key)
        self._bucket.copy(key, target)
        self._bucket.delete_if(key, lambda stat: stat.validator == damaged.validator)
        return target

    def now(self) -> float:
        """Return the time that the store gives to a new object."""
        key = f"tmp/clock-{uuid.uuid4().hex}"
        self._bucket.put(key, b"")
        found = self._bucket.stat(key)
        self._bucket.discard(key)
        return found.modified

    def scratch(self) -> Path:
        """Return a folder on this machine."""
        return Path(self._scratch.name)

    def clean_scratch(self, before: float) -> int:
        """Remove clocks that a killed run left; the rest of what it had begun was on its own machine."""
        old = [key for key, found in self.scan("tmp/") if found.modified < before]
        return sum(self.delete_older(key, before) for key in old)
