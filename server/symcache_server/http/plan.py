"""Decides how to respond to a request for a content, before any file is opened.

In this order: which form of the content to send, whether the client wants it at all (preconditions), which bytes of it.
Nothing here waits, reads a file or sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web

from symcache_server.http.negotiation import accepts_zstd, entity_tags
from symcache_server.http.ranges import parse_range

__all__ = ["Content", "HeadersOnly", "Transfer", "plan"]

_MAX_SIZE = re.compile(r"\s*[0-9]{1,18}\s*")


@dataclass(frozen=True, slots=True)
class Content:
    """One blob to send: sizes in bytes; `stored_size` is that of its zstd frame, or `size` where there is none.

    `sha256` is what its entity tag says; for what is made from a blob, with a suffix for what and how.
    """

    sha256: str
    size: int
    stored_size: int
    start: int = 0
    """Where it begins in the file that holds it, plain."""


@dataclass(frozen=True, slots=True)
class _Representation:
    """One form of a content (RFC 9110 3.2): plain, or as its zstd frame."""

    content: Content
    zstd: bool

    @property
    def length(self) -> int:
        return self.content.stored_size if self.zstd else self.content.size

    @property
    def etag(self) -> str:
        return f'"{self.content.sha256}-zstd"' if self.zstd else f'"{self.content.sha256}"'


@dataclass(frozen=True, slots=True)
class HeadersOnly:
    """A response that needs no file: 304, an error, or the response to a HEAD."""

    status: HTTPStatus
    headers: dict[str, str]
    text: str | None = None

    def response(self) -> web.Response:
        """Return it as aiohttp sends it."""
        return web.Response(status=self.status, headers=self.headers, text=self.text)


@dataclass(frozen=True, slots=True)
class Transfer:
    """`count` bytes from `first` on of a content: plain, or as its `zstd` frame."""

    content: Content
    zstd: bool
    first: int
    count: int
    status: HTTPStatus
    headers: dict[str, str]


def plan(request: web.BaseRequest, content: Content, headers: dict[str, str]) -> HeadersOnly | Transfer:
    """Return what to send of `content`, with `headers` and those that HTTP requires."""
    if refusal := _too_large(request, content):
        return refusal
    form = _select(request, content)
    headers = headers | {"ETag": form.etag, "Accept-Ranges": "bytes", "Vary": "Accept-Encoding"}
    if unwanted := _preconditions(request, content, form, headers):
        return unwanted
    headers["Content-Type"] = "application/octet-stream"
    if form.zstd:
        headers["Content-Encoding"] = "zstd"
    if request.method == hdrs.METH_HEAD:
        return HeadersOnly(HTTPStatus.OK, headers | {"Content-Length": str(form.length)})
    return _transfer(request, form, headers)


def _too_large(request: web.BaseRequest, content: Content) -> HeadersOnly | None:
    """Return 406 where a client of debuginfod has named a size that is exceeded (X-DEBUGINFOD-MAXSIZE), or None."""
    most = request.headers.get("X-DEBUGINFOD-MAXSIZE", "")
    if not _MAX_SIZE.fullmatch(most) or not 0 < int(most) < content.size:
        return None
    text = f"{content.size} bytes are more than the {int(most)} that are wanted\n"
    return HeadersOnly(HTTPStatus.NOT_ACCEPTABLE, {"Cache-Control": "no-store"}, text)


def _is_ranged(request: web.BaseRequest) -> bool:
    """Return whether the Range field counts: with GET only (RFC 9110 14.2)."""
    return hdrs.RANGE in request.headers and request.method == hdrs.METH_GET


def _select(request: web.BaseRequest, content: Content) -> _Representation:
    """Return the form of a content that a client gets (RFC 9110 12.5.3); ranges are of the plain one, always."""
    if _is_ranged(request) or content.stored_size >= content.size:
        return _Representation(content, zstd=False)
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
    return _Representation(content, accepts_zstd(accepted))


def _preconditions(
    request: web.BaseRequest, content: Content, form: _Representation, headers: dict[str, str]
) -> HeadersOnly | None:
    """Return 412 or 304 where preconditions ask for it (RFC 9110 13.1.1, 13.1.2 and 13.2.2), or None."""
    known = {_Representation(content, zstd=zstd).etag for zstd in (False, True)}
    if (match := request.headers.get(hdrs.IF_MATCH)) and not entity_tags(match) & {"*", *known}:
        return HeadersOnly(HTTPStatus.PRECONDITION_FAILED, headers)
    if none_match := request.headers.get(hdrs.IF_NONE_MATCH):
        tags = entity_tags(none_match, weak=True)
        if tags & {"*", form.etag}:
            return HeadersOnly(HTTPStatus.NOT_MODIFIED, headers)
        if same := tags & known:
            # The client has the same content in its other form. The tag says which of its copies is still good.
            return HeadersOnly(HTTPStatus.NOT_MODIFIED, headers | {"ETag": same.pop()})
    return None


def _transfer(request: web.BaseRequest, form: _Representation, headers: dict[str, str]) -> HeadersOnly | Transfer:
    """Return which bytes to send: all, or those of Range, if If-Range allows it (RFC 9110 13.1.5 and 14.2), or 416."""
    whole = Transfer(form.content, form.zstd, 0, form.length, HTTPStatus.OK, headers)
    if not _is_ranged(request) or request.headers.get(hdrs.IF_RANGE, form.etag).strip() != form.etag:
        return whole
    span = parse_range(request.headers[hdrs.RANGE], form.length)
    if span is None:
        return whole
    if not span:
        return HeadersOnly(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers | {"Content-Range": f"bytes */{form.length}"}
        )
    first, last = span
    headers["Content-Range"] = f"bytes {first}-{last}/{form.length}"
    return Transfer(form.content, form.zstd, first, last - first + 1, HTTPStatus.PARTIAL_CONTENT, headers)
