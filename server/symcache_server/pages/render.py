"""Makes pages: each is one document of plain data, which a template shows, and which `.json` returns as it is.

Everything in it comes from other machines: Jinja escapes it, and `finalize` makes what is not printable visible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import quote

import aiohttp_jinja2
import jinja2
import markupsafe
from aiohttp import hdrs, web

from symcache import __version__
from symcache.style import style_sheet
from symcache.text import json_printable, printable, printable_value
from symcache_server.keys import CONFIG, in_background

__all__ = [
    "FILES",
    "add_page",
    "error_page",
    "first_row",
    "page",
    "page_links",
    "query_link",
    "set_up",
    "static_file",
    "wants_page",
]

FILES = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}
_HEADERS = {
    # Only this server's script and style sheet, and no frames: strangers have chosen the names on these pages.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    # Not `no-referrer`: browsers would send the forms of these pages with `Origin: null` (Fetch Standard, "append a
    # request Origin header"), and over plain HTTP nothing else tells that they come from here.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_STATUSES = frozenset(HTTPStatus)
_LAST_ROW = 10_000_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def set_up(app: web.Application) -> None:
    """Give the application its templates."""
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.PackageLoader("symcache_server.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable_value,
    )
    environment.filters |= {
        "size": _size,
        "segment": lambda text: quote(str(text), safe=""),
        "number": lambda number: f"{number:,}".replace(",", "\u202f"),
        "day": _day,
        "lines": lambda text: markupsafe.escape(printable(text, keep="\n\t")),
        "folder": lambda path: str(path).rpartition("/")[0],
        "name": lambda path: str(path).rpartition("/")[2],
        "count": lambda number, one, many="": (
            f"{number:,} ".replace(",", "\u202f") + (one if number == 1 else many or one + "s")
        ),
    }
    environment.globals |= {"version": __version__, "static": {name: _address(name) for name in FILES}}


def add_page(router: web.UrlDispatcher, path: str, handler: Handler) -> None:
    """Have a handler send a page at `path`, and its document behind `.json`."""
    router.add_get("/index.json" if path == "/" else f"{path}.json", handler)
    router.add_get(path, handler)


async def page(request: web.Request, template: str, document: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Show a document, whose texts are foreign, or send it as JSON where that is requested."""
    if _is_document(request):
        body = await in_background(request.app, lambda: json_printable(json.dumps(document)).encode())
        headers = {"Cache-Control": _HEADERS["Cache-Control"]}
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)
    path = "/index" if request.path == "/" else request.path.rstrip("/")
    context = {
        "has_json": request.method == hdrs.METH_GET and status < 400,
        **document,
        "server": f"{request.scheme}://{'' if request.app[CONFIG].open_reads else 'me:TOKEN@'}{request.host}",
        "json_link": f"{quote(path)}.json" + (f"?{query}" if (query := request.rel_url.raw_query_string) else ""),
    }
    text = await in_background(request.app, aiohttp_jinja2.render_string, template, request, context)
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)


def wants_page(request: web.Request) -> bool:
    """Return whether an error is shown as a page or document: debuggers and scripts do not accept `text/html`."""
    return "text/html" in request.headers.get(hdrs.ACCEPT, "") or _is_document(request)


def _is_document(request: web.Request) -> bool:
    return (resource := request.match_info.route.resource) is not None and resource.canonical.endswith(".json")


async def error_page(request: web.Request, status: int, reason: str, hint: str) -> web.Response:
    """Return an error as a page, or as a document behind `.json`."""
    title = HTTPStatus(status).phrase if status in _STATUSES else "This did not work"
    document = {"title": title, "status": status, "reason": reason, "error": reason, "hint": hint}
    return await page(request, "error.html", document, status=status)


def query_link(request: web.Request, **changes: object) -> str:
    """Return a link to the page that is requested with other parameters; None takes one away."""
    parameters = {**request.query, **changes}
    query = "&".join(
        f"{quote(name, safe='')}={quote(str(value), safe='')}"
        for name, value in parameters.items()
        if value is not None
    )
    return f"?{query}"


def first_row(request: web.Request) -> int:
    """Return the number of the first row to show of a list, the parameter `from`. Raises ValueError."""
    return max(0, min(int(request.query.get("from", "0")), _LAST_ROW))


def page_links(request: web.Request, first: int, rows: int, total: int) -> dict[str, str]:
    """Return links to the `previous` so many rows of a list and to the `next`; empty where there are none."""
    before = max(0, min(first, total) - rows) or None
    return {
        "previous": query_link(request, **{"from": before}) if first else "",
        "next": query_link(request, **{"from": first + rows}) if first + rows < total else "",
    }


@cache
def static_file(name: str) -> bytes:
    """Return one of `FILES`."""
    if name == "style.css":
        return style_sheet().encode()
    return (resources.files("symcache_server.pages") / "static" / name).read_bytes()


def _address(name: str) -> str:
    """Return where a static file is, in this version of it: browsers may keep it for ever."""
    return f"/{name}?{hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def _size(size: int) -> str:
    """Return a size for people, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _day(time: str) -> str:
    """Return the day of a time in ISO 8601 in words that fit today; other text as it is."""
    try:
        then = datetime.fromisoformat(time)
        day = (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError):
        return time[:40]
    days = (datetime.now(UTC).date() - day).days
    return {0: "today", 1: "yesterday"}.get(days, f"{days} days ago" if 1 < days < 15 else day.isoformat())
