"""Under which names a server responds, what it says of its folders, and to whom it says that a body may come."""

from __future__ import annotations

import socket
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from symcache_server.config import ServerConfig
from symcache_server.http.auth import Scope, TokenStore
from tests.support.http import request
from tests.support.servers import Samples, serve

_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_UPLOAD = f"/api/v1/uploads/{'1' * 64}"


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        str(tmp_path / "library"), tmp_path / "cache", tmp_path / "state", host_names=("Symbols.example",)
    )


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LocalHost:8080",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:8080",
        "symbols.EXAMPLE:443",
        "symbols.example.",
    ],
)
def test_own_names(host: str, config: ServerConfig) -> None:
    assert config.is_own_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]",
        "localhost:80:80",
        "a@localhost",
        "[",
        "::1:x",
        "0.0.0.0",
    ],
)
def test_names_of_others(host: str, config: ServerConfig) -> None:
    assert not config.is_own_name(host)
    assert ServerConfig("library", Path("cache"), Path("state"), host="192.0.2.1").is_own_name(host)


def test_a_page_that_has_its_own_name_resolved_to_this_machine_reads_nothing(samples: Samples, tmp_path: Path) -> None:
    path = f"/buildid/{samples.uuid.hex}/executable"
    with serve(samples.library, tmp_path / "server", "--host-name", "symbols.example") as server:
        for host in ("evil.example", f"evil.example:{urlsplit(server.url).port}"):
            for own in (path, "/", "/healthz", "/api/v1/releases"):
                refused = _under(server.url, host, own)
                assert refused.startswith(b"HTTP/1.1 421 ")
                assert b"--host-name" in refused
        for host in ("symbols.example", "localhost"):
            assert _under(server.url, host, path).startswith(b"HTTP/1.1 200 ")


def _under(url: str, host: str, path: str) -> bytes:
    """Return the beginning of the response to a request for `host`."""
    return _sent(url, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())


def _sent(url: str, data: bytes, *then: bytes) -> bytes:
    """Send `data`, and what follows it after each `100 Continue`; return what came with the head of the response."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(data)
        came = b""
        waiting = list(then)
        while part := connection.recv(1 << 16):
            came += part
            if waiting and came.endswith(_GO_ON):
                connection.sendall(waiting.pop(0))
            elif b"\r\n\r\n" in came.removeprefix(_GO_ON):
                break
        return came


def test_only_who_may_send_a_body_is_told_to_go_on(samples: Samples, tmp_path: Path) -> None:
    state = TokenStore(tmp_path / "server" / "state" / "symcache" / "tokens.json")
    reader, writer = state.create("reader", [Scope.READ]), state.create("writer", [Scope.WRITE])

    def head(*fields: str) -> bytes:
        lines = (f"PUT {_UPLOAD} HTTP/1.1", "Host: localhost", "Content-Length: 4", "Connection: close", *fields)
        return "\r\n".join([*lines, "", ""]).encode()

    with serve(samples.library, tmp_path / "server") as server:
        expects = "Expect: 100-continue"
        for fields, status in (([], b"401"), ([f"Authorization: Bearer {reader}"], b"403")):
            assert _sent(server.url, head(expects, *fields)).startswith(b"HTTP/1.1 " + status)
        may = f"Authorization: Bearer {writer}"
        came = _sent(server.url, head(expects, may), b"data")
        assert came.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 ")  # its hash is another one
        assert _sent(server.url, head("Expect: miracles", may)).startswith(b"HTTP/1.1 417 ")


def test_a_token_that_has_expired_is_none(samples: Samples, tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "server" / "state" / "symcache" / "tokens.json")
    now = datetime.now(UTC)
    old = store.create("old", [Scope.ADMIN], now - timedelta(seconds=1))
    new = store.create("new", [Scope.READ], now + timedelta(days=1))
    with serve(samples.library, tmp_path / "server", "--require-token") as server:
        refused = request(server.url, "/api/v1/releases", headers={"Authorization": f"Bearer {old}"})
        assert refused.status == 401
        assert b"the token old has expired" in refused.body
        assert request(server.url, "/api/v1/releases", headers={"Authorization": f"Bearer {new}"}).status == 200


def test_messages_name_no_folder_of_the_server(config: ServerConfig, tmp_path: Path) -> None:
    told = config.without_paths(f"{tmp_path}/library/objects/ab: no such file; {tmp_path}/state/misses.db: is full")
    assert told == "LIBRARY/objects/ab: no such file; STATE/misses.db: is full"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1234: not in the library, says library.py", "1234: not in the library, says library.py"),
        ("library/blobs/ab: is damaged", "LIBRARY/blobs/ab: is damaged"),
        ("{here}/library/blobs/ab: is damaged", "LIBRARY/blobs/ab: is damaged"),
        ("{tmp}/state2/library: is full", "{tmp}/state2/library: is full"),
        ("{tmp}/state: is full", "STATE: is full"),
    ],
)
def test_what_is_no_folder_of_the_server_stays_in_messages(tmp_path: Path, text: str, told: str) -> None:
    config = ServerConfig("library", tmp_path / "cache", tmp_path / "state")
    names = {"tmp": str(tmp_path), "here": str(Path.cwd())}
    expected = told.format(**names).replace(tempfile.gettempdir(), "TMPDIR")
    assert config.without_paths(text.format(**names)) == expected
