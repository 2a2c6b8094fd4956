"""Getting one document of a server's API."""

from __future__ import annotations

import asyncio

import aiohttp

from symcache.client.body import read_body
from symcache.client.session import http_session, refused
from symcache.client.urls import split_tokens
from symcache.errors import IntegrityError, RemoteError

__all__ = ["get_document"]

_MAX_SIZE = 64 << 20
_SECONDS = 300


def get_document(url: str, what: str) -> bytes:
    """Return what the server at `url` sends for `/api/v1/WHAT`; the URL may bring a token. Raises RemoteError."""
    (server,), tokens = split_tokens([url])
    headers = {"Authorization": f"Bearer {token}"} if (token := tokens.get(server)) else {}

    async def fetch() -> bytes:
        async with (
            http_session(headers=headers, total_seconds=_SECONDS) as session,
            session.get(f"{server}/api/v1/{what}") as response,
        ):
            if response.status in {401, 403}:
                raise refused(server, response)
            if response.status != 200:
                raise RemoteError(f"{server}: answers {response.status} {response.reason} to /api/v1/{what}")
            return await read_body(response, _MAX_SIZE, f"{server}: /api/v1/{what}")

    try:
        return asyncio.run(fetch())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RemoteError(f"{server}: {error or type(error).__name__}", hint="check that the server is up") from error
    except IntegrityError as error:
        raise RemoteError(str(error)) from error
