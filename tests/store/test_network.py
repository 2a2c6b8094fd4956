"""Object stores inside a company's network: by its proxy, with certificates of its own authority."""

from __future__ import annotations

import errno
import io
import os
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from symcache.errors import StorageError, UsageError
from symcache.store.bucket import Bucket
from tests.support.http_proxy import http_proxy, make_certificates


class _Object(BaseHTTPRequestHandler):
    """Any key, with content."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


def test_a_store_is_reached_by_the_proxy_and_an_own_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.delenv("no_proxy")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Object) as server, http_proxy(tmp_path) as proxy:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(StorageError) as raised:
            Bucket("s3://symbols", 0).content("key")
        assert "HTTPS_PROXY" in raised.value.hint
        monkeypatch.setenv("AWS_CA_BUNDLE", str(made.authority))
        assert Bucket("s3://symbols", 0).content("key") == b"ok"
        assert proxy.passed(f"CONNECT 127.0.0.1:{server.server_port}") >= 2
        server.shutdown()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match=r"AWS_CA_BUNDLE: .*none\.pem"):
        Bucket("s3://symbols", 0)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:8333", "s3.example", "https://", "htps://s3.example"])
def test_an_endpoint_that_is_no_url_is_wrong_use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match=r"AWS_ENDPOINT_URL: .*: not the URL of a store"):
        Bucket("s3://symbols", 0)


@pytest.mark.parametrize(
    ("settings", "region"),
    [
        ({}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-north-1"}, "eu-north-1"),
    ],
)
def test_requests_are_signed_for_the_region_that_is_set(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], region: str
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", **settings}.items():
        monkeypatch.setenv(name, value)
    assert f"%2F{region}%2Fs3%2F" in Bucket("s3://symbols", 0).signed("key", 60)


@pytest.mark.parametrize("location", ["s3://", "s3:///macos"])
def test_a_location_without_a_bucket_is_wrong_use(location: str) -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        Bucket(location, 0)


def test_a_bucket_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoBucket(_Object):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<?xml version='1.0'?>\n<Error><Code>NoSuchBucket</Code></Error>")

    with ThreadingHTTPServer(("127.0.0.1", 0), NoBucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        with pytest.raises(StorageError, match="there is no such bucket"):
            next(Bucket("s3://symbols/macos", 0).scan(""))
        server.shutdown()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT])
def test_what_this_machine_cannot_keep_is_no_fault_of_the_store(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Also where the folder of temporary files is gone: the object is not."""
    response = SimpleNamespace(meta={"size": 2}, stream=lambda **_: [b"ok"])
    monkeypatch.setattr("symcache.store.bucket.obstore.get", lambda *_: response)

    class Refusing(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=f"{os.strerror(number)}, on this machine") as raised:
        Bucket("s3://symbols", 0).download("key", Refusing())
    assert tempfile.gettempdir() in raised.value.hint
    assert "AWS" not in raised.value.hint
