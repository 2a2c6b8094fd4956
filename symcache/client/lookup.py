"""The batch look-up: one call for hundreds of images.

One request on one connection, sent before anything else when a dump is opened: `http.client` does it before the
library for many at a time would have been imported. That one does it where there is a proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from symcache import __version__
from symcache.client.model import LayoutMatch, LookupResponse, StoredImage
from symcache.client.network import UnreachableError, proxy_for, tls_context, untrusted
from symcache.client.urls import retry_after
from symcache.errors import IntegrityError, RemoteError
from symcache.kinds import Kind, uuid_text
from symcache.macho import MAX_SOURCE_NOTES

__all__ = ["UnreachableError", "look_up_images"]

_MAX_RESPONSE, _MAX_OF_IMAGE = 256 << 20, 64 << 10
"""Bytes, in all and for each image."""
_AT_MOST = 10_000
"""Images in one call; the API allows no more."""
_CONNECT_SECONDS, _READ_SECONDS, _ALL_SECONDS = 10.0, 90.0, 300.0
"""For the connection, without a byte, and for the whole response."""
_TRIES = 5
"""How often a server is asked that says it is asked too often."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def look_up_images(
    url: str, loads: Mapping[UUID, int | None], token: str | None = None, *, note_missing: bool = True
) -> LookupResponse:
    """Look up images on one server, which notes as missing what it does not have, unless told not to.

    Raises RemoteError; UnreachableError where no other request would do better.
    """
    if len(loads) > _AT_MOST:
        raise RemoteError(f"{len(loads)} images in one look-up where {_AT_MOST} are allowed", hint="ask in parts")
    query: dict[str, object] = {
        "images": [
            {"uuid": uuid_text(u)} if address is None else {"uuid": uuid_text(u), "load_address": address}
            for u, address in loads.items()
        ]
    }
    if not note_missing:
        query["note_missing"] = False
    headers = {"Content-Type": "application/json", "User-Agent": f"symcache/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        limit = min(_MAX_RESPONSE, (1 << 20) + _MAX_OF_IMAGE * len(loads))
        post = _post if proxy_for(url, token=token is not None) is None else _post_by_proxy
        response = _when_let(lambda: post(url, json.dumps(query).encode(), headers, limit))
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: what is no URL
        raise RemoteError(f"{url}: {error or type(error).__name__}", hint="check that the server is up") from error
    try:
        return _parse(json.loads(response), url)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RemoteError(f"{url}: its answer to a look-up is not what the API promises") from error


class _BusyError(RemoteError):
    """A server that wants to be asked later."""

    seconds = 0.0


def _when_let(post: Callable[[], bytes]) -> bytes:
    """Return what `post` does; a server that limits how often it is asked is asked again when it says. Raises as it."""
    for _ in range(_TRIES - 1):
        try:
            return post()
        except _BusyError as error:
            time.sleep(error.seconds)
    return post()


def _post(url: str, body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    target = urlsplit(f"{url}/api/v1/uuids")
    host, port = target.hostname or "", target.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_CONNECT_SECONDS, context=tls_context())
        if target.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)
    )
    try:
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise untrusted(url, error) from error
        except OSError as error:
            raise UnreachableError(f"{url}: {error}", hint="check the URL, and that the server is up") from error
        connection.sock.settimeout(_READ_SECONDS)
        with _deadline(connection.sock):
            connection.request("POST", target.path, body, headers)
            with connection.getresponse() as response:
                _check_status(url, response.status, response.reason, dict(response.headers))
                data = response.read(limit + 1)
        if len(data) > limit:
            raise RemoteError(f"{url}: answers a look-up with more than {limit} bytes")
        return data
    finally:
        connection.close()


def _post_by_proxy(url: str, body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    import aiohttp  # noqa: PLC0415 - takes long to import

    from symcache.client.body import read_body  # noqa: PLC0415 - see above
    from symcache.client.session import http_session  # noqa: PLC0415 - see above

    async def post() -> bytes:
        async with (
            http_session(headers=headers, total_seconds=_ALL_SECONDS, limit_head=False) as session,
            session.post(f"{url}/api/v1/uuids", data=body, allow_redirects=False) as response,
        ):
            _check_status(url, response.status, response.reason or "", response.headers)
            return await read_body(response, limit, f"{url}: the answer to a look-up")

    try:
        import asyncio  # noqa: PLC0415 (takes its time to import; without a proxy there is no need)

        return asyncio.run(post())
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        raise UnreachableError(
            f"{url}: {error or type(error).__name__}", hint="check the URL, and that the server is up"
        ) from error
    except (aiohttp.ClientError, IntegrityError) as error:
        raise RemoteError(f"{url}: {error}", hint="check that the server is up") from error


def _check_status(url: str, status: int, reason: str, headers: Mapping[str, str]) -> None:
    if status == 429:
        busy = _BusyError(f"{url}: answers {status} {reason} to a look-up", hint="ask again later, or for less at once")
        busy.seconds = retry_after(headers)
        raise busy
    if status != 200:
        hint = "put a token that it knows into the URL: https://any:TOKEN@host" if status in {401, 403} else ""
        raise RemoteError(f"{url}: answers {status} {reason} to a look-up", hint=hint)


@contextlib.contextmanager
def _deadline(connection: socket.socket) -> Iterator[None]:
    """Cut a connection that is still read after the time for a response. Raises TimeoutError then."""
    over = threading.Event()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not the one of TLS, which would wait for the server

    timer = threading.Timer(_ALL_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError(f"sends too slowly: no whole response in {_ALL_SECONDS:g} seconds")


def _parse(response: dict[str, Any], url: str) -> LookupResponse:
    """Return the checked response. Raises ValueError, TypeError, KeyError or AttributeError for a wrong one."""
    images = {UUID(i["uuid"]): [_image(c) for c in i.get("contents", ())] for i in response["images"]}
    layout = response.get("layout") or {}
    slide = layout.get("slide")
    if slide is not None and not isinstance(slide, int):
        raise ValueError("a slide is a number of bytes")
    return LookupResponse(
        {uuid: contents for uuid, contents in images.items() if contents},
        LayoutMatch(layout.get("match", LayoutMatch.NONE)),
        tuple(UUID(cache) for cache in layout.get("caches", ())),
        slide,
        url,
        {UUID(i["uuid"]): _sources(i["sources"]) for i in response["images"] if i.get("sources")},
    )


def _sources(notes: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    pairs = tuple((n["recorded"], n["place"]) for n in notes[:MAX_SOURCE_NOTES])
    if not all(isinstance(text, str) and text.isprintable() for pair in pairs for text in pair):
        raise ValueError("a field has another type")
    return pairs


def _image(content: dict[str, Any]) -> StoredImage:
    sha256, size, arch, path = content["sha256"], content["size"], content["arch"], content["path"]
    build, cache = content.get("build"), content.get("cache_uuid")
    right = isinstance(arch, str) and isinstance(path, str) and isinstance(build, str | None)
    if not (right and isinstance(size, int) and size >= 0 and _SHA256.fullmatch(sha256)):
        raise ValueError("a field has another type")
    return StoredImage(Kind(content["kind"]), size, sha256, arch, path, build, UUID(cache) if cache else None)
