"""Servers that send clients elsewhere: nobody is led astray."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from aiohttp import web
from yarl import URL

from symcache.client import FetchedImage, Fetcher, LocalCache, SymbolClient, http_session
from symcache.client import session as session_module
from symcache.errors import RemoteError
from symcache.images import ImageRequest
from tests.client.lying_server import LyingServer
from tests.support.servers import Samples


def _fetch(url: str, folder: Path, request: ImageRequest, *, token: str = "") -> FetchedImage | None:
    """Fetch from one server, in two attempts without a pause."""

    async def fetch() -> FetchedImage | None:
        async with http_session() as session:
            tokens = {url: token} if token else None
            fetcher = Fetcher(session, LocalCache(folder), backoff=0.001, attempts=2, tokens=tokens)
            return await fetcher.fetch(url, request, lambda *_: None)

    return asyncio.run(fetch())


def _left(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def _sends(data: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def send(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers={"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    return send


def _redirects(target: str, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def redirect(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=307, headers={"Location": target + request.path} | named)

    return redirect


def _other_name(url: str) -> str:
    """Return the URL of a server on 127.0.0.1 under its other name."""
    return url.replace("127.0.0.1", "localhost")


def test_a_redirect_is_followed_to_the_same_host_only(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, request = samples.dylib.read_bytes(), ImageRequest(samples.uuid)
    with LyingServer(_sends(data)) as store:
        with LyingServer(_redirects(store.url)) as server:
            fetched = _fetch(server.url, tmp_path / "same", request, token="secret")
        assert fetched is not None
        assert fetched.path.read_bytes() == data
        with LyingServer(_redirects(_other_name(store.url))) as server:
            with pytest.raises(RemoteError, match="redirects to http://localhost, another host") as caught:
                _fetch(server.url, tmp_path / "other", request, token="secret")
            assert len(store.requests) == len(server.requests) == 1
            with SymbolClient([server.url], tmp_path / "other") as client, pytest.raises(RemoteError):
                client.fetch_sources([SourceRequest(samples.uuid, "/a.c")])
            assert len(store.requests) == 1
            assert _left(tmp_path / "other") == []
            assert "SYMCACHE_REDIRECT_HOSTS=localhost" in caught.value.hint
            monkeypatch.setenv("SYMCACHE_REDIRECT_HOSTS", "cdn.example localhost")
            assert _fetch(server.url, tmp_path / "other", request, token="secret") is not None
        assert len(store.requests) == 2
        assert not any("Authorization" in headers for _, headers in store.requests)


def test_a_redirect_is_followed_where_a_symcache_server_announces_it(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, request = samples.dylib.read_bytes(), ImageRequest(samples.uuid)
    with LyingServer(_sends(data)) as store:
        target = _other_name(store.url)
        with LyingServer(_redirects(target, X_Symcache_Version="2", X_Symcache_Redirect_Host="localhost")) as server:
            fetched = _fetch(server.url, tmp_path / "announced", request, token="secret")
            assert fetched is not None
            assert fetched.path.read_bytes() == data
            assert "Authorization" in server.requests[0][1]
            assert "Authorization" not in store.requests[0][1]

            async def is_public(host: str) -> bool:
                return host == "127.0.0.1"

            monkeypatch.setattr(session_module, "_is_public", is_public)
            with pytest.raises(RemoteError, match="from a public address to a private one"):
                _fetch(server.url, tmp_path / "inwards", request)
        # What is announced by the place that a server redirects to counts for nothing.
        monkeypatch.undo()
        with (
            LyingServer(_redirects(store.url, X_Symcache_Redirect_Host="127.0.0.1")) as second,
            LyingServer(_redirects(_other_name(second.url), X_Symcache_Redirect_Host="localhost")) as server,
            pytest.raises(RemoteError, match=r"redirects to http://127\.0\.0\.1, another host"),
        ):
            _fetch(server.url, tmp_path / "chain", request)
        assert len(second.requests) == len(store.requests) == 1
        # Behind a proxy that sends on from its other port, the server may say so still.
        with (
            LyingServer(_redirects(target, X_Symcache_Redirect_Host="localhost")) as second,
            LyingServer(_redirects(second.url)) as server,
        ):
            assert _fetch(server.url, tmp_path / "proxy", request) is not None


def test_an_older_server_that_announces_nothing_sends_by_itself(samples: Samples, tmp_path: Path) -> None:
    data = samples.dylib.read_bytes()
    with LyingServer(_sends(data)) as store:

        async def older(request: web.Request) -> web.StreamResponse:
            if request.headers["Accept-Encoding"] == "zstd":
                location = _other_name(store.url) + request.path
                return web.Response(status=307, headers={"Location": location, "X-Symcache-Version": "0.1.0"})
            return web.Response(body=data, headers={"X-Symcache-Version": "0.1.0"})

        with LyingServer(older) as server:
            fetched = _fetch(server.url, tmp_path, ImageRequest(samples.uuid))
        assert fetched is not None
        assert fetched.path.read_bytes() == data
        assert store.requests == []


def test_a_circle_of_redirects_is_left(tmp_path: Path) -> None:
    async def circle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.path})

    with LyingServer(circle) as server, pytest.raises(RemoteError, match="more than 5 redirects in a row"):
        try:
            _fetch(server.url, tmp_path, ImageRequest(UUID(int=1)))
        finally:
            assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("source", "location", "refused"),
    [
        ("https://a.example/x", "/y", False),
        ("https://a.example/x", "https://a.example:8443/y", False),
        ("http://a.example/x", "https://A.example/y", False),
        ("https://a.example/x", "http://a.example/y", True),
        ("https://a.example/x", "//b.example/y", True),
        ("http://a.example/x", "http://a.example@b.example/y", True),
        ("http://a.example/x", "http://a.example.b.example/y", True),
        ("http://a.example/x", "http://169.254.169.254/latest", True),
        ("http://a.example/x", "file:///etc/passwd", True),
    ],
)
async def test_hosts_are_compared_as_they_will_be_asked(source: str, location: str, refused: bool) -> None:
    response = SimpleNamespace(url=URL(source), headers={"Location": location})
    try:
        await session_module._check_redirect(None, SimpleNamespace(), SimpleNamespace(response=response))
    except RemoteError:
        assert refused
    else:
        assert not refused


async def test_addresses_are_told_apart() -> None:
    for host in ("127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%1", "::ffff:192.168.0.1"):
        assert not await session_module._is_public(host), host
    for host in ("1.1.1.1", "2606:4700:4700::1111"):
        assert await session_module._is_public(host), host
