"""Files that are made from others when they are first requested, such as Breakpad symbol files and universal files.

Beside the decoded files, in the same folder::

    ab/<hash>.<how>.made  SHA-256 and size of what was made; the content lies where the decoded files do
    ab/<hash>.<how>.no    why it could not be made

`<hash>` is the SHA-256 of the hashes of the parts, joined by spaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from symcache.errors import IntegrityError, NotFoundError
from symcache.files import atomic_write_bytes
from symcache.lru_folder import touch
from symcache_server.files.checked import CheckedFolder, content_hash
from symcache_server.http.content import Content, PlainSource, Source

__all__ = ["MadeFiles"]

_FAILED_SECONDS = 3600.0
"""How long what could not be made is not tried again: it may take minutes and gigabytes each time."""
_NOTE = re.compile(r"([0-9a-f]{64}) ([0-9]{1,15})")

Make = Callable[[Sequence[int], Path], None]
"""Makes a file from a descriptor of each part, at a path, where it appears whole or not at all."""


class MadeFiles:
    """Makes files from others, and keeps them in `files`."""

    def __init__(self, files: CheckedFolder) -> None:
        self._files = files
        self._makers = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2), thread_name_prefix="make")
        """Making may take minutes and gigabytes, so requests for blobs have a pool of their own."""

    def stop(self) -> None:
        """Drop what is queued; does not wait."""
        self._makers.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Wait for what is being made."""
        self._makers.shutdown(wait=True, cancel_futures=True)

    async def get(self, parts: Sequence[tuple[Source, str, int]], how: str, make: Make) -> tuple[Source, Content]:
        """Return the file that `make` makes from `parts`: where to open it, and what to send of it.

        Each part is where to open it, its SHA-256 and its size in bytes. `how` names the kind of file and the revision
        of the code that makes it. Raises what `make` raises; an IntegrityError again for an hour, without trying.
        """
        digest = hashlib.sha256(" ".join(sha256 for _, sha256, _ in parts).encode()).hexdigest()
        name = f"{digest}.{how}"
        path = Path(self._files.path(name))
        with self._files.bounded.pinned(str(_note(path))):
            while (found := await self._find(path)) is None:
                if waiting := self._files.under_way(name):
                    await asyncio.shield(waiting)
                    continue
                _raise_if_noted(path)
                descriptors = await _open_all(parts)
                if self._files.under_way(name):  # somebody else was faster
                    _close(descriptors)
                else:
                    await self._files.once(name, partial(self._make, path, descriptors, make), self._makers)
        source, size = found
        return source, Content(f"{digest}-{how}", size, size)

    async def _find(self, path: Path) -> tuple[_MadeFile, int] | None:
        """Return a file that was made before, and its size in bytes, or None."""
        note = _note(path)
        try:
            with open(note, "rb") as file:  # noqa: PTH123 - on the event loop
                match = _NOTE.fullmatch(file.read(100).decode("ascii", "replace"))
                with contextlib.suppress(OSError):
                    touch(note, os.fstat(file.fileno()))
            if match is None:
                return None
            source = _MadeFile(self._files, match[1])
            os.close(await source.open())
        except (FileNotFoundError, NotFoundError):
            return None
        return source, int(match[2])

    def _make(self, path: Path, descriptors: Sequence[int], make: Make) -> None:
        def fill() -> None:
            with contextlib.suppress(FileNotFoundError):
                match = _NOTE.fullmatch(_note(path).read_text("ascii", "replace"))
                if match and self._files.proofs.check(Path(self._files.path(match[1])), match[1]):
                    return  # another process was faster
            _raise_if_noted(path)
            try:
                make(descriptors, path)
            except IntegrityError as error:
                with contextlib.suppress(OSError):
                    atomic_write_bytes(_failure(path), str(error).encode())
                raise
            with path.open("rb") as file:
                status, sha256 = os.fstat(file.fileno()), content_hash(file)
            target = Path(self._files.path(sha256))
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            self._files.proofs.add(str(target), status)
            atomic_write_bytes(_note(path), f"{sha256} {status.st_size}".encode())

        try:
            size = sum(os.fstat(descriptor).st_size for descriptor in descriptors)
            self._files.bounded.write(path, size, fill, ".made")
        finally:
            _close(descriptors)  # not by who waits, and may give up while they are read


class _MadeFile(PlainSource):
    """Where a file that was made is opened."""

    def __init__(self, files: CheckedFolder, sha256: str) -> None:
        self._files, self._sha256 = files, sha256

    async def open(self, sha256: str = "", size: int = 0) -> int:
        """Return a descriptor. Raises NotFoundError if it has gone."""
        path = self._files.path(self._sha256)

        def check() -> None:
            if not self._files.proofs.check(Path(path), self._sha256):
                raise NotFoundError(f"{self._sha256}: made room in the cache", hint="ask again")

        return await self._files.open(path, check)


async def _open_all(parts: Sequence[tuple[Source, str, int]]) -> list[int]:
    """Return a descriptor of each part; none is open when one cannot be."""
    descriptors: list[int] = []
    try:
        for source, sha256, size in parts:
            descriptors.append(await source.open(sha256, size))
    except BaseException:
        _close(descriptors)
        raise
    return descriptors


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _note(path: Path) -> Path:
    """Return the path of the note with hash and size of a file that was made."""
    return path.with_name(f"{path.name}.made")


def _failure(path: Path) -> Path:
    """Return the path of the note that says why a file could not be made."""
    return path.with_name(f"{path.name}.no")


def _raise_if_noted(path: Path) -> None:
    """Raise an IntegrityError if making this file failed within the last hour."""
    note = _failure(path)
    try:
        if time.time() - note.stat().st_mtime < _FAILED_SECONDS:
            raise IntegrityError(note.read_text(errors="replace"))
    except FileNotFoundError:
        pass
