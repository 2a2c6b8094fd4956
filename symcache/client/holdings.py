"""The batch look-up: one call for hundreds of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from symcache.client.model import Held, Holdings, LayoutMatch
from symcache.errors import RemoteError
from symcache.model import Kind, Sha256, uuid_text

__all__ = ["ask_holdings"]

_MAX_ANSWER = 256 << 20
_AT_MOST = 10_000
"""Images in one call; the API allows no more."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Content(_Model):
    kind: Kind
    size: int = Field(ge=0)
    sha256: Sha256
    arch: str
    path: str
    build: str | None = None
    cache_uuid: UUID | None = None


class _Image(_Model):
    uuid: UUID
    contents: list[_Content] = []


class _Layout(_Model):
    match: LayoutMatch = LayoutMatch.NONE
    caches: list[UUID] = []
    slide: int | None = None


class _Answer(_Model):
    images: list[_Image]
    layout: _Layout | None = None


async def ask_holdings(
    session: Callable[[], aiohttp.ClientSession],
    url: str,
    loads: Mapping[UUID, int | None],
    token: str | None = None,
    *,
    note_missing: bool = True,
) -> Holdings:
    """Ask one server, which notes as missing what it does not hold, unless told not to. Raises RemoteError."""
    if len(loads) > _AT_MOST:
        raise RemoteError(f"{len(loads)} images in one look-up where {_AT_MOST} are allowed", hint="ask in parts")
    body: dict[str, object] = {
        "images": [
            {"uuid": uuid_text(u)} if address is None else {"uuid": uuid_text(u), "load_address": address}
            for u, address in loads.items()
        ]
    }
    if not note_missing:
        body["note_missing"] = False
    try:
        headers = {"Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with session().post(f"{url}/api/v1/uuids", json=body, headers=headers) as response:
            if response.status != 200:
                raise RemoteError(f"{url}: answers {response.status} {response.reason} to a look-up")
            data = bytearray()
            async for chunk in response.content.iter_chunked(1 << 20):
                data += chunk
                if len(data) > _MAX_ANSWER:
                    raise RemoteError(f"{url}: answers a look-up with more than {_MAX_ANSWER} bytes")
        answer = _Answer.model_validate_json(bytes(data))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RemoteError(f"{url}: {error or type(error).__name__}", hint="check that the server is up") from error
    except ValidationError as error:
        raise RemoteError(f"{url}: its answer to a look-up is not what the API promises") from error
    layout = answer.layout or _Layout()
    return Holdings(
        {
            image.uuid: [Held(c.kind, c.size, c.sha256, c.arch, c.path, c.build, c.cache_uuid) for c in image.contents]
            for image in answer.images
            if image.contents
        },
        layout.match,
        tuple(layout.caches),
        layout.slide,
        url,
    )
