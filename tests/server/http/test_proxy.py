"""The nginx example of the documentation, run as it stands there: answers pass through it unchanged, over TLS."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from symcache.library import Library, ingest
from tests.support.http import request
from tests.support.ports import free_port
from tests.support.recipes import blocks
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, noise_image, serve, stage_variant, uuid_of
from tests.support.waiting import until

_FRAME = """
daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {server}
}}
"""


def _example(beginning: str) -> str:
    """Return the example of the documentation that begins so."""
    return next(body for body in blocks("howto/nginx.md", "nginx") if body.startswith(beginning))


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[str]:
    for tool in ("nginx", "openssl"):
        if not shutil.which(tool):
            pytest.skip(f"not installed: {tool} (apt-get install nginx-light openssl)")
    example = _example("server {")
    port = free_port()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=symbols.example"]
    command += ["-addext", "subjectAltName=DNS:symbols.example"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    config = example
    for written, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/symbols.pem", f"{tmp_path}/cert.pem"),
        ("/etc/ssl/symbols.key", f"{tmp_path}/key.pem"),
        ("127.0.0.1:8080", urlsplit(server.url).netloc),
    ):
        assert written in config
        config = config.replace(written, here)
    with _nginx(tmp_path, config):
        yield f"symbols.example:{port}"


@contextmanager
def _nginx(folder: Path, config: str) -> Iterator[None]:
    """Run nginx with these servers until it answers on the first port that they listen on."""
    port = int(re.search(r"listen 127\.0\.0\.1:(\d+)", config)[1])  # type: ignore[index]
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(_FRAME.format(folder=folder, server=config, user=user))
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE)
    try:

        def answers() -> bool:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return True
            return False

        until(answers)
        yield
    finally:
        process.terminate()
        process.communicate()


def _curl(proxy: str, folder: Path, path: str, *options: str) -> tuple[str, bytes]:
    """Return the headers, in lower case, and the body as it came."""
    command = ["curl", "-sS", "--cacert", folder / "cert.pem", "--resolve", f"{proxy}:127.0.0.1", "-D", folder / "head"]
    subprocess.run([*command, "-o", folder / "body", *options, f"https://{proxy}{path}"], check=True)
    body = (folder / "body").read_bytes() if (folder / "body").exists() else b""
    return (folder / "head").read_text().lower(), body


def test_answers_pass_through_nginx_unchanged(proxy: str, server: Server, samples: Samples, tmp_path: Path) -> None:
    path, whole = f"/buildid/{uuid_of(samples.large).hex}/executable", samples.large.read_bytes()
    head, body = _curl(proxy, tmp_path, path)
    assert body == whole
    etag = re.search(r'etag: ("[0-9a-f]{64}")', head)
    assert etag
    assert f"content-length: {len(whole)}" in head
    assert _curl(proxy, tmp_path, path, "-r", "100-199")[1] == whole[100:200]
    assert " 304" in _curl(proxy, tmp_path, path, "-H", f"If-None-Match: {etag[1]}")[0]
    head, packed = _curl(proxy, tmp_path, path, "-H", "Accept-Encoding: zstd")
    assert "content-encoding: zstd" in head
    assert len(packed) < len(whole)
    assert f"content-length: {len(whole)}" in _curl(proxy, tmp_path, path, "-I")[0]
    assert " 404" in _curl(proxy, tmp_path, f"/buildid/{'0' * 31}1/executable")[0]


_HOP_HEADERS = {"date", "server", "connection", "keep-alive"}
"""Which each server writes as it likes."""


def test_nginx_sends_the_same_as_the_server_would(samples: Samples, tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("not installed: nginx (apt-get install nginx-light)")
    example = _example("    location /_symcache/")
    folder, port = tmp_path / "server", free_port()
    noise, library = noise_image(tmp_path), tmp_path / "library"
    with Library.open(library, create=True) as opened:
        ingest(opened, stage_variant(noise, "22G120", None, "/usr/lib/libnoise.dylib"))
        moved = stage_variant(samples.variants["22G120"], "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib")
        ingest(opened, moved)
    options = ("--trust-proxy", "127.0.0.1", "--x-accel", "/_symcache", "--lookup-rate", "0")
    with serve(library, folder, *options) as server:
        locations = example.replace("/var/cache/symcache/", f"{folder}/cache/symcache/")
        locations = locations.replace("/srv/symbols/", f"{library}/")
        config = f"""
          log_format handed '$upstream_http_x_accel_redirect';
          server {{
            listen 127.0.0.1:{port};
            access_log {tmp_path}/nginx-access handed;
            location / {{
              proxy_pass {server.url};
              proxy_http_version 1.1;
              proxy_set_header Connection "";
            }}
            {locations}
          }}"""
        large = f"/buildid/{uuid_of(noise).hex}/executable"
        pinned = f"/cache/{CACHES['22G120']}/buildid/{SHARED_UUID.hex}/executable"
        etag = '"' + hashlib.sha256(noise.read_bytes()).hexdigest() + '"'
        size = noise.stat().st_size
        with serve(library, tmp_path / "plain") as plain, _nginx(tmp_path, config):
            through = f"http://127.0.0.1:{port}"
            handed = 0
            for path, headers in [
                (large, {}),
                (large, {"Accept-Encoding": "zstd"}),
                (large, {"Range": "bytes=100-99999"}),
                (large, {"Range": "bytes=100-"}),
                (large, {"Range": "bytes=-100000"}),
                (large, {"Range": f"bytes=0-{size + 5}"}),
                (large, {"Range": f"bytes=-{size + 5}"}),
                (large, {"Range": "bytes=7-99999", "Accept-Encoding": "zstd"}),
                (large, {"Range": "bytes=100-99999", "If-Range": etag}),
                (large, {"If-None-Match": '"other"'}),
            ]:
                _same(plain.url, through, path, headers)
                handed += 1
            for path, headers in [
                (large, {"Range": "bytes=100-99999", "If-Range": '"other"'}),
                (large, {"Range": "bytes=0-99999,200000-300000"}),
                (large, {"Range": "bytes=99999999-"}),
                (large, {"Range": "lines=1-2"}),
                (large, {"Range": "bytes=abc"}),
                (large, {"Range": "bytes=0-9999999999999999999"}),
                (large, {"If-None-Match": etag}),
                (large, {"If-Match": etag}),
                (large, {"If-Match": '"other"'}),
                (large, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
                (large, {"If-Unmodified-Since": "Fri, 01 Jan 1999 00:00:00 GMT"}),
                (pinned, {}),
                (f"/buildid/{'0' * 31}1/executable", {}),
            ]:
                _same(plain.url, through, path, headers)
            _same(plain.url, through, large, {}, "HEAD")
            # What nginx may read, nobody gets by asking for it.
            stored = f"/_symcache/library/blobs/{etag[1:3]}/{etag[1:-1]}.zst"
            assert request(through, stored).status == 503
        lines = (tmp_path / "nginx-access").read_text().splitlines()
        assert len([line for line in lines if line.startswith("/_symcache/")]) == handed


def test_others_than_the_proxy_get_the_body(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--trust-proxy", "192.0.2.1", "--x-accel", "/_symcache") as server:
        answer = request(server.url, f"/buildid/{uuid_of(samples.large).hex}/executable")
        assert answer.body == samples.large.read_bytes()
        assert "x-accel-redirect" not in answer.headers


def test_nginx_counts_for_all_processes(server: Server, samples: Samples, tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("not installed: nginx (apt-get install nginx-light)")
    example = _example("limit_req_zone ")
    config, port = example, free_port()
    for written, here in (
        ("# listen, server_name and the certificate as above", f"listen 127.0.0.1:{port};"),
        ("# proxy_pass and the rest as above", f"proxy_pass {server.url};"),
        ("rate=200r/s", "rate=1r/m"),
        ("burst=6000", "burst=5"),
    ):
        assert written in config
        config = config.replace(written, here)
    path = f"/buildid/{samples.uuid.hex}/executable"
    with _nginx(tmp_path, config):
        answers = [request(f"http://127.0.0.1:{port}", path) for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 6 + [429] * 2
    assert [answer.headers.get("retry-after") for answer in answers] == [None] * 6 + ["1"] * 2


def _same(plain: str, through: str, path: str, headers: dict[str, str], method: str = "GET") -> None:
    """Compare the answers of a server without nginx and of nginx before another."""
    own, other = (request(url, path, method=method, headers=headers) for url in (plain, through))
    assert (own.status, own.body) == (other.status, other.body), (headers, other.status, other.headers)
    shown = [{k: v for k, v in a.headers.items() if k not in _HOP_HEADERS} for a in (own, other)]
    assert shown[0] == shown[1], headers
