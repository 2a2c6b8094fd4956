"""aiohttp's protocol for one connection, whose own responses are like all others of this server.

What is no HTTP never reaches the application: aiohttp refuses it by itself, and so it does where a handler fails.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from symcache_server.http.content import SIGNATURE

__all__ = ["is_worth_a_line", "protocol"]


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, UnicodeEncodeError) and not _is_text(request):
            # Bytes that are no UTF-8 come as surrogates, which fit into no response.
            response: web.StreamResponse = web.Response(status=400, text="a header field is not UTF-8\n")
            response.force_close()
        else:
            response = super().handle_error(request, status, exc, message)
        response.headers.update(SIGNATURE | {"Cache-Control": "no-store"})
        return response


def protocol(server: web.Server) -> web.RequestHandler:
    """Return the protocol of the next connection to `server`."""
    made = server()
    made.__class__ = _Protocol  # which adds no state, and so can take the place of what the server makes
    return made


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a message of aiohttp's is about this server, and not about a request that is none: that is 400."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | RequestPayloadError))


def _is_text(request: web.BaseRequest) -> bool:
    try:
        "".join(request.headers.values()).encode()
    except UnicodeEncodeError:
        return False
    return True
