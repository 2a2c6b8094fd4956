"""The nginx example of the documentation, run as it stands there: answers pass through it unchanged, over TLS."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.servers import Samples, Server, uuid_of

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


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[str]:
    for tool in ("nginx", "openssl"):
        if not shutil.which(tool):
            pytest.skip(f"not installed: {tool} (apt-get install nginx-light openssl)")
    text = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    example = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert example
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=symbols.example"]
    command += ["-addext", "subjectAltName=DNS:symbols.example"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    config = example[1]
    for written, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/symbols.pem", f"{tmp_path}/cert.pem"),
        ("/etc/ssl/symbols.key", f"{tmp_path}/key.pem"),
        ("127.0.0.1:8080", urlsplit(server.url).netloc),
    ):
        assert written in config
        config = config.replace(written, here)
    user = "user root;" if os.getuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(_FRAME.format(folder=tmp_path, server=config, user=user))
    process = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"symbols.example:{port}"
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
