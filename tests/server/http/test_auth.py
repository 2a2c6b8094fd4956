"""Who may do what: written down here for every route, and refused where a handler does not say it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from yarl import URL

from symcache.library import Library
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.auth import Scope, TokenStore, requires
from tests.server.layouts.test_layouts import RESERVED, named_paths
from tests.support.servers import CACHES

_UUID, _SHA256 = "0" * 31 + "1", "1" * 64
_EVERYBODY, _READ, _WRITE, _ADMIN = "everybody", "read", "write", "admin"
_IN_PATH = "in the path"
"""What the path has to say, whatever else is sent: see tests/server/symbolicate/test_tokens.py."""
_WHO_MAY = {
    "GET /healthz": _EVERYBODY,
    "GET /readyz": _READ,
    "GET /metrics": _READ,
    "GET /": _READ,
    "GET /index.json": _READ,
    "GET /search": _READ,
    "GET /search.json": _READ,
    "POST /search": _READ,
    "GET /releases": _READ,
    "GET /releases/{build}": _READ,
    "GET /releases/{build}.json": _READ,
    "GET /diff": _READ,
    "GET /diff/{before}/{after}": _READ,
    "GET /diff/{before}/{after}.json": _READ,
    "GET /images/{uuid}": _READ,
    "GET /images/{uuid}.json": _READ,
    "GET /images/{uuid}/symbols": _READ,
    "GET /images/{uuid}/symbols.json": _READ,
    "GET /images/{uuid}/{sha256}": _READ,
    "GET /missing": _READ,
    "GET /missing.json": _READ,
    "GET /report": _READ,
    "POST /report": _READ,
    "POST /report.json": _READ,
    "GET /status": _READ,
    "GET /status.json": _READ,
    "GET /style.css": _READ,
    "GET /script.js": _READ,
    "GET /icon.svg": _READ,
    "GET /api/v1/openapi.json": _READ,
    "POST /api/v1/uuids": _READ,
    "GET /api/v1/uuids/{uuid}": _READ,
    "GET /api/v1/images": _READ,
    "GET /api/v1/releases": _READ,
    "GET /api/v1/releases/{build}": _READ,
    "GET /api/v1/coverage/{build}": _READ,
    "GET /api/v1/missing": _READ,
    "GET /api/v1/tokens": _ADMIN,
    "GET /api/v1/uploads/{sha256}": _READ,
    "PUT /api/v1/uploads/{sha256}": _WRITE,
    "POST /api/v1/uploads": _WRITE,
    "POST /api/v1/symbolicate": _READ,
    "POST /symbolicate/v5": _READ,
    "POST /source/v1": _READ,
    "OPTIONS /symbolicate/v5": _EVERYBODY,
    "OPTIONS /source/v1": _EVERYBODY,
    "POST /names/{token}/symbolicate/v5": _IN_PATH,
    "POST /names/{token}/source/v1": _IN_PATH,
    "OPTIONS /names/{token}/symbolicate/v5": _EVERYBODY,
    "OPTIONS /names/{token}/source/v1": _EVERYBODY,
    "* /{path}": _READ,
}
"""The lowest scope that may; where reads are open, nobody needs a token for `read`."""
_PARTS = {"uuid": _UUID, "sha256": _SHA256, "build": "22G120", "before": "1A1", "after": "1A2", "path": "nothing"}
_LOOK_UPS = [
    f"GET /buildid/{_UUID}/executable",
    f"GET /build/22G120/buildid/{_UUID}/debuginfo",
    f"GET /buildid/{_UUID}/section/.text",
    f"GET /buildid/{_UUID}/source/a.c",
    f"GET /libz.dylib/mach-uuid-{_UUID}/libz.dylib",
    f"GET /{_UUID[:2]}/{_UUID[2:]}/breakpad",
    f"GET /caches/{CACHES['22G120']}/dyld_shared_cache_arm64e",
    f"POST /buildid/{_UUID}/executable",
    "GET /nothing",
    "POST /nothing",
    "DELETE /api/v1/releases",
    "OPTIONS *",
]
"""Come without a route of their own."""


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    Library.open(tmp_path / "library", create=True).close()
    return ServerConfig(str(tmp_path / "library"), tmp_path / "cache", tmp_path / "state")


@pytest.fixture
async def app(config: ServerConfig) -> AsyncIterator[web.Application]:
    async with TestServer(app := create_app(config)):
        yield app


async def test_every_route_is_in_the_table(app: web.Application) -> None:
    routes = {f"{route.method} {route.resource.canonical}" for route in app.router.routes() if route.resource}
    assert {route for route in routes if not route.startswith(hdrs.METH_HEAD)} == _WHO_MAY.keys()


@pytest.mark.parametrize("open_reads", [True, False])
async def test_nobody_may_more_than_the_table_says(config: ServerConfig, open_reads: bool) -> None:
    config = dataclasses.replace(config, require_token=not open_reads)
    tokens = {scope.value: TokenStore(config.tokens).create(f"my-{scope}", [scope]) for scope in Scope}
    clients = {"": {}, "a guess": {"Authorization": "Bearer guess"}}
    clients |= {scope: {"Authorization": f"Bearer {token}"} for scope, token in tokens.items()}
    routes = {route: scope for route, scope in _WHO_MAY.items() if not route.startswith("*")}
    table = {route.format(**_PARTS, token="guess"): scope for route, scope in routes.items()}
    table |= {route.replace("GET", "HEAD"): scope for route, scope in table.items() if route.startswith("GET")}
    table |= dict.fromkeys(_LOOK_UPS, _READ)
    order = [_EVERYBODY, *tokens, _IN_PATH]
    async with TestClient(TestServer(create_app(config))) as client:
        for route, scope in table.items():
            method, path = route.split(" ")
            for who, headers in clients.items():
                allowed = order.index(scope) <= (order.index(who) if who in order else scope == _READ and open_reads)
                known = who in order and scope != _IN_PATH
                refusal = web.HTTPForbidden if known else web.HTTPUnauthorized
                async with client.request(method, URL(path, encoded=True), headers=headers) as response:
                    assert (response.status in {401, 403}) is not allowed, (route, who, response.status)
                    assert allowed or response.status == refusal.status_code, (route, who, response.status)


async def test_a_route_that_declares_nothing_is_refused(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def undeclared(request: web.Request) -> web.StreamResponse:
        return web.Response(text="secret")

    async def declared(request: web.Request) -> web.StreamResponse:
        return web.Response()

    admin = TokenStore(config.tokens).create("admin", [Scope.ADMIN])
    app = create_app(config)
    app.router.add_get("/late", undeclared)
    app.router.add_post("/late", requires(Scope.READ)(declared))
    async with TestClient(TestServer(app)) as client:
        for headers in ({}, {"Authorization": f"Bearer {admin}"}):
            async with client.get("/late", headers=headers) as response:
                assert (response.status, "secret" in await response.text()) == (403, False)
        async with client.post("/late") as response:  # so it is for nothing else
            assert response.status == 200

    monkeypatch.setattr("symcache_server.pages.register", lambda app: app.router.add_get("/early", undeclared))
    with pytest.raises(LookupError, match="undeclared"):
        create_app(config)


async def test_no_route_hides_a_look_up(app: web.Application) -> None:
    for name in {*RESERVED, *(part for route in _WHO_MAY for part in route.split("/")[1:] if part)}:
        for path, _ in named_paths(name, _UUID):
            match_info = await app.router.resolve(make_mocked_request("GET", path))
            assert match_info.route.resource and match_info.route.resource.canonical == "/{path}", path
