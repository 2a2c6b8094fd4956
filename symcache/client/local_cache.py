"""The local cache: files by content hash, and an index by request.

::

    blobs/a/<sha256>           a checked file, read-only; in the folder of its first hex digit
    index/b/<uuid>-<key>.json  the content for a request; key: kind, then cache or build pin
    parts/<uuid>-<key>         a download under way, locked by the process that does it
    parts/<uuid>-<key>.json    ETag and URL of what is in it, so that it can be resumed

Everything visible is renamed into place, so any number of processes may share one cache. What was used longest ago
goes first when the cache grows over its limit; what was used within the last hour stays, since a debugger may still
open it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID

from symcache.client.model import FetchedImage
from symcache.errors import StorageError
from symcache.files import atomic_write_bytes, is_named
from symcache.images import ImageRequest
from symcache.lru_folder import LruFolder, touch

__all__ = ["IndexEntry", "LocalCache"]

DEFAULT_LIMIT = 16 << 30
"""Bytes."""
_IN_USE_SECONDS = 3600
_PART_SECONDS = 7 * 86400
"""A part that nobody resumed for so long is thrown away."""


_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One file of the index. Read hundreds of times when a dump is opened, so without a library for models."""

    sha256: str
    size: int
    build: str | None = None
    cache_uuid: UUID | None = None
    server: str = ""

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Return what `to_json` wrote. Raises ValueError."""
        fields = json.loads(raw)
        try:
            sha256, size, build, server = fields["sha256"], fields["size"], fields.get("build"), fields.get("server")
            cache = fields.get("cache_uuid")
            if not (_SHA256.fullmatch(sha256) and size >= 0 and isinstance(build, str | None)):
                raise ValueError("a field has another type")
            return cls(sha256, size, build, UUID(cache) if cache else None, str(server or ""))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no entry of the index: {error}") from error

    def to_json(self) -> bytes:
        """Return the content of the file."""
        optional = {"build": self.build, "cache_uuid": str(self.cache_uuid) if self.cache_uuid else None}
        fields = {"sha256": self.sha256, "size": self.size, "server": self.server}
        return json.dumps(fields | {k: v for k, v in optional.items() if v}).encode()


class LocalCache:
    """A folder of checked binaries."""

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self._blobs = LruFolder(folder / "blobs", limit, in_use_seconds=_IN_USE_SECONDS)
        try:
            for name in ("blobs", "index", "parts"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.refusal(error) from error

    def refusal(self, error: OSError) -> StorageError:
        """Return the error that says why nothing can be written here."""
        return StorageError(
            f"cache {self.folder}: {error.strerror or error}",
            hint="free some space, mend permissions, or name another folder in SYMCACHE_CACHE_DIR",
        )

    def find(self, request: ImageRequest) -> FetchedImage | None:
        """Return the cached image, or None. No server is contacted."""
        entry = self.entry(request.uuid, _key(request))
        return self._fetched(self.blob(entry.sha256), entry) if entry else None

    def _fetched(self, blob: Path, entry: IndexEntry) -> FetchedImage:
        return FetchedImage(blob, entry.server, entry.build, entry.cache_uuid, size=entry.size, sha256=entry.sha256)

    def entry(self, uuid: UUID, key: str) -> IndexEntry | None:
        """Return what the index has under a UUID and a key, if that content is here. It counts as used then."""
        path = self._index(uuid, key)
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - hundreds of these in a row, most of them misses
                entry = IndexEntry.from_json(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                Path(path).unlink()
            return None
        return entry if self.stored(entry.sha256, entry.size) else None

    def blob(self, sha256: str) -> Path:
        """Return where the file of this hash is, or would be."""
        return self.folder.joinpath("blobs", sha256[0], sha256)

    def stored(self, sha256: str, size: int) -> Path | None:
        """Return the file of this hash if it is here; it counts as used then. One of another size is removed."""
        blob = self.blob(sha256)
        try:
            status = blob.stat()
        except OSError:
            return None
        is_whole = status.st_size == size
        try:
            if is_whole:
                touch(blob, status)
            else:  # somebody damaged it
                blob.unlink()
        except FileNotFoundError:
            return None
        except OSError:
            pass  # a cache that only others may write is as good for reading
        return blob if is_whole else None

    def publish(self, request: ImageRequest, part: Path, entry: IndexEntry) -> FetchedImage:
        """Move a checked file to its place and index it under `request`, and under its own shared cache."""
        blob = self.blob(entry.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        part.chmod(0o444)
        os.utime(part)
        self.write_entry(request.uuid, _key(request), entry)
        if entry.cache_uuid is not None and request.cache is None:
            pinned = ImageRequest(request.uuid, request.kind, cache=entry.cache_uuid)
            self.write_entry(request.uuid, _key(pinned), entry)
        # Last: the lock goes with the name of the part, and who gets it next must find all this.
        part.replace(blob)
        return self._fetched(blob, entry)

    def write_entry(self, uuid: UUID, key: str, entry: IndexEntry) -> None:
        """Index a content under a UUID and a key. Raises OSError."""
        path = Path(self._index(uuid, key))
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, entry.to_json())

    @contextlib.contextmanager
    def part(self, request: ImageRequest, suffix: str = "") -> Iterator[tuple[Path, BinaryIO]]:
        """Open and lock the part file of `request`; what an earlier run left is in it.

        Each `suffix` has a part file of its own. Raises BlockingIOError while another process downloads the
        same; look into the index once it is open.
        """
        path = self.folder / "parts" / f"{request.uuid.hex}-{_key(request)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)  # the cache may be deleted at any time
        with contextlib.ExitStack() as stack:
            while True:
                file = stack.enter_context(path.open("a+b"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one who had the lock before may have published this file: then it is not ours to write.
                if is_named(path, file.fileno()):
                    break
            yield path, file

    def write_part_note(self, path: Path, note: dict[str, str] | None) -> None:
        """Note what a part holds, so that it can be resumed; None if it is of no use."""
        side = path.with_name(path.name + ".json")
        if note is None:
            side.unlink(missing_ok=True)
        else:
            atomic_write_bytes(side, json.dumps(note).encode())

    def part_note(self, path: Path) -> dict[str, str]:
        """Return what was noted of a part; empty when it cannot be resumed."""
        try:
            note = json.loads(path.with_name(path.name + ".json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in note.items() if isinstance(v, str)} if isinstance(note, dict) else {}

    def evict(self) -> int:
        """Remove what was used longest ago until the cache is within its limit; return the bytes removed."""
        now, removed = time.time(), self._blobs.evict()
        for path in self.folder.glob("parts/*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _PART_SECONDS:
                    path.unlink()
        return removed

    def _index(self, uuid: UUID, key: str) -> str:
        name = uuid.hex
        return f"{self.folder}/index/{name[0]}/{name}-{key}.json"


def _key(request: ImageRequest) -> str:
    if request.cache is not None:
        return f"{request.kind}-cache-{request.cache.hex}"
    if request.build is not None:
        # Encoded, since a build is text from outside and file systems may not tell cases apart.
        return f"{request.kind}-build-{request.build.encode().hex()}"
    return request.kind.value
