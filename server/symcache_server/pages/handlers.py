"""Which page is where."""

from __future__ import annotations

from aiohttp import web

from symcache_server.http.auth import Scope, requires, wait_for_access
from symcache_server.pages import image, misses, release, report, search, start, status
from symcache_server.pages.render import FILES, add_page, set_up, static_file

__all__ = ["register"]

_SHA256 = "{sha256:[0-9a-f]{64}}"
_AFTER = r"{after:(?!diff(?:\.sym)?$)[^{}/]+}"
"""A build. Excludes paths of the same length that look up a binary called `diff`."""


def register(app: web.Application) -> None:
    """Add the routes of the pages."""
    set_up(app)
    router = app.router
    add_page(router, "/", start.start)
    router.add_get("/releases", releases)
    add_page(router, "/search", search.search)
    router.add_post("/search", search.search_pasted, expect_handler=wait_for_access)
    add_page(router, "/releases/{build}", release.release)
    router.add_get("/diff", release.to_diff)
    add_page(router, f"/diff/{{before}}/{_AFTER}", release.diff)
    add_page(router, "/images/{uuid}", image.image)
    add_page(router, "/images/{uuid}/symbols", image.symbols)
    router.add_get(f"/images/{{uuid}}/{_SHA256}", image.content)
    add_page(router, "/missing", misses.missing)
    router.add_get("/report", report.report_form)
    for path in ("/report", "/report.json"):
        router.add_post(path, report.report, expect_handler=wait_for_access)
    add_page(router, "/status", status.status)
    for name in FILES:
        router.add_get(f"/{name}", static)


@requires(Scope.READ)
async def releases(request: web.Request) -> web.Response:
    """The list of releases is on the first page."""
    raise web.HTTPFound("/")


@requires(Scope.READ)
async def static(request: web.Request) -> web.Response:
    """Return the style sheet, the script or the icon; under the address that pages give, for ever."""
    name = request.path.removeprefix("/")
    caching = "public, max-age=31536000, immutable" if request.query_string else "public, max-age=300"
    headers = {"Cache-Control": caching}
    return web.Response(body=static_file(name), content_type=FILES[name], charset="utf-8", headers=headers)
