"""Which web pages may send requests and read the responses: the server's own, and those that the operator names.

Source: Fetch Standard, "CORS protocol" and "Fetch metadata". A page of any origin may send a POST of text without being
asked first, to a server on loopback or in a company's network, too; it cannot read the response, but the server works.
So such a request is refused where a browser says that another page sends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import hdrs, web

__all__ = ["cors_headers", "preflight_response", "refuse_other_pages"]

_PREFLIGHT_SECONDS = 86400
_FIELD_NAMES = re.compile(r"[A-Za-z0-9-]{1,64}(?:\s*,\s*[A-Za-z0-9-]{1,64}){0,15}")


def refuse_other_pages(request: web.BaseRequest, origins: tuple[str, ...]) -> None:
    """Raise HTTPForbidden if a page sends this that is neither one of `origins` nor the server's own."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or origin in origins or request.headers.get("Sec-Fetch-Site") == "same-origin":
        return
    # Older browsers, and all of them over plain HTTP, send nothing but Origin.
    if urlsplit(origin).netloc and urlsplit(origin).netloc == request.headers.get(hdrs.HOST, ""):
        return
    raise web.HTTPForbidden(
        text=f"pages of {origin[:100]} may not have functions named here: it would take --allow-origin"
    )


def cors_headers(request: web.BaseRequest, origins: tuple[str, ...]) -> dict[str, str]:
    """Return the headers by which a page of one of `origins` may read a response; none for any other."""
    if not origins:
        return {}
    origin = request.headers.get(hdrs.ORIGIN, "")
    return {"Vary": "Origin"} | ({"Access-Control-Allow-Origin": origin} if origin in origins else {})


def preflight_response(request: web.BaseRequest, origins: tuple[str, ...]) -> web.Response:
    """Return what tells a browser whether a page may send a POST here; see `cors_headers`."""
    headers = {"Allow": "POST, OPTIONS", "Cache-Control": "no-store"}
    if request.headers.get(hdrs.ORIGIN) in origins:
        headers |= _permission(request.headers)
    return web.Response(status=204, headers=headers)


def _permission(requested: Mapping[str, str]) -> dict[str, str]:
    headers = {"Access-Control-Allow-Methods": "POST", "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS)}
    if _FIELD_NAMES.fullmatch(fields := requested.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")):
        headers["Access-Control-Allow-Headers"] = fields
    if requested.get("Access-Control-Request-Private-Network") == "true":  # a draft that Chromium follows
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
