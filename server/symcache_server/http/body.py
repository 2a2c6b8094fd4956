"""Reading the body of a request, as long as any of it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

__all__ = ["BodyRoom", "body_chunks", "read_whole"]

_CHUNK = 1 << 20
_BUSY_SECONDS = 5


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


async def read_whole(request: web.Request, seconds: float) -> bytes:
    """Return the body. Raises HTTPRequestEntityTooLarge for more than aiohttp's `client_max_size`, and as above."""
    body, most = bytearray(), request.client_max_size
    async for chunk in body_chunks(request, seconds):
        body += chunk
        if len(body) > most:
            raise web.HTTPRequestEntityTooLarge(most, len(body))
    return bytes(body)


class BodyRoom:
    """At most `limit` bytes of bodies that are in memory at once, whoever sends them, until they are dealt with."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request, seconds: float, most: int) -> AsyncIterator[bytes]:
        """Yield the body, which is at most so many bytes. Raises as `read_whole`, and HTTPServiceUnavailable."""
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
