"""Reads the forms that browsers send, from pages of this server only."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from email.message import Message

import numpy as np
from aiohttp import hdrs, web

from symcache.errors import UsageError
from symcache_server.http.origins import refuse_other_pages
from symcache_server.keys import CONFIG, NAMES

__all__ = ["read_field"]

_PARTS = 8
_MOST_OF_A_HEAD = 4096
_AROUND = 64 << 10
"""Bytes that a form may have in addition to the field."""
_FORM, _PARTED = "application/x-www-form-urlencoded", "multipart/form-data"
_DIGITS = np.full(256, 0xFF, np.uint8)
_DIGITS[np.frombuffer(b"0123456789ABCDEFabcdef", np.uint8)] = [*range(16), *range(10, 16)]


@contextlib.asynccontextmanager
async def read_field(request: web.Request, name: str, most: int) -> AsyncIterator[bytes]:
    """Yield one text or file of a form, of at most `most` bytes. Raises UsageError, and HTTP errors.

    HTTPForbidden for a form that another site's page sends (Fetch Metadata Request Headers 2.3).
    """
    if request.headers.get("Sec-Fetch-Site") not in {None, "same-origin", "none"}:
        raise web.HTTPForbidden(text="a page of another site sent this: use the form here")
    refuse_other_pages(request, ())
    if request.content_type not in {_FORM, _PARTED}:
        raise web.HTTPUnsupportedMediaType(text="the body must be a form's")
    escapes = 3 if request.content_type == _FORM else 1
    bodies, seconds = request.app[NAMES].bodies, request.app[CONFIG].body_seconds
    async with bodies.read(request, seconds, escapes * most + _AROUND) as body:
        if request.content_type == _FORM:
            field = await asyncio.to_thread(_of_form, body, name)
        else:
            field = _of_parts(body, _boundary(request), name)
        if len(field) > most:
            raise web.HTTPRequestEntityTooLarge(most, len(field))
        yield field


def _boundary(request: web.Request) -> bytes:
    message = Message()
    message["Content-Type"] = request.headers.get(hdrs.CONTENT_TYPE, "")
    if not (boundary := message.get_boundary()) or not boundary.isascii():
        raise UsageError("the body is no form: it does not say what its parts begin with")
    return boundary.encode()


def _of_parts(body: bytes, boundary: bytes, name: str) -> bytes:
    """Return the content of the part with this name (RFC 7578), or nothing; only the first few are looked at."""
    mark, wanted = b"--" + boundary, re.compile(rb"[; ]name=\"?" + re.escape(name).encode() + rb"\"?(?:;|\r|$)", re.I)
    position = body.find(mark)
    for _ in range(_PARTS):
        head_end = body.find(b"\r\n\r\n", position) if position >= 0 else -1
        end = body.find(b"\r\n" + mark, head_end + 2) if head_end >= 0 else -1
        if end < 0:
            return b""
        if wanted.search(body[position : min(head_end, position + _MOST_OF_A_HEAD)]):
            return body[head_end + 4 : end]
        position = end + 2
    return b""


def _of_form(body: bytes, name: str) -> bytes:
    field = re.search(rb"(?:^|&)" + re.escape(name).encode() + rb"=([^&]*)", body)
    return _unquoted(field[1]) if field else b""


def _unquoted(field: bytes) -> bytes:
    """Return the bytes that a field of application/x-www-form-urlencoded stands for; invalid escapes stay."""
    data = np.frombuffer(field.replace(b"+", b" "), np.uint8).copy()
    at = np.flatnonzero(data[:-2] == ord("%"))
    high, low = _DIGITS[data[at + 1]], _DIGITS[data[at + 2]]
    escapes = (high < 16) & (low < 16)
    at = at[escapes]
    data[at] = high[escapes] << 4 | low[escapes]
    kept = np.ones(len(data), bool)
    kept[at + 1] = kept[at + 2] = False
    return data[kept].tobytes()
