"""Reading the body of a request, as long as any of it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

__all__ = ["body_chunks", "read_whole"]

_CHUNK = 1 << 20


async def body_chunks(request: web.Request, seconds: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises HTTPRequestTimeout once nothing has come for `seconds`."""
    chunks = request.content.iter_chunked(_CHUNK)
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"nothing of the body has come for {seconds:.0f} seconds") from None
        yield chunk


async def read_whole(request: web.Request, seconds: float, most: int | None = None) -> bytes:
    """Return the body. Raises HTTPRequestEntityTooLarge for more than `most` bytes, and as above.

    None: aiohttp's `client_max_size`.
    """
    body, most = bytearray(), request.client_max_size if most is None else most
    async for chunk in body_chunks(request, seconds):
        body += chunk
        if len(body) > most:
            raise web.HTTPRequestEntityTooLarge(most, len(body))
    return bytes(body)
