"""A store in a folder: the write order of a careful backup program.

Temporary file in the same file system, data flushed, hard link to the final name (which fails if the name is
taken, so nothing is ever overwritten), folder flushed. A crash leaves at most a temporary file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat as stat_module
import tempfile
import uuid as uuid_module
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from symcache.errors import NotFoundError, StorageError
from symcache.store.base import BLOB_KEY, MARKER, BlobStat, blob_key

__all__ = ["LocalStore"]

_FORMAT = 1
_CONDEMNED = "condemned-"
"""Begins the name, in the folder of temporary files, of a blob that is being deleted."""


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)


def _make_durable(path: Path) -> None:
    """Make a file read-only, and have its content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, stat_module.S_IRUSR | stat_module.S_IRGRP | stat_module.S_IROTH)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_name(source: Path, target: Path) -> bool:
    """Have `target` be a name of the file `source`, which may keep its own; return False if that name is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        # Some network and FAT file systems have no hard links: there, a rename after a look.
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        if target.exists():
            return False
        source.rename(target)
    return True


def _is_locked(path: Path) -> bool:
    """Return whether a running process writes to a temporary file, which an age by a wrong clock would not tell."""
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is gone, or there are no locks: then its age has to do
        pass
    return False


class LocalStore:
    """Blobs and records below one folder, which a marker file names as a library."""

    fast_reads = True
    settle = 0.0

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root
        self.location = str(root)
        self._known_folders: set[Path] = set()
        marker = root / MARKER
        if not marker.is_file():
            if not create:
                raise NotFoundError(
                    f"{root}: no library here",
                    hint="name one with --library or SYMCACHE_LIBRARY, or begin one with `symcache harvest` or `add`",
                )
            if root.is_dir() and self._strangers() and not marker.is_file():
                raise StorageError(
                    f"{root}: holds other files, so no library is made here", hint="name an empty or new folder"
                )
            root.mkdir(parents=True, exist_ok=True)
            temporary = root / f".{MARKER}.{uuid_module.uuid4().hex}"
            with temporary.open("w") as out:
                out.write(json.dumps({"format": _FORMAT}) + "\n")
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(marker)
            _sync_folder(root)
            with contextlib.suppress(PermissionError):  # a parent that only root may list
                _sync_folder(root.parent)
        try:
            found = json.loads(marker.read_text()).get("format")
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{marker}: not readable as JSON", hint="restore this file") from error
        if found != _FORMAT:
            raise StorageError(
                f"{root}: library format {found!r}, this version knows {_FORMAT}", hint="use a newer symcache"
            )

    def _strangers(self) -> bool:
        """Return whether the folder holds anything but what another process that makes this library just wrote."""
        return any(not p.name.startswith(f".{MARKER}") for p in self.root.iterdir())

    def _path(self, key: str) -> Path:
        return self.root / key

    def scratch(self) -> Path:
        """Return the folder of temporary files, on the same file system as everything else."""
        folder = self.root / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def create(self, key: str, source: Path) -> bool:
        """Move `source` to `key`; see `Store.create`. The file is flushed to the disk first."""
        target = self._path(key)
        try:
            # They are asked after again: somebody may have deleted the library, and made another one here.
            if target.parent not in self._known_folders or not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                for folder in target.parent.parents:  # up to the library's own: each may have been made just now
                    _sync_folder(folder)
                    if folder == self.root:
                        break
                self._known_folders.add(target.parent)
            _make_durable(source)
            if not _give_name(source, target):
                return False
            _sync_folder(target.parent)
            return True
        except OSError as error:
            raise StorageError(
                f"{self.location}: cannot write {key}: {error.strerror or error}",
                hint="free space or mend permissions, then run the same command again",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                source.unlink()

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading."""
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"{self.location}: {key} is not there", hint="run `symcache fsck`") from None
        except OSError as error:
            raise StorageError(f"{self.location}: cannot read {key}: {error.strerror or error}") from error

    def stat(self, key: str) -> BlobStat | None:
        """Return size and age of an object, or None."""
        try:
            found = self._path(key).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self.location}: cannot look at {key}: {error.strerror or error}") from error
        return BlobStat(found.st_size, found.st_mtime)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys below the folder `prefix`."""
        top = str(self._path(prefix))

        def refuse(error: OSError) -> None:
            # What cannot be listed must not look empty: records that nobody sees keep no blob from being deleted.
            if not isinstance(error, FileNotFoundError):
                raise StorageError(
                    f"{self.location}: cannot list {error.filename}: {error.strerror or error}",
                    hint="see that it can be read, then run the same command again",
                ) from error

        for folder, _, names in os.walk(top, onerror=refuse):
            relative = prefix.rstrip("/") + folder[len(top) :]
            for name in names:
                yield f"{relative}/{name}"

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """Yield (key, size and age) of everything below the folder `prefix`."""
        for key in self.list(prefix):
            try:
                found = os.stat(f"{self.root}/{key}")  # noqa: PTH116 - tens of thousands of these in a row
            except FileNotFoundError:
                continue  # deleted meanwhile
            except OSError as error:
                raise StorageError(f"{self.location}: cannot look at {key}: {error.strerror or error}") from error
            yield key, BlobStat(found.st_size, found.st_mtime)

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders in the folder `prefix`."""
        try:
            with os.scandir(self._path(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.location}: cannot list {prefix}: {error.strerror or error}") from error

    def refresh(self, key: str) -> bool:
        """Set the modification time to now."""
        path = self._path(key)
        try:
            try:
                os.utime(path)
            except PermissionError:  # another user's file: only its owner may do that, but a copy is as good
                copy = self.scratch() / f"refresh-{uuid_module.uuid4().hex}"
                shutil.copyfile(path, copy)
                _make_durable(copy)
                copy.replace(path)
                _sync_folder(path.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"{self.location}: cannot refresh {key}: {error.strerror or error}") from error
        return True

    def delete_older(self, key: str, before: float) -> bool:
        """Take the file aside, look at its age, and delete it or put it back.

        Whoever refreshes it comes either before the taking, and is seen, or after, and finds nothing to refresh. A blob
        that is taken aside has a name that `clean_scratch` knows it by; nothing else is worth putting back.
        """
        path = self._path(key)
        try:
            if path.stat().st_mtime >= before:
                return False
            name = f"{_CONDEMNED}{path.name}" if BLOB_KEY.fullmatch(key) else f"deleted-{uuid_module.uuid4().hex}"
            aside = self.scratch() / name
            path.rename(aside)
            if aside.stat().st_mtime >= before:
                _give_name(aside, path)
                aside.unlink(missing_ok=True)
                return False
            aside.unlink()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StorageError(f"{self.location}: cannot delete {key}: {error.strerror or error}") from error
        return True

    def quarantine(self, key: str) -> str:
        """Move a file below `quarantine/`."""
        target = f"quarantine/{key}"
        try:
            self._path(target).parent.mkdir(parents=True, exist_ok=True)
            self._path(key).replace(self._path(target))
            _sync_folder(self._path(key).parent)
        except FileNotFoundError:
            raise NotFoundError(f"{self.location}: {key} is not there") from None
        except OSError as error:
            raise StorageError(f"{self.location}: cannot move {key}: {error.strerror or error}") from error
        return target

    def now(self) -> float:
        """Return the time that the file system gives to a new file."""
        try:
            with tempfile.NamedTemporaryFile(prefix="clock-", dir=self.scratch()) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError as error:
            raise StorageError(f"{self.location}: {error.strerror or error}") from error

    def clean_scratch(self, before: float) -> int:
        """Remove old temporary files; a blob that a killed collection had taken aside goes back to its place."""
        count = 0
        try:
            paths = list(self.scratch().iterdir())
        except OSError as error:
            raise StorageError(f"{self.location}: cannot list tmp/: {error.strerror or error}") from error
        for path in paths:
            try:
                key = blob_key(path.name.removeprefix(_CONDEMNED).removesuffix(".zst"))
                if path.name.startswith(_CONDEMNED) and BLOB_KEY.fullmatch(key):
                    _give_name(path, self._path(key))
                    path.unlink(missing_ok=True)
                elif path.is_file() and path.stat().st_mtime < before and not _is_locked(path):
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue  # its owner was faster
            except OSError as error:
                raise StorageError(f"{path}: {error.strerror or error}") from error
        return count
