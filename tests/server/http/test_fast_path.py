"""What is answered from memory is answered as before: no byte of it, nor of what comes around it, may differ."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import zstandard
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from symcache.images import ImageRequest
from symcache.library import Library, ingest, remove_build
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.files.decoded import DecodedCache
from symcache_server.http.connection import protocol
from symcache_server.http.content import Content, PlainFile, send
from symcache_server.http.fast_path import FastPath, FastPathLogger
from symcache_server.http.metrics import TYPE
from symcache_server.keys import FAST_PATH
from tests.client.lying_server import LyingServer
from tests.support.http import request
from tests.support.processes import open_files
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, noise_image, serve, stage_variant, uuid_of
from tests.support.waiting import until

_REPEATED = re.compile(r"^symcache_fast_path_responses_total ([0-9.]+)", re.MULTILINE)


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
    lines = [f"{method} {path} HTTP/1.1", "Host: symbols", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _repeated(server: Server) -> float:
    found = _REPEATED.search(request(server.url, "/metrics").body.decode())
    return float(found[1]) if found else 0.0


def _fields(head: bytes) -> tuple[str, dict[str, str]]:
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields.pop("Date"))
    return status, fields


@pytest.mark.parametrize("encoding", ["identity", "zstd"])
def test_the_second_answer_is_the_first_one_again(samples: Samples, tmp_path: Path, encoding: str) -> None:
    with serve(samples.library, tmp_path / "server") as server, _connect(server) as connection:
        reader = _Reader(connection)
        for image in (samples.large, samples.dylib):  # sent from the file, and read in one piece
            question = _ask(f"/buildid/{uuid_of(image).hex}/executable", f"Accept-Encoding: {encoding}")
            answers = []
            for _ in range(3):
                before = _repeated(server)
                connection.sendall(question)
                answers.append(reader.answer())
                assert _repeated(server) - before == (len(answers) > 1)
            assert _fields(answers[0][0]) == _fields(answers[1][0]) == _fields(answers[2][0])
            assert answers[0][1] == answers[1][1] == answers[2][1]
            body = answers[0][1]
            plain = zstandard.ZstdDecompressor().decompressobj().decompress(body) if encoding == "zstd" else body
            assert plain == image.read_bytes()
            connection.sendall(question.replace(b"GET", b"HEAD", 1))
            head, body = reader.answer("HEAD")
            assert (_fields(head), body) == (_fields(answers[0][0]), b"")


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


@pytest.mark.parametrize("seed", range(12))
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


@pytest.mark.parametrize("encoding", ["identity", "zstd"])
def test_what_is_remembered_does_not_overtake_what_takes_long(samples: Samples, tmp_path: Path, encoding: str) -> None:
    quick = _ask(f"/buildid/{samples.uuid.hex}/executable")
    slow = _ask(f"/buildid/{uuid_of(samples.large).hex}/executable", f"Accept-Encoding: {encoding}")
    with serve(samples.library, tmp_path / "server") as server, _connect(server) as connection:
        reader = _Reader(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(quick)
        assert reader.answer()[1] == samples.dylib.read_bytes()
        connection.sendall(slow)  # unpacked and checked first, which takes tens of milliseconds
        time.sleep(0.003)
        connection.sendall(quick)
        assert uuid_of(samples.large).hex.encode() in reader.answer()[0].lower().replace(b"-", b"")
        assert reader.answer()[1] == samples.dylib.read_bytes()


@pytest.mark.parametrize("behind", ["body", "half a head"])
def test_what_belongs_to_a_waiting_request_is_not_taken_for_one(samples: Samples, tmp_path: Path, behind: str) -> None:
    async def late(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response(status=404)

    remembered = _ask(f"/buildid/{samples.uuid.hex}/executable")
    if behind == "body":
        second = _ask("/api/v1/uuids", f"Content-Length: {len(remembered)}", method="POST")
        status = b"HTTP/1.1 415 "
    else:
        second = b"GET /healthz HTTP/1.1\r\nUser-Agent: "
        status = b"HTTP/1.1 200 "
    with (
        LyingServer(late) as upstream,
        serve(samples.library, tmp_path / "s", "--upstream", upstream.url) as server,
        _connect(server) as connection,
    ):
        reader = _Reader(connection)
        for _ in range(2):
            connection.sendall(remembered)
            assert reader.answer()[1] == samples.dylib.read_bytes()
        connection.sendall(_ask(f"/buildid/{UUID(int=1).hex}/executable"))  # waits for the other server
        time.sleep(0.2)
        connection.sendall(second)
        assert reader.answer()[0].startswith(b"HTTP/1.1 404 ")
        connection.sendall(remembered)
        head, body = reader.answer()
        assert head.startswith(status)
        assert body != samples.dylib.read_bytes()
        connection.sendall(_ask("/healthz"))
        assert reader.answer()[1] == b"ok\n"


def test_what_was_made_ready_while_the_library_changed_is_not_remembered(samples: Samples) -> None:
    class Slow(PlainFile):
        async def open(self, sha256: str, size: int) -> int:
            if change:
                fast.forget()
            return await super().open(sha256, size)

    headers = CIMultiDict({"Host": "symbols"})
    asked = make_mocked_request("GET", "/x", headers)
    asked[TYPE] = "debuginfod"
    size = samples.dylib.stat().st_size
    content = Content("0" * 64, size, size)
    with Library.open(samples.library) as library:
        fast = FastPath(DecodedCache(library, samples.folder / "decoded", 1 << 20), enabled=True)
        for change in (True, False):
            answer = asyncio.run(send(asked, Slow(samples.dylib), content, {}, memory=fast))
            assert answer.status == 200
            assert (fast.find(asked._message) is None) is change


def test_a_slow_reader_gets_everything_also_while_the_server_stops(samples: Samples, tmp_path: Path) -> None:
    path = f"/buildid/{uuid_of(samples.large).hex}/executable"
    question = _ask(path, "Accept-Encoding: identity")
    with serve(samples.library, tmp_path / "server") as server:
        assert request(server.url, path).status == 200
        with _connect(server, buffer=4096) as connection:
            connection.sendall(question)
            assert connection.recv(1, socket.MSG_PEEK)  # the answer has begun
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            head, body = _Reader(connection).answer()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == samples.large.read_bytes()
        assert server.process.wait(40) == 0
        assert (tmp_path / "server" / "stderr").read_text() == ""


def test_readers_that_give_up_leave_no_file_open(samples: Samples, tmp_path: Path) -> None:
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


def test_a_new_harvest_and_a_removal_change_what_was_remembered(samples: Samples, tmp_path: Path) -> None:
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


def test_a_stored_file_that_was_changed_is_not_sent_from_memory(samples: Samples, tmp_path: Path) -> None:
    image = noise_image(tmp_path)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_variant(image, "22G120", None, "/usr/lib/libnoise.dylib"))
        found = library.resolve(ImageRequest(uuid_of(image)))
        assert found is not None
        blob = next((tmp_path / "library").rglob(f"*{found.sha256}*"))
    question = _ask(f"/buildid/{uuid_of(image).hex}/executable", "Accept-Encoding: zstd")
    with serve(tmp_path / "library", tmp_path / "server") as server, _connect(server) as connection:
        reader = _Reader(connection)
        for _ in range(2):
            connection.sendall(question)
            assert reader.answer()[0].startswith(b"HTTP/1.1 200 ")
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(data)
        connection.sendall(question)
        assert reader.answer()[0].startswith(b"HTTP/1.1 500 ")


def test_what_needs_a_token_is_never_answered_from_memory(samples: Samples, tmp_path: Path) -> None:
    path = f"/buildid/{uuid_of(samples.large).hex}/executable"
    state = {f"XDG_{n}_HOME": str(tmp_path / "server" / n.lower()) for n in ("DATA", "CONFIG", "CACHE", "STATE")}
    made = subprocess.run(
        [sys.executable, "-m", "symcache", "token", "create", "reader", "--scope=read"],
        env=os.environ | state,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    with serve(samples.library, tmp_path / "server", "--require-token") as server, _connect(server) as connection:
        reader = _Reader(connection)
        for field, status in ((f"Authorization: Bearer {token}", b"200"), ("Accept: */*", b"401")) * 2:
            connection.sendall(_ask(path, field))
            assert reader.answer()[0].split(b" ")[1] == status


@pytest.mark.parametrize("through_proxy", [False, True])
def test_what_is_remembered_counts_toward_the_rate(samples: Samples, tmp_path: Path, through_proxy: bool) -> None:
    options = ("--lookup-rate", "0.5", *(("--trust-proxy", "127.0.0.1") if through_proxy else ()))
    with serve(samples.library, tmp_path / "server", *options) as server, _connect(server) as connection:
        reader = _Reader(connection)
        for client in ("192.0.2.1", "192.0.2.2")[: 1 + through_proxy]:
            question = _ask(f"/buildid/{samples.uuid.hex}/executable", f"X-Forwarded-For: 192.0.2.7, {client}")
            start, statuses = time.monotonic(), [b"200"]
            while statuses[-1] == b"200":
                connection.sendall(question)
                statuses.append(reader.answer()[0].split(b" ")[1])
            assert statuses[-1] == b"429"
            # A burst of thirty seconds' worth is allowed, and what time allows meanwhile.
            assert 15 <= len(statuses) - 2 <= 16 + 0.5 * (time.monotonic() - start)


def test_a_connection_ends_when_nothing_has_come_for_long(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache_server.http.fast_path._IDLE_SECONDS", 1000.0)
    quick = _ask(f"/buildid/{samples.uuid.hex}/executable")

    async def run() -> None:
        loop, ahead = asyncio.get_running_loop(), 0.0
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + ahead)  # what a busy machine takes is nothing beside it
        app = create_app(ServerConfig(str(samples.library), tmp_path / "cache", tmp_path / "state"))
        runner = web.AppRunner(app, access_log_class=FastPathLogger)
        await runner.setup()
        assert runner.server
        protocols = app[FAST_PATH].protocols(partial(protocol, runner.server))
        listener = await loop.create_server(protocols, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())

            async def answered(question: bytes) -> bool:
                writer.write(question)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"Content-Length: ([0-9]+)", head)[1]))  # type: ignore[index]
                return head.startswith(b"HTTP/1.1 200 ")

            async def passes(seconds: float) -> None:
                nonlocal ahead
                ahead += seconds
                for _ in range(10):  # for all that is due now
                    await asyncio.sleep(0)

            for _ in range(5):  # each from memory but the first; none comes late
                assert await answered(quick)
                await passes(700)
            # aiohttp has a timer of its own, and waits longer.
            assert await answered(_ask("/healthz"))
            await passes(2000)
            assert await answered(quick)
            await passes(800)
            assert not reader.at_eof()
            await passes(300)
            assert await reader.read() == b""
            writer.close()
        finally:
            listener.close()
            await runner.cleanup()

    asyncio.run(run())
