"""Taking in binaries from clients that may write: sent in parts if need be, checked, and added by one record.

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
import time
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError, NotFoundError, UsageError
from symcache.files import file_lock, is_named
from symcache.library import Library, Staged, StagedObject, ingest
from symcache.macho import file_end, identify
from symcache.model import Kind, ManifestEntry, SourceNote, Trust
from symcache.store import blob_key

__all__ = ["SentFile", "Uploads"]

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_KEEP_SECONDS = 86400.0
"""What nobody has named in a POST for so long is thrown away."""


class SentFile(NamedTuple):
    """One file that was sent, to be added."""

    sha256: str
    path: str
    """Where its source has it."""
    sources: tuple[SourceNote, ...] = ()
    """What a dSYM notes of its sources."""


class Uploads:
    """The folder of files that were sent but not yet added."""

    def __init__(self, folder: Path, max_size: int, max_total: int) -> None:
        self._folder, self._max_size, self._max_total = folder, max_size, max_total
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def offset(self, sha256: str) -> tuple[int, bool]:
        """Return (bytes received, whether that is all and right)."""
        with contextlib.suppress(FileNotFoundError):
            return self._whole(sha256).stat().st_size, True
        with contextlib.suppress(FileNotFoundError):
            return self._part(sha256).stat().st_size, False
        return 0, False

    async def receive(self, sha256: str, request: web.Request) -> tuple[int, bool]:
        """Take a file or the next part of one; return as `offset`. Raises UsageError, IntegrityError."""
        first, end, total = self._place(request)
        have, complete = self.offset(sha256)
        if complete:
            return have, True
        self._free_space(total)
        with self._part(sha256).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise web.HTTPConflict(text="somebody else is sending this file now") from None
            if not is_named(self._part(sha256), file.fileno()):
                # Another process had the lock, and has completed this very file.
                raise web.HTTPConflict(text="somebody else has just sent this file: ask what is here")
            have = file.seek(0, os.SEEK_END)
            if first > have:
                raise web.HTTPConflict(text=f"{have} bytes are here: send what follows them")
            file.truncate(first)
            file.seek(first)
            async for chunk in request.content.iter_chunked(1 << 20):
                if file.tell() + len(chunk) > end:
                    raise UsageError(f"more than {end - first} bytes came")
                await asyncio.to_thread(file.write, chunk)
            file.flush()
            if file.tell() < total:
                return file.tell(), False
            with self._part(sha256).open("rb") as whole:
                digest = await asyncio.to_thread(hashlib.file_digest, whole, "sha256")
            if digest.hexdigest() != sha256:
                self._part(sha256).unlink()
                raise IntegrityError(f"what came has SHA-256 {digest.hexdigest()}, not {sha256}", hint="send it again")
            self._part(sha256).replace(self._whole(sha256))
        return total, True

    def add(self, library: Library, files: list[SentFile], who: str) -> dict[str, Any]:
        """Add files to the library as one record, without those that it has already. Slow.

        It has some where the response to an earlier request was lost.

        Raises NotFoundError for one that was not sent, IntegrityError for one that is not exactly one Mach-O image.
        """
        # Of two who add the same, the second finds it in the library, and not its file while the first removes it.
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
        """Return what the library says of a content that it has. Raises NotFoundError."""
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

    def _free_space(self, size: int) -> None:
        """Throw away what was forgotten; refuse what does not fit even then."""
        total = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if time.time() - status.st_mtime > _KEEP_SECONDS:
                    path.unlink()
                else:
                    total += status.st_size
        if total + size > self._max_total:
            raise web.HTTPInsufficientStorage(text="too much has been sent and not yet added: try again later")

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    def _whole(self, sha256: str) -> Path:
        return self._folder / sha256
