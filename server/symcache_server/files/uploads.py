"""Receives binaries from clients that may write: in parts if need be, checked, and added by one record.

A file is sent to `/api/v1/uploads/{sha256}` and lies in a folder of the server until it is named in a POST, which makes
one record of all it names. What is already there is not sent again; the same POST twice changes nothing but the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError, NotFoundError, UsageError
from symcache.files import file_lock, is_named
from symcache.library import Library, Staged, StagedObject, ingest
from symcache.macho import file_end, identify
from symcache.model import Kind, ManifestEntry, SourceNote, Trust
from symcache.store import blob_key
from symcache_server.http.body import body_chunks

__all__ = ["SentFile", "Uploads"]

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_KEEP_SECONDS = 86400.0
"""Files that no POST has named for so long are deleted."""
_LOCK_SECONDS = 1.0
_ROOM_SECONDS = 600.0
"""A reservation that is older belongs to a server that was killed."""

_T = TypeVar("_T")


class SentFile(NamedTuple):
    """One file that was sent, to be added."""

    sha256: str
    path: str
    """Where its source has it."""
    sources: tuple[SourceNote, ...] = ()
    """What a dSYM notes of its sources."""


class Uploads:
    """The folder of files that were sent but not yet added.

    A file's lock is held only while something is written, and each byte is written at its own place: so a retry goes on
    beside a connection that is dead but does not know it, and two who send the same file do not hinder each other.
    """

    def __init__(self, folder: Path, max_size: int, max_total: int, idle_seconds: float) -> None:
        self._folder, self._max_size, self._max_total, self._idle = folder, max_size, max_total, idle_seconds
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def offset(self, sha256: str) -> tuple[int, bool]:
        """Return (bytes received, whether that is all and right)."""
        with contextlib.suppress(FileNotFoundError):
            return self._whole(sha256).stat().st_size, True
        with contextlib.suppress(FileNotFoundError):
            return self._part(sha256).stat().st_size, False
        return 0, False

    async def receive(self, sha256: str, request: web.Request) -> tuple[int, bool]:
        """Receive a file, or a part of one; return as `offset`. Raises UsageError, IntegrityError, HTTPException."""
        first, end, total = self._place(request)
        have, complete = self.offset(sha256)
        if complete:
            return have, True
        with contextlib.ExitStack() as stack:
            room = stack.enter_context(self._room(sha256, total))
            await asyncio.to_thread(self._check_room)
            file = stack.enter_context(_open(self._part(sha256)))
            have = await self._locked(sha256, file, lambda: os.fstat(file.fileno()).st_size)
            if first > have:
                raise web.HTTPConflict(text=f"{have} bytes are here: send what follows them")
            at = first
            async for chunk in body_chunks(request, self._idle):
                if at + len(chunk) > end:
                    raise UsageError(f"more than {end - first} bytes came")
                at += await self._locked(sha256, file, partial(_write, file, at, chunk))
                with contextlib.suppress(FileNotFoundError):
                    os.utime(room)
            return await self._locked(sha256, file, partial(self._complete, sha256, file, total))

    def _complete(self, sha256: str, file: BufferedRandom, total: int) -> tuple[int, bool]:
        """Give a file its name if all of it is here; return as `offset`. Raises IntegrityError."""
        size = os.fstat(file.fileno()).st_size
        if size < total:
            return size, False
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            self._part(sha256).unlink()
            raise IntegrityError(f"what came has SHA-256 {digest}, not {sha256}", hint="send it again")
        self._part(sha256).replace(self._whole(sha256))
        return total, True

    async def _locked(self, sha256: str, file: BufferedRandom, action: Callable[[], _T]) -> _T:
        """Return what `action` returns, run in a thread while nobody else writes the file. Raises HTTPConflict."""

        def attempt() -> _T:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if not is_named(self._part(sha256), file.fileno()):
                    # Somebody else had the lock, and has completed this very file.
                    raise web.HTTPConflict(text="somebody else has just sent this file: ask what is here")
                return action()
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise web.HTTPConflict(text="somebody else is sending this file now") from None
            await asyncio.sleep(0.01)

    def add(self, library: Library, files: list[SentFile], who: str) -> dict[str, Any]:
        """Add files to the library as one record, and return the fields of `Added`. Slow.

        Files that the library has already are left out, as when the response to an earlier request was lost. Raises
        NotFoundError for one that was not sent, IntegrityError for one that is not exactly one Mach-O image.
        """
        # If two clients add the same file, the second one finds it in the library.
        with file_lock(self._folder.with_name(f"{self._folder.name}.lock")):
            return self._add(library, files, who)

    def _add(self, library: Library, files: list[SentFile], who: str) -> dict[str, Any]:
        staged = Staged(None, f"push by {who}", trust=Trust.PUSHED)
        images: list[dict[str, Any]] = []
        record, problems = "", []
        library.refresh()  # another process may have added some of them a moment ago
        for sha256, path, sources in files:
            file = self._whole(sha256)
            if not file.exists():
                known = self._occurrence(library, sha256)
                record = known.record
                images.append(
                    {"uuid": known.uuid, "kind": known.kind, "arch": known.arch, "sha256": sha256, "path": path}
                )
                continue
            slices = identify(file)
            if len(slices) != 1 or slices[0].uuid is None or slices[0].kind is None or slices[0].offset:
                raise IntegrityError(f"{path}: is not one Mach-O image with a UUID", hint="send slices one by one")
            image, kind = slices[0], slices[0].kind
            with file.open("rb") as opened:
                if file_end(opened.read(1 << 20)) > image.size:
                    raise IntegrityError(f"{path}: is cut: its segments reach beyond its end")
            entry = ManifestEntry(path=path, arch=image.arch, uuid=image.uuid, kind=kind)
            staged.manifest.append(entry)
            noted = sources if kind is Kind.DEBUGINFO else ()
            staged.objects.append(StagedObject(file, 0, image.size, path, image.arch, image.uuid, kind, sources=noted))
            images.append({"uuid": image.uuid, "kind": kind, "arch": image.arch, "sha256": sha256, "path": path})
        if staged.objects:
            result = ingest(library, staged)
            record, problems = result.record_id, result.problems
            for sent in files:
                self._whole(sent.sha256).unlink(missing_ok=True)
                if not problems:  # what was here before may have been removed meanwhile
                    self._occurrence(library, sent.sha256)
        return {"record": record, "images": images, "problems": problems}

    @staticmethod
    def _occurrence(library: Library, sha256: str) -> Occurrence:
        """Return an occurrence of a content that the library holds. Raises NotFoundError."""
        for occurrence in library.catalog.occurrences_of_blob(sha256):
            if occurrence.uuid is not None and library.store.stat(blob_key(sha256)):
                return occurrence
        raise NotFoundError(f"{sha256}: was not sent", hint=f"PUT it to /api/v1/uploads/{sha256}")

    def _place(self, request: web.Request) -> tuple[int, int, int]:
        """Return (offset of the first byte that is sent, offset behind the last one, size of the whole file)."""
        if text := request.headers.get("Content-Range"):
            match = _RANGE.fullmatch(text)
            if match is None:
                raise UsageError(f"Content-Range {text[:60]!r}: write `bytes FIRST-LAST/TOTAL`")
            first, last, total = map(int, match.groups())
            if not first <= last < total:
                raise UsageError(f"Content-Range {text[:60]!r}: lies outside of the file")
        elif request.content_length is not None:
            first, last, total = 0, request.content_length - 1, request.content_length
        else:
            raise web.HTTPLengthRequired(text="say with Content-Length or Content-Range how large the file is")
        if total > self._max_size:
            raise web.HTTPRequestEntityTooLarge(self._max_size, total)
        return first, last + 1, total

    @contextlib.contextmanager
    def _room(self, sha256: str, size: int) -> Iterator[Path]:
        """Reserve room for a file while it is sent, by a sparse file of its size that every process sees."""
        room = self._folder / f"{sha256}.{secrets.token_hex(8)}.room"
        try:
            with room.open("xb") as file:
                file.truncate(size)
            yield room
        finally:
            room.unlink(missing_ok=True)

    def _check_room(self) -> None:
        """Delete what was forgotten. Raises HTTPInsufficientStorage if all that is left is still too much."""
        sizes: Counter[str] = Counter()
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                keep = _ROOM_SECONDS if path.suffix == ".room" else _KEEP_SECONDS
                if time.time() - status.st_mtime > keep:
                    path.unlink()
                else:
                    sha256 = path.name.partition(".")[0]
                    sizes[sha256] = max(sizes[sha256], status.st_size)
        if sizes.total() > self._max_total:
            raise web.HTTPInsufficientStorage(text="too much is being sent, or not yet added: try again later")

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    def _whole(self, sha256: str) -> Path:
        return self._folder / sha256


def _open(path: Path) -> BufferedRandom:
    """Open a file for reading and writing at any offset; it is created if need be."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _write(file: BufferedRandom, at: int, data: bytes) -> int:
    """Write at an offset, and return the number of bytes. Raises OSError."""
    file.seek(at)
    file.write(data)
    file.flush()
    return len(data)
