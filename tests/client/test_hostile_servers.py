"""Servers that send clients elsewhere, dawdle, or never end: nobody is led astray, kept waiting or filled up."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from aiohttp import web
from yarl import URL

from symcache.client import FetchedImage, Fetcher, LocalCache, SymbolClient, body, get_document, http_session, lookup
from symcache.client import session as session_module
from symcache.client.urls import retry_after
from symcache.errors import IntegrityError, RemoteError, StorageError, SymcacheError
from symcache.images import ImageRequest, SourceRequest
from tests.client.lying_server import LyingServer
from tests.support.disks import mounted_disk
from tests.support.servers import Samples, uuid_of


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
            with pytest.raises(RemoteError, match="redirects to http://localhost"):
                get_document(server.url, "releases")
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


async def _trickle(request: web.Request, **headers: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    while True:
        await response.write(b"\xcf")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("told", ["", "100000", "100000000"], ids=["no-size", "small", "large"])
def test_a_server_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setattr(body, "_WINDOW_SECONDS", 0.2)
    headers = {"X-Symcache-Size": told} if told else {}
    with (
        LyingServer(lambda request: _trickle(request, **headers)) as server,
        pytest.raises(RemoteError, match=rf"{server.url}: sends too slowly .* while fetching"),
    ):
        _fetch(server.url, tmp_path, ImageRequest(UUID(int=1)))
    assert len(server.requests) == 2
    assert _left(tmp_path) == []


def test_what_comes_slowly_but_steadily_is_taken(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_WINDOW_SECONDS", 0.3)
    monkeypatch.setattr(body, "_LEAST", 1000)
    data = samples.dylib.read_bytes()
    step = len(data) // 5 + 1
    assert step > 1000

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Symcache-Size": str(len(data))})
        await response.prepare(request)
        for start in range(0, len(data), step):
            await asyncio.sleep(0.1)  # all of it takes longer than the window
            await response.write(data[start : start + step])
        return response

    with LyingServer(slow) as server:
        fetched = _fetch(server.url, tmp_path, ImageRequest(samples.uuid))
    assert fetched is not None
    assert fetched.path.read_bytes() == data
    assert len(server.requests) == 1


def test_documents_look_ups_and_heads_that_trickle_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_WINDOW_SECONDS", 0.2)
    monkeypatch.setattr(lookup, "_ALL_SECONDS", 0.2)
    with LyingServer(_trickle) as server, SymbolClient([server.url], tmp_path) as client:
        with pytest.raises(RemoteError, match="sends too slowly"):
            get_document(server.url, "releases")
        with pytest.raises(RemoteError, match="sends too slowly"):
            client.look_up([UUID(int=1)])

    async def trickle_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async def fetch() -> None:
        async with await asyncio.start_server(trickle_head, "127.0.0.1", 0) as listening, http_session() as session:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            fetcher = Fetcher(session, LocalCache(tmp_path), attempts=1)
            await fetcher.fetch(url, ImageRequest(UUID(int=1)), lambda *_: None)

    monkeypatch.setattr(session_module, "_HEAD_SECONDS", 0.2)
    with pytest.raises(RemoteError, match=r"no response within 0\.2 seconds"):
        asyncio.run(fetch())


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(1 << 18))


def test_what_tells_no_size_ends_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_MOST_UNTOLD", 3 << 20)
    monkeypatch.setattr(lookup, "_MAX_RESPONSE", 1 << 20)
    with LyingServer(_endless) as server, SymbolClient([server.url], tmp_path) as client:
        with pytest.raises(IntegrityError, match="more than 3145728 bytes come"):
            _fetch(server.url, tmp_path, ImageRequest(UUID(int=1)))
        with pytest.raises(RemoteError, match="more than 67108864 bytes come"):
            get_document(server.url, "releases")
        with pytest.raises(RemoteError, match="more than 1048576 bytes"):
            client.look_up([UUID(int=1)])
        assert client.fetch_sources([SourceRequest(UUID(int=1), "/a.c")]) == {}
    assert _left(tmp_path) == []


def test_no_server_fills_the_disk(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_LOOK_AT_DISK", 1 << 20)
    request = ImageRequest(uuid_of(samples.large))
    with mounted_disk(tmp_path / "disk", 8) as disk:
        with LyingServer(_endless) as server, pytest.raises(IntegrityError, match="less is left on the disk"):
            _fetch(server.url, disk / "cache", request)
        assert _left(disk) == []

        async def promise(request: web.Request) -> web.StreamResponse:
            return web.Response(body=b"x", headers={"X-Symcache-Size": str(9 << 20), "Content-Encoding": "zstd"})

        with LyingServer(promise) as server, pytest.raises(StorageError, match="No space left on device"):
            _fetch(server.url, disk / "cache", request)
        assert _left(disk) == []
        with LyingServer(_sends(samples.large.read_bytes())) as server:
            assert _fetch(server.url, disk / "cache", request) is not None


def test_a_full_disk_keeps_no_part_that_cannot_be_continued(samples: Samples, tmp_path: Path) -> None:
    data = samples.large.read_bytes()

    async def untold(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(data)
        return response

    with mounted_disk(tmp_path / "disk", 2) as disk, LyingServer(untold) as server:
        with pytest.raises(SymcacheError):
            _fetch(server.url, disk / "cache", ImageRequest(uuid_of(samples.large)))
        assert _left(disk) == []
        assert shutil.disk_usage(disk).free > 1 << 20


@pytest.mark.parametrize(
    ("field", "number"),
    [("X-Symcache-Size", "²"), ("X-DEBUGINFOD-SIZE", "²"), ("Content-Range", "bytes 0-1/" + "9" * 5000)],
    ids=["ours", "debuginfod", "range"],
)
def test_what_python_cannot_read_as_a_number_promises_nothing(
    samples: Samples, tmp_path: Path, field: str, number: str
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=samples.dylib.read_bytes(), headers={field: number})

    with LyingServer(answer) as server:
        fetched = _fetch(server.url, tmp_path, ImageRequest(samples.uuid))
    assert fetched is not None
    assert fetched.path.read_bytes() == samples.dylib.read_bytes()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(None, 0), ("7", 7), ("86400", 60), ("9" * 12, 60), ("²", 0), ("-1", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)],
)
def test_a_server_may_ask_to_wait_within_reason(field: str | None, seconds: int) -> None:
    assert retry_after(field) == seconds


def test_a_look_up_waits_as_it_is_told_however_the_field_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(lookup, "time", SimpleNamespace(sleep=waits.append))

    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"retry-after": "3"})

    with (
        LyingServer(busy) as server,
        SymbolClient([server.url], tmp_path) as client,
        pytest.raises(RemoteError, match="answers 429"),
    ):
        client.look_up([UUID(int=1)])
    assert waits == [3.0] * 4
