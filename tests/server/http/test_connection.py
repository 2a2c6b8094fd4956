"""Connections that stay open: answers in their order, whole or visibly cut, and no file left open behind them."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientPayloadError, ClientResponseError, ClientSession, web
from aiohttp.test_utils import RawTestServer

from symcache.library import Library, ingest, remove_build
from symcache_server.http.content import Content, PlainFile, send
from tests.support.http import request
from tests.support.processes import open_files
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, stage_variant, uuid_of
from tests.support.waiting import until


@contextlib.contextmanager
def _connect(server: Server, *, buffer: int | None = None) -> Iterator[socket.socket]:
    place = urlsplit(server.url)
    assert place.hostname and place.port
    with socket.socket() as connection:
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(30)
        connection.connect((place.hostname, place.port))
        yield connection


class _Reader:
    """Reads answers off a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._data = connection, b""

    def answer(self, method: str = "GET") -> tuple[bytes, bytes]:
        """Return head and body of the next answer."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        size = int(re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head + b"\r\nContent-Length: 0")[1])  # type: ignore[index]
        if method == "HEAD" or head.startswith(b"HTTP/1.1 304"):
            size = 0
        while len(self._data) < size:
            self._more()
        body, self._data = self._data[:size], self._data[size:]
        return head, body

    def _more(self) -> None:
        part = self._connection.recv(1 << 16)
        if not part:
            raise EOFError(f"the connection ended behind {self._data[-200:]!r}")
        self._data += part


def _ask(path: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _fields(head: bytes) -> tuple[str, dict[str, str]]:
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields.pop("Date"))
    return status, fields


def _mixture(samples: Samples) -> list[tuple[str, bytes]]:
    """Requests of every kind: (method, bytes)."""
    large = f"/buildid/{uuid_of(samples.large).hex}/executable"
    small = f"/buildid/{samples.uuid.hex}/executable"
    return [
        *[("GET", _ask(path, f"Accept-Encoding: {e}")) for path in (large, small) for e in ("zstd", "identity")] * 3,
        ("GET", _ask(small)),
        ("HEAD", _ask(large, method="HEAD")),
        ("GET", _ask(large, "Range: bytes=1000-1999")),
        ("GET", _ask(large, "If-None-Match: *")),
        ("GET", _ask(small, "X-Something: else")),
        ("GET", _ask(small, "X-Forwarded-For: 192.0.2.1")),
        ("GET", _ask(f"/buildid/{0:032x}/executable")),
        ("GET", _ask("/api/v1/releases")),
        ("POST", _ask("/api/v1/uuids", method="POST", body=b'{"uuids": []}')),
        ("POST", _ask(small, method="POST", body=b"GET / HTTP/1.1\r\n\r\n")),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_answers_keep_their_order_however_the_requests_arrive(server: Server, samples: Samples, seed: int) -> None:
    kinds = _mixture(samples)
    expected = []
    for method, data in kinds:
        with _connect(server) as connection:
            connection.sendall(data)
            head, body = _Reader(connection).answer(method)
            expected.append((_fields(head), body))
    chance = random.Random(seed)
    asked = [chance.randrange(len(kinds)) for _ in range(60)]

    def send(connection: socket.socket) -> None:
        for number in asked:
            data = kinds[number][1]
            cut = chance.randrange(len(data)) if chance.random() < 0.1 else len(data)
            for part in (data[:cut], data[cut:]):
                connection.sendall(part)
                time.sleep(0 if chance.random() < 0.02 else 0.001)

    with _connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each part is a packet
        sender = threading.Thread(target=send, args=[connection])
        sender.start()
        reader = _Reader(connection)
        for number in asked:
            head, body = reader.answer(kinds[number][0])
            assert (_fields(head), body) == expected[number], number
        sender.join()


def test_clients_that_give_up_leave_no_file_open(samples: Samples, tmp_path: Path) -> None:
    question = _ask(f"/buildid/{uuid_of(samples.large).hex}/executable", "Accept-Encoding: identity")
    with serve(samples.library, tmp_path / "server") as server:
        with _connect(server) as connection:
            connection.sendall(question)
            _Reader(connection).answer()
        before = open_files(server.process.pid)
        for number in range(100):
            with _connect(server, buffer=4096) as connection:
                connection.sendall(question)
                connection.recv(1000)
                if number % 2:  # a reset instead of an orderly end
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: open_files(server.process.pid) <= before + 2, "files stay open")
        assert request(server.url, "/healthz").status == 200
        assert (tmp_path / "server" / "stderr").read_text() == ""


def test_a_new_harvest_and_a_removal_change_the_next_answer(samples: Samples, tmp_path: Path) -> None:
    older, newer = samples.variants["22G120"], samples.variants["23A344"]
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_variant(older, "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib"))
        question = _ask(f"/buildid/{SHARED_UUID.hex}/executable")
        with serve(tmp_path / "library", tmp_path / "server") as server, _connect(server) as connection:
            reader = _Reader(connection)

            def settles_on(status: bytes, body: bytes | None) -> None:
                def asked() -> bool:
                    connection.sendall(question)
                    head, got = reader.answer()
                    return head.split(b" ")[1] == status and body in {None, got}

                until(asked)

            settles_on(b"200", older.read_bytes())
            ingest(library, stage_variant(newer, "23A344", CACHES["23A344"], "/usr/lib/libmoved.dylib", version="14.0"))
            settles_on(b"200", newer.read_bytes())
            remove_build(library, "23A344")
            remove_build(library, "22G120")
            settles_on(b"404", None)


@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_a_body_that_turns_out_shorter_never_looks_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(bytes(size))

    async def handler(asked: web.BaseRequest) -> web.StreamResponse:
        return await send(asked, PlainFile(tmp_path / "file"), Content("0" * 64, size + 1, size + 1), {})

    async with RawTestServer(handler) as server, ClientSession(raise_for_status=True) as client:
        with pytest.raises((ClientPayloadError, ClientResponseError)):
            await (await client.get(server.make_url("/"))).read()
