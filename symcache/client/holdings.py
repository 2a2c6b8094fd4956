"""The batch look-up: one call for hundreds of images.

One request on one connection, asked before anything else when a dump is opened: `http.client` does it before the
library for many at a time would have been imported.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from symcache import __version__
from symcache.client.model import Held, Holdings, LayoutMatch
from symcache.errors import RemoteError
from symcache.kinds import Kind, uuid_text
from symcache.macho import MAX_SOURCE_NOTES

__all__ = ["UnreachableError", "ask_holdings"]

_MAX_ANSWER = 256 << 20
_AT_MOST = 10_000
"""Images in one call; the API allows no more."""
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 90.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnreachableError(RemoteError):
    """Nobody answers there."""


def ask_holdings(
    url: str, loads: Mapping[UUID, int | None], token: str | None = None, *, note_missing: bool = True
) -> Holdings:
    """Ask one server, which notes as missing what it does not hold, unless told not to.

    Raises RemoteError; UnreachableError where it is of no use to ask anything else.
    """
    if len(loads) > _AT_MOST:
        raise RemoteError(f"{len(loads)} images in one look-up where {_AT_MOST} are allowed", hint="ask in parts")
    question: dict[str, object] = {
        "images": [
            {"uuid": uuid_text(u)} if address is None else {"uuid": uuid_text(u), "load_address": address}
            for u, address in loads.items()
        ]
    }
    if not note_missing:
        question["note_missing"] = False
    headers = {"Content-Type": "application/json", "User-Agent": f"symcache/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = _post(url, json.dumps(question).encode(), headers)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: what is no URL
        raise RemoteError(f"{url}: {error or type(error).__name__}", hint="check that the server is up") from error
    try:
        return _holdings(json.loads(answer), url)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RemoteError(f"{url}: its answer to a look-up is not what the API promises") from error


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    target = urlsplit(f"{url}/api/v1/uuids")
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=_CONNECT_SECONDS)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise UnreachableError(f"{url}: {error}", hint="check the URL, and that the server is up") from error
        connection.sock.settimeout(_READ_SECONDS)
        connection.request("POST", target.path, body, headers)
        with connection.getresponse() as response:
            if response.status != 200:
                raise RemoteError(f"{url}: answers {response.status} {response.reason} to a look-up")
            data = response.read(_MAX_ANSWER + 1)
            if len(data) > _MAX_ANSWER:
                raise RemoteError(f"{url}: answers a look-up with more than {_MAX_ANSWER} bytes")
            return data
    finally:
        connection.close()


def _holdings(answer: dict[str, Any], url: str) -> Holdings:
    """Return a checked answer. Raises ValueError, TypeError, KeyError or AttributeError for another."""
    images = {UUID(i["uuid"]): [_held(c) for c in i.get("contents", ())] for i in answer["images"]}
    layout = answer.get("layout") or {}
    slide = layout.get("slide")
    if slide is not None and not isinstance(slide, int):
        raise ValueError("a slide is a number of bytes")
    return Holdings(
        {uuid: contents for uuid, contents in images.items() if contents},
        LayoutMatch(layout.get("match", LayoutMatch.NONE)),
        tuple(UUID(cache) for cache in layout.get("caches", ())),
        slide,
        url,
        {UUID(i["uuid"]): _sources(i["sources"]) for i in answer["images"] if i.get("sources")},
    )


def _sources(notes: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    pairs = tuple((n["recorded"], n["place"]) for n in notes[:MAX_SOURCE_NOTES])
    if not all(isinstance(text, str) and text.isprintable() for pair in pairs for text in pair):
        raise ValueError("a field has another type")
    return pairs


def _held(content: dict[str, Any]) -> Held:
    sha256, size, arch, path = content["sha256"], content["size"], content["arch"], content["path"]
    build, cache = content.get("build"), content.get("cache_uuid")
    right = isinstance(arch, str) and isinstance(path, str) and isinstance(build, str | None)
    if not (right and isinstance(size, int) and size >= 0 and _SHA256.fullmatch(sha256)):
        raise ValueError("a field has another type")
    return Held(Kind(content["kind"]), size, sha256, arch, path, build, UUID(cache) if cache else None)
