"""HTTPS by the server itself: the same bytes, also with several processes, and no start with files that do not fit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from tests.support.servers import Samples, serve, uuid_of
from tests.support.waiting import until


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    for tool in ("openssl", "curl"):
        if not shutil.which(tool):
            pytest.skip(f"not installed: {tool}")
    return _certificate(tmp_path_factory.mktemp("tls"))


def _certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=symbols.example"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def _curl(cert: Path, url: str, *options: str) -> bytes:
    return subprocess.run(["curl", "-fsS", "--cacert", cert, *options, url], check=True, capture_output=True).stdout


@pytest.mark.parametrize("processes", [1, 2])
def test_answers_are_whole_over_tls(pair: tuple[Path, Path], samples: Samples, tmp_path: Path, processes: int) -> None:
    cert, key = pair
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--processes", str(processes)]
    with serve(samples.library, tmp_path / "server", *options) as server:
        assert server.url.startswith("https://")
        for image in (samples.large, samples.dylib):
            url, whole = f"{server.url}/buildid/{uuid_of(image).hex}/executable", image.read_bytes()
            assert _curl(cert, url) == whole
            assert _curl(cert, url, "-r", "1000-40999") == whole[1000:41000]
            assert f"content-length: {len(whole)}".encode() in _curl(cert, url, "-I").lower()
            packed = _curl(cert, url, "-H", "Accept-Encoding: zstd")
            assert zstandard.ZstdDecompressor().decompress(packed, max_output_size=len(whole)) == whole
        # A reader slower than the server fills what lies between: nothing is lost or doubled then, either.
        url = f"{server.url}/buildid/{uuid_of(samples.large).hex}/executable"
        assert _curl(cert, url, "--limit-rate", "4M") == samples.large.read_bytes()
        plain = subprocess.run(["curl", "-sS", url.replace("https", "http")], capture_output=True, check=False)
        assert plain.returncode != 0
        stranger = subprocess.run(["curl", "-sS", url], capture_output=True, check=False)
        assert stranger.returncode == 60  # the certificate really is what is shown


def test_files_that_do_not_fit_are_refused(pair: tuple[Path, Path], samples: Samples, tmp_path: Path) -> None:
    cert, key = pair
    other = _certificate(tmp_path)[1]
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    for options in (
        ["--tls-cert", cert],
        ["--tls-key", key],
        ["--tls-cert", cert, "--tls-key", other],
        ["--tls-cert", cert, "--tls-key", locked],
        ["--tls-cert", cert, "--tls-key", tmp_path / "none.pem"],
        ["--tls-cert", samples.dylib, "--tls-key", key],
    ):
        command = [sys.executable, "-m", "symcache", "serve", "--port", "0", "--library", samples.library, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert "next:" in done.stderr or "TLS" in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_renewed_certificate_is_taken_up(samples: Samples, tmp_path: Path, processes: str) -> None:
    (tmp_path / "other").mkdir()
    cert, key = _certificate(tmp_path)
    other = _certificate(tmp_path / "other")
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--processes", processes]
    with serve(samples.library, tmp_path / "server", *options) as server:

        def is_shown(cert: Path) -> bool:
            command = ["curl", "-fsS", "--cacert", cert, f"{server.url}/healthz"]
            return not any(subprocess.run(command, capture_output=True, check=False).returncode for _ in range(8))

        first = tmp_path / "first.pem"
        shutil.copy(cert, first)
        shutil.copy(other[0], cert)  # the key is still that of the first
        server.process.send_signal(signal.SIGHUP)
        stderr = tmp_path / "server" / "stderr"
        until(lambda: stderr.read_text().count("the certificate stays") == int(processes))
        assert is_shown(first)
        shutil.copy(other[1], key)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: is_shown(other[0]))
