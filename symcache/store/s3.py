"""A store in an S3-compatible object store, through obstore: many machines, no lock, no database server.

Needs a store that honours `If-None-Match: *` on PUT (AWS S3, MinIO, SeaweedFS, Ceph, R2 do). Credentials and endpoint
come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL. Whoever may write
to the bucket is trusted fully.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from symcache.errors import NotFoundError, StorageError, UsageError
from symcache.scratch import ScratchFolder
from symcache.store.base import BLOB_KEY, MARKER, BlobStat

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError
    from obstore.store import S3Store as Client
except ImportError as error:  # pragma: no cover - depends on how the package was installed
    raise UsageError("libraries in an object store need obstore", hint="pip install obstore") from error

__all__ = ["S3Store"]

_FORMAT = 1
_SINGLE_PUT = 64 << 20
"""Larger objects are sent in parts; smaller ones are held in memory."""
_SINGLE_COPY = 5 << 30
"""S3 copies no larger object in one request."""
_PART = 16 << 20
_RETRIES = 5


class S3Store:
    """Blobs and records below one prefix of a bucket."""

    fast_reads = False
    settle = 20.0
    """Twice the time limit of one request."""

    def __init__(self, location: str, *, create: bool = False) -> None:
        self.location = location.rstrip("/")
        bucket, _, prefix = self.location.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f"{location}: names no bucket", hint="write s3://bucket/prefix")
        self._client = _client(bucket, prefix)
        self._scratch = ScratchFolder("s3")
        try:
            found = json.loads(self._bytes(MARKER)).get("format")
        except NotFoundError:
            if not create:
                raise NotFoundError(
                    f"{location}: no library here",
                    hint="check bucket and prefix, or make one with `symcache harvest` or `add`",
                ) from None
            if any(key != MARKER for key in self.list("")) and self.stat(MARKER) is None:
                raise StorageError(
                    f"{location}: holds other objects, so no library is made here", hint="name an empty prefix"
                ) from None
            with self._errors(MARKER), contextlib.suppress(AlreadyExistsError):
                obstore.put(self._client, MARKER, json.dumps({"format": _FORMAT}).encode() + b"\n", mode="create")
            found = _FORMAT
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{location}: {MARKER} is not readable as JSON", hint="restore this object") from error
        if found != _FORMAT:
            raise StorageError(
                f"{location}: library format {found!r}, this version knows {_FORMAT}", hint="use a newer symcache"
            )

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what obstore and the network raise into our errors; `AlreadyExistsError` goes through."""
        try:
            yield
        except AlreadyExistsError:
            raise
        except FileNotFoundError:
            raise NotFoundError(f"{self.location}: {key} is not there", hint="run `symcache fsck`") from None
        except (BaseError, OSError) as error:
            text = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise StorageError(
                f"{self.location}: {key}: {text}",
                hint="check AWS_ENDPOINT_URL, credentials and the network, then run the same command again",
            ) from error

    def _bytes(self, key: str) -> bytes:
        with self._errors(key):
            return bytes(obstore.get(self._client, key).bytes())

    def create(self, key: str, source: Path) -> bool:
        """Upload `source` unless `key` is there; see `Store.create`."""
        try:
            size = source.stat().st_size
            with self._errors(key):
                if size <= _SINGLE_PUT:
                    content = source.read_bytes()
                    obstore.put(
                        self._client, key, content, mode="create", use_multipart=False, attributes=_attributes(key)
                    )
                else:
                    # Parts cannot be sent on condition. Objects of this size are blobs, which their name determines:
                    # two writers at once write the same bytes.
                    if self.stat(key) is not None:
                        return False
                    obstore.put(
                        self._client, key, source, attributes=_attributes(key), chunk_size=_PART, max_concurrency=4
                    )
            return True
        except AlreadyExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                source.unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        """Download an object, into memory or a temporary file, and return it open."""
        with self._errors(key):
            found = obstore.get(self._client, key)
            size = int(found.meta["size"])
            target = tempfile.SpooledTemporaryFile(max_size=_SINGLE_PUT, dir=self._scratch.name)  # noqa: SIM115
            for chunk in found.stream(min_chunk_size=4 << 20):
                target.write(chunk)
        if target.tell() != size:
            raise StorageError(f"{self.location}: {key}: {target.tell()} bytes came where {size} were promised")
        target.seek(0)
        return cast(BinaryIO, target)

    def stat(self, key: str) -> BlobStat | None:
        """Return size and age of an object, or None."""
        try:
            with self._errors(key):
                return _stat(obstore.head(self._client, key))
        except NotFoundError:
            return None

    def presigned(self, key: str, seconds: float) -> str:
        """Return a URL from which anybody can download an object for so long; the object is not looked at."""
        with self._errors(key):
            return obstore.sign(self._client, "GET", key, timedelta(seconds=seconds))

    def encoding(self, key: str) -> str:
        """Return the Content-Encoding that an object is delivered with, or an empty string."""
        with self._errors(key):
            found = obstore.get(self._client, key, options={"range": (0, 1)})
            return str(found.attributes.get("Content-Encoding", ""))

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix`."""
        for key, _ in self.scan(prefix):
            yield key

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """Yield (key, size and age) below `prefix`: one request a thousand."""
        with self._errors(prefix or "/"):
            for chunk in obstore.list(self._client, prefix=prefix.rstrip("/") or None):
                for meta in chunk:
                    yield meta["path"], _stat(meta)

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the common prefixes directly below `prefix`."""
        with self._errors(prefix):
            found = obstore.list_with_delimiter(self._client, prefix=prefix.rstrip("/"))
        return sorted(p.rstrip("/").rpartition("/")[2] for p in found["common_prefixes"])

    def refresh(self, key: str) -> bool:
        """Copy an object away and back, inside the store: S3 cannot touch one, nor copy it onto itself."""
        aside = f"tmp/refresh-{uuid.uuid4().hex}"
        found = self.stat(key)
        if found is None:
            return False
        try:
            with self._errors(key):
                if found.stored_size > _SINGLE_COPY:
                    with self.open(key) as stored:
                        obstore.put(self._client, key, stored, attributes=_attributes(key), chunk_size=_PART)
                    return True
                obstore.copy(self._client, key, aside)
                obstore.copy(self._client, aside, key)
                obstore.delete(self._client, aside)
        except NotFoundError:
            return False
        return True

    def delete_older(self, key: str, before: float) -> bool:
        """Look at the object's age and delete it at once; see `Store.delete_older`."""
        found = self.stat(key)
        if found is None:
            return True
        if found.modified >= before:
            return False
        with self._errors(key):
            obstore.delete(self._client, key)
        return True

    def quarantine(self, key: str) -> str:
        """Copy below `quarantine/`, then delete."""
        target = f"quarantine/{key}"
        with self._errors(key):
            obstore.copy(self._client, key, target)
            obstore.delete(self._client, key)
        return target

    def now(self) -> float:
        """Return the time that the store gives to a new object."""
        key = f"tmp/clock-{uuid.uuid4().hex}"
        with self._errors(key):
            obstore.put(self._client, key, b"", mode="overwrite", use_multipart=False)
            found = _stat(obstore.head(self._client, key))
            obstore.delete(self._client, key)
        return found.modified

    def scratch(self) -> Path:
        """Return a folder on this machine."""
        return Path(self._scratch.name)

    def clean_scratch(self, before: float) -> int:
        """Remove clocks that a killed run left; the rest of what it had begun was on its own machine."""
        count = 0
        for key, found in list(self.scan("tmp/")):
            if found.modified < before:
                with self._errors(key):
                    obstore.delete(self._client, key)
                count += 1
        return count


def _attributes(key: str) -> dict[str, str]:
    """Return what an object says of itself: browsers and tools that are sent to a blob unpack it by themselves."""
    if BLOB_KEY.fullmatch(key):
        return {"Content-Encoding": "zstd", "Content-Type": "application/octet-stream"}
    return {}


def _stat(meta: Any) -> BlobStat:
    return BlobStat(int(meta["size"]), meta["last_modified"].timestamp(), str(meta.get("e_tag") or "").strip('"'))


def _client(bucket: str, prefix: str) -> Client:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    }
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    try:
        return Client(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": "5s",
                "timeout": "300s",
                "read_timeout": "10s",
                "pool_max_idle_per_host": "16",
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=60)},
            **options,
        )
    except (BaseError, ValueError, TypeError) as error:
        raise UsageError(f"s3://{bucket}/{prefix}: {str(error).splitlines()[0]}") from error
