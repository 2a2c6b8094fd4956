"""Copies of a harvest until the library has stored them: a folder for each source and build, kept for another run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from symcache.errors import StorageError, UsageError
from symcache.files import is_named
from symcache_provisioning.ssh.transfer import MAX_FILE_SIZE

__all__ = ["RESERVE", "Journal", "Staging"]

RESERVE = 64 << 20
"""Bytes that a harvest leaves free on each disk that it writes to."""
_ATTEMPTS = 100
"""How often a folder is made again that others remove; in some places, such as /proc, none can be made."""


class Staging:
    """The folder of one harvest, for one process at a time. File names are hashes, never names that a guest chose."""

    def __init__(self, base: Path, source: str, build: str) -> None:
        self.folder = base / f"{build}-{_hash(source)}"
        self._lock = -1
        self._source = source

    def __enter__(self) -> Self:
        for attempt in itertools.count(1):
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and attempt < _ATTEMPTS:
                    continue  # removed meanwhile
                raise self._unusable(error) from error
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._lock)
                raise UsageError(
                    f"{self._source}: another process is harvesting it into {self.folder}", hint="wait until it ends"
                ) from error
            except OSError as error:  # such as a network file system without locks
                os.close(self._lock)
                raise self._unusable(error) from error
            # The process that had the lock before may have removed the folder with the lock.
            if is_named(self.folder / ".lock", self._lock, follow_symlinks=False):
                break
            os.close(self._lock)
        self._remove_outdated()
        return self

    def _unusable(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder}: cannot be used for staging: {error.strerror}", hint="name another one with --staging"
        )

    def _remove_outdated(self) -> None:
        """Remove the copies from other builds of the same source, which can no longer be resumed."""
        for other in self.folder.parent.glob(f"*-{_hash(self._source)}"):
            if other == self.folder:
                continue
            with contextlib.suppress(OSError):
                lock = os.open(other / ".lock", os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(other, ignore_errors=True)
                finally:
                    os.close(lock)

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def folder_for(self, what: str, key: str) -> Path:
        """Return the folder for the files of `key`; it is made if need be."""
        folder = self.folder / what / _hash(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def empty_folder_for(self, what: str, key: str) -> Path:
        """Return that folder without files of an earlier run."""
        shutil.rmtree(self.folder / what / _hash(key), ignore_errors=True)
        return self.folder_for(what, key)

    def file_for(self, what: str, path: str) -> Path:
        """Return the path for the copy of one file, in one of 256 folders."""
        name = _hash(path)
        folder = self.folder / what / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def file_for_copy(self, size: int, what: str, path: str) -> Path:
        """Return the path for the copy of a file, if it fits. Raises StorageError.

        `size` is checked up to the largest that is copied: larger files are refused later.
        """
        self.require_space(min(size, MAX_FILE_SIZE))
        return self.file_for(what, path)

    def journal_for(self, what: str, key: str, subject: str) -> Journal:
        """Return the journal of `key`: what an earlier run noted in it about the same `subject`, and room for more."""
        return Journal(self.file_for(what, key), subject)

    def require_space(self, size: int) -> None:
        """Raise StorageError when `size` bytes do not fit, or would leave next to nothing free."""
        free, need = shutil.disk_usage(self.folder).free, size + RESERVE
        if size > 0 and free < need:
            raise StorageError(
                f"{self.folder}: {free >> 20} MiB are free where {(need >> 20) + 1} MiB are needed,"
                f" {RESERVE >> 20} of them to be left free",
                hint="free some space, or name another folder with --staging",
            )

    def holds(self, file: Path) -> bool:
        """Return whether a file is a copy in this folder, which may be made again."""
        return file.is_relative_to(self.folder)

    def remove(self) -> None:
        """Remove everything: the library has stored it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Journal:
    """Notes what became of numbered things, a line each, for the next run. For one thread at a time."""

    def __init__(self, file: Path, subject: str) -> None:
        self._file = file
        self.rows: dict[int, dict[str, Any]] = {}
        """What was noted before, by `index`."""
        title = json.dumps(subject).encode()
        try:
            found = file.read_bytes() if file.exists() else b""
        except OSError as error:
            raise self._refused(error) from error
        lines = found.split(b"\n")[:-1]  # what follows the last newline is cut
        rows = [row for line in lines[1:] if (row := _row(line))] if lines[:1] == [title] else []
        self.rows = {row["index"]: row for row in rows}
        text = "".join(json.dumps(line) + "\n" for line in (subject, *rows))
        if text.encode() != found:
            new = file.with_name(f".{file.name}")
            self._write(new, text, "w")
            new.replace(file)

    def note(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows. Raises StorageError."""
        self._write(self._file, "".join(json.dumps(row) + "\n" for row in rows), "a")

    def _write(self, file: Path, text: str, mode: str) -> None:
        try:
            with file.open(mode) as out:
                out.write(text)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._file}: cannot be read or written: {error.strerror or error}",
            hint="free some space, or name another folder with --staging; then run the same command again",
        )


def _row(line: bytes) -> dict[str, Any] | None:
    """Return what a line of a journal says, or None if a crash of the machine has damaged it."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("index"), int) else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
