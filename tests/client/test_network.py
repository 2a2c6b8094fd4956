"""Clients inside a company's network: proxies, and certificates of its own authority."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.client import SymbolClient, get_document
from symcache.client.network import proxy_for
from symcache.errors import RemoteError
from symcache.images import ImageRequest
from tests.client.lying_server import LyingServer
from tests.support.http_proxy import HttpProxy, http_proxy, make_certificates
from tests.support.ports import free_port
from tests.support.servers import Samples, Server, serve
from tests.support.waiting import until

CLIENT = """
import json, sys, uuid
from pathlib import Path
from symcache.client import SymbolClient, get_document
from symcache.images import ImageRequest
url, image, cache = sys.argv[1], uuid.UUID(sys.argv[2]), Path(sys.argv[3])
with SymbolClient([url], cache) as client:
    found = client.look_up([image])
    file = client.fetch_many([ImageRequest(image)])[ImageRequest(image)].path
releases = json.loads(get_document(url, "releases"))["releases"]
print(json.dumps([len(found.images), str(file), len(releases)]))
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProxy]:
    with http_proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")


def _failure(url: str, cache: Path, image: UUID) -> list[RemoteError]:
    """Return the errors of a look-up and of a download."""
    errors = []
    with SymbolClient([url], cache) as client:
        for action in (lambda: client.look_up([image]), lambda: client.fetch_many([ImageRequest(image)])):
            client._down.clear()
            with pytest.raises(RemoteError) as caught:
                action()
            errors.append(caught.value)
    return errors


def test_all_that_is_asked_goes_by_the_proxy_in_tls_and_an_own_authority_is_trusted(
    samples: Samples, proxy: HttpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificates(tmp_path)
    options = ["--tls-cert", str(made.certificate), "--tls-key", str(made.key)]
    with serve(samples.library, tmp_path / "server", *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        environment = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(made.authority)}
        output = subprocess.run(
            [sys.executable, "-c", CLIENT, server.url, str(samples.uuid), tmp_path / "cache"],
            env={k: v for k, v in os.environ.items() if k != "no_proxy"} | environment,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        images, file, releases = json.loads(output)
        assert (images, Path(file).read_bytes(), releases) == (1, samples.dylib.read_bytes(), 2)
        # One connection each for the look-up, the download and the document, and nothing in clear.
        until(lambda: proxy.passed(f"CONNECT 127.0.0.1:{server.url.rpartition(':')[2]}") == 3)
        assert proxy.passed("GET ") == proxy.passed("POST ") == 0
        for error in _failure(server.url, tmp_path / "other", samples.uuid):
            assert "its certificate is not accepted" in str(error)
            assert "SSL_CERT_FILE" in str(error)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        for error in _failure(server.url, tmp_path / "other", samples.uuid):
            assert f"the proxy http://127.0.0.1:{proxy.port}: 407 " in str(error)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    for error in _failure(server.url, tmp_path / "other", samples.uuid):
        assert f"the proxy http://127.0.0.1:{proxy.port}: 502 " in str(error)
        assert "secret" not in str(error)


def test_plain_http_goes_by_its_proxy(
    server: Server, samples: Samples, proxy: HttpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    with SymbolClient([server.url], tmp_path) as client:
        assert samples.uuid in client.look_up([samples.uuid]).images
        request = ImageRequest(samples.uuid)
        assert client.fetch_many([request])[request].path.read_bytes() == samples.dylib.read_bytes()
    until(lambda: proxy.passed("POST ") == proxy.passed("GET ") == 1)  # it writes when they are closed
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")  # as many write it
    for error in _failure(server.url, tmp_path / "other", samples.uuid):
        assert f"the proxy http://127.0.0.1:{proxy.port}: 407 " in str(error)


def test_a_token_never_passes_a_proxy_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deny(_: web.Request) -> web.Response:
        return web.Response(status=404)

    with LyingServer(deny) as listener:  # as the proxy
        monkeypatch.setenv("http_proxy", listener.url)
        url = "http://any:t0ken@symbols.example"
        for error in _failure(url, tmp_path, UUID(int=7)):
            assert f"the proxy {listener.url} would see its token" in str(error)
            assert "t0ken" not in str(error)
        with pytest.raises(RemoteError, match="would see its token"):
            get_document(url, "releases")
        assert listener.requests == []


def test_a_proxy_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("https_proxy", f"http://user:secret@{proxy}")
    for error in _failure("https://symbols.example", tmp_path, UUID(int=7)):
        assert f"the proxy http://{proxy}: cannot be reached" in str(error)
        assert "secret" not in str(error)
    for url in (
        f"socks5://{proxy}",
        "http://[::1",
        "http://proxy:port",
        "http://proxy:99999",
        "http://a..b",
        "http://",
    ):
        monkeypatch.setenv("https_proxy", url.replace("://", "://user:secret@"))
        for error in _failure("https://symbols.example", tmp_path, UUID(int=7)):
            assert f"the proxy {url} is none for HTTP" in str(error)


@pytest.mark.parametrize(
    ("excepted", "url", "by_proxy"),
    [
        ("", "http://symbols.example:8080", True),
        ("*", "http://symbols.example:8080", False),
        ("other.example,symbols.example", "http://symbols.example:8080", False),
        ("other.example, .example", "http://symbols.example:8080", False),
        ("symbols.example:8080", "http://symbols.example:8080", False),
        ("symbols.example:8081", "http://symbols.example:8080", True),
        ("bols.example", "http://symbols.example", True),
        ("10.0.0.0/8,fd00::/8", "http://10.1.2.3:8080", False),
        ("10.0.0.0/8,fd00::/8", "http://[fd12::1]:8080", False),
        ("10.0.0.0/8,junk/8", "http://11.1.2.3", True),
    ],
)
def test_hosts_of_no_proxy_are_reached_directly(
    excepted: str, url: str, by_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert (proxy_for(url) is not None) == by_proxy
    assert proxy_for(url.replace("http:", "https:")) is None


def test_a_file_of_certificates_that_is_not_there_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with SymbolClient(["https://symbols.example"], tmp_path) as client, pytest.raises(RemoteError) as caught:
        client.fetch_many([ImageRequest(UUID(int=7))])
    assert f"SSL_CERT_FILE: {tmp_path / 'none.pem'}: No such file" in str(caught.value)
