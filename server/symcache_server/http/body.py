"""Reading request bodies, with limits for the time between two chunks and for the memory of all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

__all__ = ["BodyRoom", "body_chunks", "read_whole"]

_CHUNK = 1 << 20
_BUSY_SECONDS = 5


async def body_chunks(request: web.Request, seconds: float) -> AsyncIterator[bytes]:
    """Yield the body in chunks as it arrives. Raises HTTPRequestTimeout when nothing arrives for `seconds`."""
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


async def read_whole(request: web.Request, seconds: float) -> bytes:
    """Return the body. Raises as `body_chunks`, and HTTPRequestEntityTooLarge above aiohttp's `client_max_size`."""
    body, most = bytearray(), request.client_max_size
    async for chunk in body_chunks(request, seconds):
        body += chunk
        if len(body) > most:
            raise web.HTTPRequestEntityTooLarge(most, len(body))
    return bytes(body)


class BodyRoom:
    """Keeps the request bodies of all clients that are in memory at the same time below `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request, seconds: float, most: int) -> AsyncIterator[bytes]:
        """Yield the body, of at most `most` bytes; it counts until the block ends.

        Raises as `read_whole`, and HTTPServiceUnavailable when the bodies of all clients reach the limit.
        """
        body, taken = bytearray(), 0
        try:
            async for chunk in body_chunks(request, seconds):
                taken, self._left = taken + len(chunk), self._left - len(chunk)
                if taken > most:
                    raise web.HTTPRequestEntityTooLarge(most, taken)
                if self._left < 0:
                    raise web.HTTPServiceUnavailable(
                        text="too much is sent here at the moment", headers={"Retry-After": str(_BUSY_SECONDS)}
                    )
                body += chunk
            yield bytes(body)
        finally:
            self._left += taken
