"""The cache of decoded files: checked against their hash, on the local disk, bounded.

::

    ab/<sha256>         the content of a blob, or of a file that was made of some (see `made`)
    ab/<sha256>.zst     a blob as it is stored, where the store is not on this machine's disks
    damaged/…           files whose content is not what their name says

What a library on this machine's disks stores is checked in the same way before it is sent as it lies. Several server
processes may share one folder: files are renamed into place, filled under a lock, and only ever removed. A file that is
being sent stays open, so it may be removed meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from symcache.errors import IntegrityError, NotFoundError
from symcache.files import atomic_write
from symcache.library import Library
from symcache.store import LocalStore, blob_key
from symcache_server.files.checked import CheckedFolder, decoded_hash

__all__ = ["DecodedCache", "Repair"]

Repair = Callable[[str, IntegrityError | NotFoundError], None]
"""Restores a blob that is damaged or missing; raises if it cannot."""


class DecodedCache:
    """The bounded cache in `folder` over one library. `open` and `open_stored` return file descriptors."""

    def __init__(self, library: Library, folder: Path, limit: int, repair: Repair | None = None) -> None:
        self._library, self._repair = library, repair
        self.files = CheckedFolder(folder, limit)
        self._root = library.store.root if isinstance(library.store, LocalStore) else None
        """Folder of a store on this machine's disks, whose files can be sent as they lie."""

    def close(self) -> None:
        """Stop decoding."""
        self.files.close()

    async def open(self, sha256: str, size: int) -> int:
        """Return a descriptor of the decoded, checked content. Raises IntegrityError, StorageError, NotFoundError."""
        path = self.files.path(sha256)
        return await self.files.open(path, lambda: self._fill(sha256, size, Path(path)))

    async def open_stored(self, sha256: str, size: int, stored_size: int) -> int:
        """Return a descriptor of the blob as stored, which was proven to decode to its hash."""
        if self._root is not None:
            return await self.files.open(f"{self._root}/{blob_key(sha256)}", lambda: self._prove(sha256, size))
        path = self.files.path(f"{sha256}.zst")
        return await self.files.open(path, lambda: self._copy(sha256, stored_size, Path(path)))

    def name(self, sha256: str, *, stored: bool) -> str:
        """Return where the file that was opened lies: below `decoded/`, this cache, or `library/`, the local store."""
        if stored and self._root is not None:
            return f"library/{blob_key(sha256)}"
        return f"decoded/{sha256[:2]}/{sha256}{'.zst' if stored else ''}"

    def _fill(self, sha256: str, size: int, path: Path) -> None:
        def fill() -> None:
            if not self.files.proofs.check(path, sha256):
                self._library.materialize(sha256, size, path)
                self.files.proofs.add(str(path), path.stat())

        self._repairing(sha256, lambda: self.files.bounded.write(path, size, fill))

    def _prove(self, sha256: str, size: int) -> None:
        """Decode a blob of a store on this machine's disks once, to its end, so that no damaged one is sent."""

        def prove() -> None:
            with self._library.open_stored(sha256) as file:
                status = os.fstat(file.fileno())
            for _ in self._library.read_blob(sha256, size):
                pass
            self.files.proofs.add(f"{self._root}/{blob_key(sha256)}", status)

        self._repairing(sha256, prove)

    def _copy(self, sha256: str, stored_size: int, path: Path) -> None:
        """Copy a blob from a remote store as it is stored, and check it."""

        def fill() -> None:
            if self.files.proofs.check(path, sha256, decoded_hash):
                return
            with atomic_write(path, mode=0o600) as part:
                with part.open("w+b") as out, self._library.open_stored(sha256) as stored:
                    while chunk := stored.read(1 << 20):
                        out.write(chunk)
                    got = out.tell()
                    out.seek(0)
                    found = decoded_hash(out)
                if (got, found) != (stored_size, sha256):
                    raise IntegrityError(f"blob {sha256}: what the store holds is not what was stored")
            self.files.proofs.add(str(path), path.stat())

        self._repairing(sha256, lambda: self.files.bounded.write(path, stored_size, fill))

    def _repairing(self, sha256: str, work: Callable[[], None]) -> None:
        """Do `work`, which reads a blob; if the blob was damaged, restore it and do it once more."""
        try:
            work()
        except (IntegrityError, NotFoundError) as error:
            if self._repair is None:
                raise
            self._repair(sha256, error)
            work()
