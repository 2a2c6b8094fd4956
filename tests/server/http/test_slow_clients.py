"""Clients that say nothing, or take nothing: they are given up, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from symcache_server import process
from symcache_server.config import ServerConfig
from symcache_server.files.decoded import DecodedCache
from symcache_server.http import listener
from symcache_server.http.connection import ClientConnection
from symcache_server.http.limits import parse_network
from tests.support.servers import Samples, uuid_of

HEAD, BODY = 0.4, 0.6
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def _serving(samples: Samples, folder: Path, **fields: Any) -> AsyncIterator[int]:
    """Serve in this process, and return the port."""
    fields = {"head_seconds": HEAD, "body_seconds": BODY, "stop_seconds": 0.1} | fields
    config = ServerConfig(str(samples.library), folder / "cache", folder / "state", **fields)
    sock, ready = listener.listen("127.0.0.1", 0), asyncio.Event()
    serving = asyncio.create_task(process._serve(config, sock, lambda _: ready.set()))
    try:
        await ready.wait()
        yield sock.getsockname()[1]
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await serving


async def _connect(port: int, *, buffer: int | None = None) -> Streams:
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _decoded_files() -> list[str]:
    """Return the files of the server's cache that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [link for link in links if "/decoded/" in link]


async def _status(streams: Streams, data: bytes) -> int:
    """Send a request, and return the status of the response, with its body read."""
    streams[1].write(data)
    return (await _response(streams))[0]


async def _response(streams: Streams) -> tuple[int, bytes]:
    reader = streams[0]
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(size)


async def _ends(streams: Streams) -> float:
    """Return after how many seconds the server ends a connection, within which nothing comes."""
    start = asyncio.get_running_loop().time()
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(streams[0].read(), 20) == b""
    return asyncio.get_running_loop().time() - start


async def test_heads_that_do_not_become_whole(samples: Samples, tmp_path: Path) -> None:
    async with _serving(samples, tmp_path) as port:

        async def nothing() -> None:
            assert await _ends(await _connect(port)) >= HEAD * 0.9

        async def a_byte_at_a_time() -> None:
            streams = await _connect(port)

            async def send() -> None:
                for byte in _get("/healthz") * 10:
                    streams[1].write(bytes([byte]))
                    await asyncio.sleep(HEAD / 12)

            sending = asyncio.create_task(send())
            assert HEAD * 0.9 <= await _ends(streams) < 4 * HEAD
            sending.cancel()

        async def nothing_between_requests() -> None:
            """As a proxy that keeps its connections for the next client."""
            streams = await _connect(port)
            assert await _status(streams, _get("/healthz")) == 200
            await asyncio.sleep(HEAD * 1.5)
            assert await _status(streams, _get("/healthz")) == 200
            streams[1].write(b"GET /healthz HT")
            assert await _ends(streams) >= HEAD * 0.9

        await asyncio.gather(nothing(), a_byte_at_a_time(), nothing_between_requests())


async def test_bodies_of_which_nothing_comes_or_goes(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = f"/buildid/{uuid_of(samples.large).hex}/executable", samples.large.read_bytes()
    real = DecodedCache.open

    async def slow(cache: DecodedCache, sha256: str, size: int) -> int:
        await asyncio.sleep(1.3 * max(HEAD, BODY))
        return await real(cache, sha256, size)

    async with _serving(samples, tmp_path) as port:
        body = b'{"images": [{"uuid": "23516BE4-29BE-350C-91C9-F36E7999F0F1"}]}'
        fields = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        post = "\r\n".join(["POST /api/v1/uuids HTTP/1.1", *fields, "", ""]).encode()

        async def sends_nothing() -> None:
            assert await _status(await _connect(port), post + b'{"uuid') == 408

        async def sends_slowly() -> None:
            streams = await _connect(port)
            streams[1].write(post)
            for start in range(0, len(body), 6):
                streams[1].write(body[start : start + 6])
                await asyncio.sleep(BODY / 6)
            assert (await _response(streams))[0] == 200

        async def takes_nothing() -> None:
            reader, writer = await _connect(port, buffer=4096)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(_get(path))
            await asyncio.sleep(2.5 * BODY)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read()) < len(data)

        async def takes_it_slowly() -> None:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                loop, size = asyncio.get_running_loop(), 0
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await loop.sock_sendall(sock, _get(path))
                start = loop.time()
                while loop.time() - start < 2 * BODY:
                    size += len(await loop.sock_recv(sock, 4000))
                    await asyncio.sleep(BODY / 10)
                while size < len(data) and (part := await loop.sock_recv(sock, 1 << 20)):
                    size += len(part)
            assert size >= len(data)

        await asyncio.gather(sends_nothing(), sends_slowly(), takes_nothing(), takes_it_slowly())
        # While the server is at work nobody has to say anything.
        monkeypatch.setattr(DecodedCache, "open", slow)
        assert await _status(await _connect(port), _get(path)) == 200


