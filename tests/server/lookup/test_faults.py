"""Damage, hostile paths and bursts: no wrong byte, no cut body, no 500 that a client could provoke."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from symcache.images import ImageRequest
from symcache.library import Library, Staged, StagedObject, ingest
from symcache.macho import identify
from symcache.model import ManifestEntry, Release
from symcache.store import blob_key
from tests.support.http import request
from tests.support.processes import open_files
from tests.support.servers import SHARED_UUID, Samples, Server, serve, uuid_of
from tests.support.waiting import until


@pytest.fixture
def damaged(samples: Samples, tmp_path: Path) -> tuple[Path, Path]:
    """A library of one image whose blob is damaged, and the image."""
    with Library.open(tmp_path / "library", create=True) as library:
        found = identify(samples.large)[0]
        staged = Staged(Release(version="13.6", build="22G120"), "test")
        staged.manifest.append(ManifestEntry(path="/usr/lib/liblarge.dylib", arch=found.arch, uuid=found.uuid))
        staged.objects.append(
            StagedObject(samples.large, 0, found.size, "/usr/lib/liblarge.dylib", found.arch, found.uuid)
        )
        ingest(library, staged)
        assert found.uuid is not None
        stored = library.resolve(ImageRequest(found.uuid))
        assert stored is not None
    blob = tmp_path / "library" / blob_key(stored.sha256)
    return blob, samples.large


@pytest.mark.parametrize("encoding", ["identity", "zstd"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_blob_is_an_error_and_never_served(
    damaged: tuple[Path, Path], tmp_path: Path, damage: str, encoding: str
) -> None:
    blob, image = damaged
    data = bytearray(blob.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    else:  # a sound zstd frame of something else, with the right length
        import zstandard

        data[:] = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(image.stat().st_size))
    blob.chmod(0o644)
    blob.write_bytes(data)
    path = f"/buildid/{uuid_of(image).hex}/executable"
    with serve(tmp_path / "library", tmp_path / "server") as server:
        for _ in range(2):
            answer = request(server.url, path, headers={"Accept-Encoding": encoding})
            assert answer.status == 500
            assert b"blob" in answer.body
            assert len(answer.body) < 1000
        ranged = request(server.url, path, headers={"Range": "bytes=0-99"})
        assert ranged.status == 500
        # Once it is mended, it is served again, without a restart.
        blob.unlink(missing_ok=True)
        with Library.open(tmp_path / "library") as library:
            ingest(library, _again(image))
        answer = request(server.url, path, headers={"Accept-Encoding": "identity"})
        assert (answer.status, answer.body) == (200, image.read_bytes())
        assert not list((tmp_path / "server").rglob(".part-*"))


def _again(image: Path) -> Staged:
    found = identify(image)[0]
    staged = Staged(Release(version="13.6", build="22G120"), "again")
    staged.manifest.append(ManifestEntry(path="/usr/lib/liblarge.dylib", arch=found.arch, uuid=found.uuid))
    staged.objects.append(StagedObject(image, 0, found.size, "/usr/lib/liblarge.dylib", found.arch, found.uuid))
    return staged


def test_a_new_record_is_served_without_a_restart(samples: Samples, tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        path = f"/buildid/{uuid_of(samples.large).hex}/executable"
        with serve(tmp_path / "library", tmp_path / "server") as server:
            assert request(server.url, path).status == 404
            ingest(library, _again(samples.large))
            until(lambda: request(server.url, path, method="HEAD").status == 200, "it is not served")


_HOSTILE = [
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/caches/../../../etc/passwd",
    f"/caches/{UUID(int=1)}/..%2f..%2f..%2fetc%2fpasswd",
    f"/caches/{UUID(int=1)}/%2e%2e",
    f"/caches/{UUID(int=1)}/a%00b",
    "/build/..%2f..%2f/buildid/" + "0" * 32 + "/executable",
    "/buildid/" + "0" * 31 + "/executable",
    "/buildid/" + "g" * 32 + "/executable",
    "/buildid/" + "0" * 32 + "/executable%00",
    "/buildid/" + "0" * 32 + "/section/" + "%ff" * 20,
    "/buildid/" + "0" * 32 + "/source/../../../../etc/passwd",
    "/%ff%fe/mach-uuid-" + "0" * 32 + "/%ff%fe",
    "/api/v1/uuids/" + "x" * 2000,
    "/api/v1/uuids/%00",
    "/api/v1/releases/%2e%2e%2f",
    "/api/v1/images?name=" + "*" * 1000,
    "/api/v1/images?name=%00",
    "/images/%27%22%3Cscript%3E",
    "/releases/%00",
    "/%",
    "/%zz",
    "//",
    "/" + "a/" * 2000,
    "/\x80",
    "/?" + "a=b&" * 500,
]


def test_what_is_no_http_is_refused_by_the_same_server_and_leaves_no_traceback(
    samples: Samples, tmp_path: Path
) -> None:
    look_up = f"/buildid/{samples.uuid.hex}/executable".encode()
    api = b"POST /api/v1/uuids HTTP/1.1\r\nHost: localhost\r\n"
    cases = [
        b"NONSENSE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET " + look_up + b" HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n",
        b"GET " + look_up + b" HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        api + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        api + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxxx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    ]
    log = tmp_path / "access.jsonl"
    with serve(samples.library, tmp_path / "server", "--access-log", str(log)) as server:
        for data in cases:
            head = _raw(server, data).partition(b"\r\n\r\n")[0].lower()
            assert head.split(b" ")[1] == b"400", (data[:80], head)
            assert b"\r\nx-symcache-version: " in head, (data[:80], head)
            assert b"\r\ncache-control: no-store" in head, (data[:80], head)
        text = request(server.url, "/metrics").body.decode()
        counted = re.findall(r'^http_responses_total\{result="400",type="\w+"\} ([0-9.]+)', text, re.MULTILINE)
        assert sum(map(float, counted)) == len(cases)
        assert server.stop() == 0
    assert (tmp_path / "server" / "stderr").read_text() == ""
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()].count(400) == len(cases)


@pytest.mark.parametrize("path", _HOSTILE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_hostile_path_gets_a_refusal(server: Server, path: str, method: str) -> None:
    answer = _raw(server, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    status = int(answer.split(b" ", 2)[1])
    assert status in {200, 400, 404, 414}, answer[:300]
    if status == 200:
        assert path.startswith(("/api/v1/images?", "/?")), answer[:300]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/uuids HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /api/v1/uuids HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b" " * 0xFFFFFF,
    ],
)
def test_a_malformed_request_ends_itself_only(server: Server, samples: Samples, data: bytes) -> None:
    answer = _raw(server, data, wait=2)
    assert not answer or answer.split(b" ", 2)[1] in {b"400", b"413", b"414", b"415", b"431"}, answer[:300]
    assert request(server.url, f"/buildid/{samples.uuid.hex}/executable").status == 200


def _raw(server: Server, data: bytes, wait: float = 30) -> bytes:
    host, port = urlsplit(server.url).netloc.split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        try:
            connection.sendall(data)
            while chunk := connection.recv(1 << 16):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass
    return received


def test_a_burst_of_900_different_uuids_gets_every_byte_right(tmp_path: Path, samples: Samples) -> None:
    template = samples.dylib.read_bytes()
    old = samples.uuid.bytes
    uuids = [UUID(int=(0xABCD << 112) + n) for n in range(900)]
    staged = Staged(Release(version="13.6", build="22G120"), "burst")
    for number, uuid in enumerate(uuids):
        file = tmp_path / "images" / str(number)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(template.replace(old, uuid.bytes) + os.urandom(64 + number))
        path = f"/usr/lib/lib{number}.dylib"
        staged.manifest.append(ManifestEntry(path=path, arch="x86_64", uuid=uuid))
        staged.objects.append(StagedObject(file, 0, file.stat().st_size, path, "x86_64", uuid))
    with Library.open(tmp_path / "library", create=True) as library:
        assert ingest(library, staged).sealed
    with serve(tmp_path / "library", tmp_path / "server") as server:
        before = open_files(server.process.pid) if Path("/proc").is_dir() else 0

        def ask(number: int) -> bool:
            answer = request(server.url, f"/buildid/{uuids[number].hex}/executable")
            return answer.status == 200 and answer.body == (tmp_path / "images" / str(number)).read_bytes()

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            assert all(pool.map(ask, range(900)))
            assert all(pool.map(ask, [7] * 200))
        if before:
            until(lambda: open_files(server.process.pid) <= before + 20, "files stay open")


def test_a_download_under_way_finishes_when_the_server_stops(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server") as server:
        host, port = urlsplit(server.url).netloc.split(":")
        path = f"/buildid/{uuid_of(samples.large).hex}/executable"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            received = connection.recv(1 << 12)
            server.process.terminate()
            time.sleep(0.5)
            while chunk := connection.recv(1 << 16):
                received += chunk
        assert received.partition(b"\r\n\r\n")[2] == samples.large.read_bytes()
        assert server.process.wait(40) == 0


def test_other_machines_are_shut_out_unless_told_otherwise(samples: Samples, tmp_path: Path) -> None:
    import sys

    command = [sys.executable, "-m", "symcache", "serve", "--port", "0", "--json", "--library", str(samples.library)]
    done = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "symcache token create" in " ".join(done.stderr.split())
    assert done.stdout == ""
    with serve(samples.library, tmp_path / "server", "--host", "0.0.0.0", "--public-reads") as server:
        port = urlsplit(server.url).port
        answer = request(f"http://127.0.0.1:{port}", f"/buildid/{SHARED_UUID.hex}/executable")
        assert answer.status == 200


def test_no_library_is_a_sentence_not_a_server(tmp_path: Path) -> None:
    import sys

    command = [sys.executable, "-m", "symcache", "serve", "--port", "0", "--library", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no library here" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
