"""Sending own binaries to a server: only what it does not have, continued where it was cut, added by one record."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import tenacity
from pydantic import ValidationError

from symcache.client.body import read_body
from symcache.client.jobs import run_many
from symcache.client.lookup import MAX_IMAGES, look_up_images
from symcache.client.session import http_session
from symcache.client.urls import retry_after, split_tokens
from symcache.client.wire import Added, Response, Upload
from symcache.errors import IncompleteError, RemoteError, UsageError

__all__ = ["PushedFile", "push"]

_CHUNK = 1 << 20
_AT_ONCE = 4
_ATTEMPTS = 5
_ADD_AT_ONCE = 5000
_MAX_RESPONSE = 16 << 20

_Model = TypeVar("_Model", bound=Response)

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class PushedFile:
    """One image to send: `size` bytes of `file` from `offset` on, and the path that the server shall know it by."""

    file: Path
    offset: int
    size: int
    path: str
    uuid: UUID
    sources: tuple[tuple[str, str], ...] = ()
    """Of a dSYM: (recorded folder, place) of its sources, as `symcache.macho.noted_sources` tells them."""


class _Retry(Exception):
    """Worth another attempt."""


class _Busy(_Retry):
    """A server that wants to be asked later, and has done nothing yet."""


def push(url: str, files: Sequence[PushedFile], progress: Progress | None = None) -> tuple[int, int]:
    """Send `files` to the server at `url`, which brings a token along: `https://any:TOKEN@host`.

    Returns how many were added and how many the server had already. Raises RemoteError, UsageError without a token that
    may write, and IncompleteError when the server could not use some of them.
    """
    return asyncio.run(_Push(url, progress).run(list(files)))


class _Push:
    def __init__(self, url: str, progress: Progress | None) -> None:
        (self._url,), tokens = split_tokens([url])
        self._token = tokens.get(self._url)
        self._progress = progress or (lambda *_: None)
        self._done = self._total = 0

    async def run(self, files: list[PushedFile]) -> tuple[int, int]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        async with http_session(headers=headers, read_seconds=300, limit_head=False) as session:
            self._session = session
            known, noted = await asyncio.to_thread(self._look_up, list({f.uuid: None for f in files}))
            hashes = dict(zip(files, await asyncio.to_thread(lambda: [_hash(f) for f in files]), strict=True))
            # A dSYM that is there is sent again for its notes, if the server has none about it.
            lacking = {f for f in files if f.sources and f.uuid not in noted}
            wanted = {hashes[f]: f for f in files if (f.uuid, hashes[f]) not in known or f in lacking}
            self._total = sum(f.size for f in wanted.values())
            await run_many(lambda item: self._send(*item), list(wanted.items()), _AT_ONCE)
            for start in range(0, len(wanted), _ADD_AT_ONCE):
                await self._add(list(wanted.items())[start : start + _ADD_AT_ONCE])
            return len(wanted), len(set(hashes.values())) - len(wanted)

    def _look_up(self, uuids: list[UUID]) -> tuple[set[tuple[UUID, str]], set[UUID]]:
        """Return (UUID, SHA-256) of what the server has of these images, and the dSYMs that it has notes about."""
        known: set[tuple[UUID, str]] = set()
        noted: set[UUID] = set()
        for start in range(0, len(uuids), MAX_IMAGES):
            some: dict[UUID, int | None] = dict.fromkeys(uuids[start : start + MAX_IMAGES])
            response = look_up_images(self._url, some, self._token, note_missing=False)
            known.update((uuid, image.sha256) for uuid, images in response.images.items() for image in images)
            noted.update(response.sources)
        return known, noted

    async def _send(self, sha256: str, file: PushedFile) -> None:
        try:
            await _retrying(_Retry)(self._attempt, sha256, file)
        except _Retry as error:
            raise RemoteError(f"{self._url}: {error}", hint="run the same command again: it continues") from error

    async def _attempt(self, sha256: str, file: PushedFile) -> None:
        target = f"{self._url}/api/v1/uploads/{sha256}"
        state = await self._request(Upload, "GET", target)
        if state.complete:
            self._count(file.size)
            return
        # If all of it came and was wrong, or was cut at its very end: from the start.
        offset = state.offset if 0 <= state.offset < file.size else 0
        headers = {
            "Content-Range": f"bytes {offset}-{file.size - 1}/{file.size}",
            "Content-Length": str(file.size - offset),
            "Content-Type": "application/octet-stream",
        }
        before = self._done
        self._count(offset)
        try:
            state = await self._request(Upload, "PUT", target, data=self._body(file, offset), headers=headers)
        except BaseException:
            self._done = before
            raise
        if not state.complete:
            raise _Retry(f"{file.path}: {state.offset} of {file.size} bytes were taken")

    async def _body(self, file: PushedFile, offset: int) -> AsyncIterator[bytes]:
        with file.file.open("rb") as opened:
            opened.seek(file.offset + offset)
            left = file.size - offset
            while left:
                chunk = await asyncio.to_thread(opened.read, min(_CHUNK, left))
                if not chunk:
                    raise UsageError(
                        f"{file.file}: became shorter while it was sent", hint="run the same command again"
                    )
                left -= len(chunk)
                yield chunk
                self._count(len(chunk))

    async def _add(self, files: list[tuple[str, PushedFile]]) -> None:
        body = {"images": [_described(sha256, file) for sha256, file in files]}
        try:
            added: Added = await _retrying(_Busy)(
                self._request, Added, "POST", f"{self._url}/api/v1/uploads", json=body
            )
        except _Retry as error:
            raise RemoteError(f"{self._url}: {error}", hint="run the same command again: it continues") from error
        if added.problems:
            raise IncompleteError(f"{self._url}: could not use some files: {added.problems[0]}")

    def _count(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)

    async def _request(self, model: type[_Model], method: str, target: str, **options: Any) -> _Model:
        try:
            async with self._session.request(method, target, **options) as response:
                body = await read_body(response, _MAX_RESPONSE, target)
                text = body[:300].decode(errors="replace").strip()
                if response.status in {401, 403}:
                    raise UsageError(
                        f"{self._url}: {_refusal(body) or text}",
                        hint="`symcache token create NAME --scope write` on the server; then https://any:TOKEN@host",
                    )
                if response.status == 429:
                    await asyncio.sleep(retry_after(response.headers.get("Retry-After")))
                    raise _Busy(f"{response.status} {response.reason}")
                if response.status >= 500 or response.status in {408, 409}:
                    raise _Retry(f"{response.status} {response.reason}")
                if response.status >= 400:
                    raise RemoteError(f"{self._url}: {response.status}: {text}")
                return model.model_validate_json(body)
        except ValidationError as error:
            raise RemoteError(f"{self._url}: its answer to {method} is not what the API promises") from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
            raise _Retry(str(error) or type(error).__name__) from error


def _retrying(kind: type[_Retry]) -> tenacity.AsyncRetrying:
    """Return what makes another attempt after an error of this kind."""
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_random_exponential(0.3, max=10),
        retry=tenacity.retry_if_exception_type(kind),
        reraise=True,
    )


def _refusal(body: bytes) -> str:
    """Return the sentence in the answer of a server that refuses."""
    try:
        return str(json.loads(body)["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _described(sha256: str, file: PushedFile) -> dict[str, Any]:
    notes = [{"recorded": recorded, "place": place} for recorded, place in file.sources]
    return {"sha256": sha256, "path": file.path} | ({"sources": notes} if notes else {})


def _hash(file: PushedFile) -> str:
    digest = hashlib.sha256()
    with file.file.open("rb") as opened:
        opened.seek(file.offset)
        left = file.size
        while left and (chunk := opened.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