async def test_a_body_that_nobody_takes_leaves_nothing_open(
    samples: Samples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _serving(samples, tmp_path) as port:
        writer = (await _connect(port, buffer=4096))[1]
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(_get(f"/buildid/{uuid_of(samples.large).hex}/executable"))
        while not _decoded_files():
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.5 * BODY)
        assert not _decoded_files()
        writer.close()
    assert [r.message for r in caplog.records if r.name == "asyncio"] == []


async def test_what_has_ended_has_not_stalled(tmp_path: Path) -> None:
    """It may be polled before anybody takes note of its end."""
    loop, config = asyncio.get_running_loop(), ServerConfig("library", tmp_path, tmp_path)

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    connection = ClientConnection(web.Server(handler), config, loop=loop)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        await loop.connect_accepted_socket(lambda: connection, listening.accept()[0])
        assert not connection.has_stalled()
        connection.abort()
        await connection.lost
        assert not connection.has_stalled()


@pytest.mark.parametrize("who", ["somebody", "this machine", "a proxy"])
async def test_connections_of_one_address(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    if who != "this machine":
        monkeypatch.setattr(listener, "is_own", lambda _: False)
    proxies = (parse_network("127.0.0.1"),) if who == "a proxy" else ()
    async with _serving(samples, tmp_path, head_seconds=30.0, connections_of_one=3, trusted_proxies=proxies) as port:
        first = [await _connect(port) for _ in range(3)]
        assert [await _status(streams, _get("/healthz")) for streams in first] == [200] * 3
        if who != "somebody":
            assert await _status(await _connect(port), _get("/healthz")) == 200
            return
        assert (await _response(await _connect(port)))[0] == 429
        first[0][1].close()
        await first[0][1].wait_closed()
        while (streams := await _connect(port)) and await _status(streams, _get("/healthz")) == 429:
            await asyncio.sleep(0.01)
        assert await _status(streams, _get("/healthz")) == 200


async def test_the_longest_idle_make_room(samples: Samples, tmp_path: Path) -> None:
    async with _serving(samples, tmp_path, head_seconds=30.0, max_connections=16) as port:
        busy, idle = await _connect(port, buffer=4096), [await _connect(port) for _ in range(15)]
        busy[1].write(_get(f"/buildid/{uuid_of(samples.large).hex}/executable"))
        await busy[0].readuntil(b"\r\n\r\n")
        assert await _status(idle[0], _get("/healthz")) == 200  # all others have said nothing yet
        more = [await _connect(port) for _ in range(8)]
        assert [await _status(streams, _get("/healthz")) for streams in more] == [200] * 8
        for streams in idle[1:9]:
            await _ends(streams)
        assert await _status(idle[0], _get("/healthz")) == 200
        assert len(await busy[0].readexactly(samples.large.stat().st_size)) == samples.large.stat().st_size


async def test_who_does_not_even_begin_with_tls(samples: Samples, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued, trust = authority.issue_cert("127.0.0.1"), ssl.create_default_context()
    authority.configure_trust(trust)
    files = {"tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key"}
    issued.cert_chain_pems[0].write_to_path(str(files["tls_cert"]))
    issued.private_key_pem.write_to_path(str(files["tls_key"]))
    async with _serving(samples, tmp_path, head_seconds=30.0, max_connections=16, **files) as port:
        silent = [await _connect(port) for _ in range(30)]
        assert await _status(await asyncio.open_connection("127.0.0.1", port, ssl=trust), _get("/healthz")) == 200
        await _ends(silent[0])
    async with _serving(samples, tmp_path, **files) as port:
        assert await _ends(await _connect(port)) >= HEAD * 0.9


async def test_no_more_files_can_be_opened(samples: Samples, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with _serving(samples, tmp_path, head_seconds=30.0) as port:
        waiting = [socket.socket() for _ in range(60)]
        for sock in waiting:
            sock.setblocking(False)
        used = {int(path.name) for path in Path("/dev/fd").iterdir()}
        free = [number for number in range(2 * len(used) + 20) if number not in used]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[20], limits[1]))
        try:
            for sock in waiting:
                sock.connect_ex(("127.0.0.1", port))
            waiting[-1].sendall(_get("/healthz"))
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(waiting[-1], 1000), 20)
            assert data.startswith(b"HTTP/1.1 200")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for sock in waiting:
                sock.close()
    told = [message for message in caplog.messages if "connection" in message]
    assert told == ["no connection can be taken now: Too many open files"]


def test_as_many_files_as_the_system_allows(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = []

    async def serve(_: ServerConfig, sock: socket.socket, __: process.Ready) -> None:
        sock.close()
        seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))

    monkeypatch.setattr(process, "_serve", serve)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        process.run(ServerConfig(str(samples.library), tmp_path, tmp_path, port=0), print)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert seen[0][0] >= min(limits[1], 10240)
