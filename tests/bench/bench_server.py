"""The server against nginx on the same files, with as many processes: identity from the warm cache, zstd as stored.

nginx sends plain files with sendfile and knows nothing of UUIDs, so it is the upper bound. Load comes from wrk on the
same machine, which asks faster than any client does: goals are those of `bench_clients`. Look-ups are counted a
second of processor time, since wrk shares the cores.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from uuid import UUID

import numpy as np

from symcache.images import ImageRequest
from symcache.library import Library, Staged, StagedObject, ingest
from symcache.model import ManifestEntry, Release
from symcache.store import blob_key
from tests.bench.harness import ROUNDS, Row, figure
from tests.support.seaweed import new_location, s3_environment, seaweed
from tests.support.servers import serve

__all__ = ["PASSES", "PROCESSES", "cpu_seconds", "make_files", "nginx", "run"]

PROCESSES = 2
_CONNECTIONS = 16
_SECONDS = 2
PASSES = 6
"""After which every process has had almost every file asked of it: it reads each once before it believes it."""
_LOOKUPS = 10_000
_SIZES = (("100 KB", 100_000, 2000), ("1 MB", 1_000_000, 2000), ("20 MB", 20_000_000, 300))
"""Name, size, how many different files (as many as memory holds twice)."""

_SCRIPT = """
local method, prefix, suffix, count, number, first
function init(args)
  method, prefix, suffix, count, number = args[1], args[2], args[3], tonumber(args[4]), 0
  wrk.headers["Accept-Encoding"] = args[5]
  first = tonumber(args[6])
end
function request()
  number = number % count + 1
  return wrk.format(method, prefix .. string.format("%032x", first + number) .. suffix)
end
"""
_NGINX = """
worker_processes {processes}; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port} reuseport backlog=1024; root {folder}; }}
  {more}
}}
"""
_FRONT = """
upstream symcache {{ server {backend}; keepalive 64; keepalive_requests 1000000; }}
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_max_temp_file_size 0;
server {{
  listen 127.0.0.1:{port} reuseport backlog=1024;
  etag off; max_ranges 1; add_header ETag $upstream_http_etag;
  location / {{ proxy_pass http://symcache; }}
  location /_symcache/decoded/ {{ internal; alias {decoded}/; }}
  location /_symcache/library/ {{ internal; alias {library}/; }}
  # From an address that is not trusted: it gets the body from the server, and hands it on.
  location /proxied/ {{ proxy_pass http://symcache/; proxy_bind 127.0.0.2; }}
}}
"""


def run(scratch: Path) -> list[Row]:
    """Return requests a second, by size and representation, and the rate of look-ups."""
    rows: list[Row] = []
    script = scratch / "requests.lua"
    script.write_text(_SCRIPT)
    for name, size, count in _SIZES:
        folder = scratch / name.replace(" ", "")
        make_files(folder, size, count)
        options = ("--processes", str(PROCESSES))
        with nginx(folder) as plain, serve(folder / "library", folder / "server", *options) as server:
            start = time.perf_counter()
            subprocess.run(["curl", "-fsS", "-o", os.devnull, f"{server.url}/buildid/{1:032x}/executable"], check=True)
            cold = time.perf_counter() - start
            for kind, suffix, encoding in (("identity", "", "identity"), ("stored zstd", ".zst", "zstd")):
                asked = (server.url, "GET", "/buildid/", "/executable", count, encoding, 0)
                peer = (plain, "GET", "/files/", suffix, count, encoding, 0)
                _warm(script, asked, PASSES * count)
                _warm(script, peer, count)
                rows.append(_against(f"server: {name}, {kind}", script, asked, peer))
            rows.append(figure(f"server: {name}, first answer (cold)", cold * 1000, "ms"))
            if size == _SIZES[1][1]:
                rows += _through_nginx(script, folder, count)
                rows.append(_redirects(folder))
            if size == _SIZES[0][1]:
                rows += _lookups(script, folder, count)
    return rows


def _lookups(script: Path, folder: Path, count: int) -> list[Row]:
    """Return the rates of one process for answers without a body, and how even its answers are."""
    rows = []
    with serve(folder / "library", folder / "single") as server:
        # Not by wrk: it waits for the body that a HEAD announces.
        for name, method, first in (("HEAD", "HEAD", 0), ("look-ups of what nobody has", "GET", 10**9)):
            rates = []
            for number in range(ROUNDS + 1):
                paths = [f"/buildid/{first + n % count + 1:032x}/executable" for n in range(_LOOKUPS)]
                before = cpu_seconds(server.process.pid)
                _ask(server.url, method, paths)
                if number:
                    rates.append(_LOOKUPS / (cpu_seconds(server.process.pid) - before))
            rows.append(figure(f"server: {name}", statistics.median(rates), "/s and core", at_least=5000))
        asked = (server.url, "GET", "/buildid/", "/executable", count, "identity", 0)
        _warm(script, asked, count)
        spreads = [_spread(_wrk(script, *asked, connections=64)[1]) for _ in range(ROUNDS)]
        name = "server: 99th percentile / median, 64 connections"
        rows.append(figure(name, statistics.median(spreads), "x", at_most=10))
    return rows


def _through_nginx(script: Path, folder: Path, count: int) -> list[Row]:
    """Return the rates where nginx sends what the server has named to it, against the same nginx as a mere proxy."""
    options = ("--processes", str(PROCESSES), "--trust-proxy", "127.0.0.1", "--x-accel", "/_symcache")
    rows = []
    with serve(folder / "library", folder / "named", *options, "--lookup-rate", "0") as server:
        port = 20000 + os.getpid() % 2000
        decoded = folder / "named" / "cache" / "symcache" / "server" / "decoded"
        backend = server.url.removeprefix("http://")
        more = _FRONT.format(port=port, backend=backend, decoded=decoded, library=folder / "library")
        with nginx(folder, more, 22000):
            front = f"http://127.0.0.1:{port}"
            for kind, encoding in (("identity", "identity"), ("stored zstd", "zstd")):
                asked = (front, "GET", "/buildid/", "/executable", count, encoding, 0)
                peer = (front, "GET", "/proxied/buildid/", "/executable", count, encoding, 0)
                _warm(script, asked, PASSES * count)
                name = f"server: 1 MB, {kind}, sent by nginx (--x-accel)"
                rows.append(_against(name, script, asked, peer, "nginx as a proxy", 1.0))
    return rows


def _redirects(folder: Path) -> Row:
    """Return how many presigned URLs one process gives out; the bytes are the object store's work."""
    environment, number = s3_environment(seaweed()), 200
    place = new_location()
    with (
        mock.patch.dict(os.environ, environment),
        Library.open(folder / "library") as local,
        Library.open(place, create=True) as library,
    ):
        staged = Staged(Release(version="13.6", build="22G120"), "bench")
        for uuid in map(UUID, map("{:032x}".format, range(1, number + 1))):
            found, path = local.resolve(ImageRequest(uuid)), f"/usr/lib/{uuid.hex}"
            assert found
            staged.manifest.append(ManifestEntry(path=path, arch="x86_64", uuid=uuid))
            staged.objects.append(StagedObject(folder / "files" / uuid.hex, 0, found.size, path, "x86_64", uuid))
        ingest(library, staged)
    rates = []
    with serve(place, folder / "redirecting", "--redirect-to-store", env=environment) as server:
        paths = [f"/buildid/{n % number + 1:032x}/executable" for n in range(_LOOKUPS // 5)]
        for round_number in range(ROUNDS + 1):
            before = cpu_seconds(server.process.pid)
            _ask(server.url, "GET", paths, "Accept-Encoding: zstd\r\n")
            if round_number:
                rates.append(len(paths) / (cpu_seconds(server.process.pid) - before))
    return figure(
        "server: redirects to the object store (--redirect-to-store)", statistics.median(rates), "/s and core"
    )


def _ask(url: str, method: str, paths: list[str], fields: str = "") -> None:
    """Ask for every path on one connection, one after the other, and read the answers."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        for path in paths:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(1 << 16)
            if method == "GET":
                length = re.search(rb"Content-Length: ([0-9]+)", answer)
                assert length, answer
                end = answer.index(b"\r\n\r\n") + 4 + int(length[1])
                while len(answer) < end:
                    answer += connection.recv(1 << 16)


_Asked = tuple[str, str, str, str, int, str, int]
"""URL, method, path before and after the digits, number of files, Accept-Encoding, digits of the first file - 1."""


def _against(
    name: str, script: Path, ours: _Asked, peer: _Asked, peer_name: str = "nginx", goal: float | None = None
) -> Row:
    own, theirs = [], []
    for _ in range(ROUNDS):
        own.append(_wrk(script, *ours)[0] / _SECONDS)
        theirs.append(_wrk(script, *peer)[0] / _SECONDS)
    ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
    values = statistics.median(own), statistics.median(theirs)
    text, met = (f">= {goal:g}", ratio >= goal) if goal else ("", None)
    return Row(name, values[0], "requests/s", peer_name, values[1], ratio, text, met)


def _warm(script: Path, asked: _Asked, count: int) -> None:
    """Ask for so many files, one after the other, round and round."""
    done = 0
    while done < count:
        done += _wrk(script, *asked)[0]


def _wrk(
    script: Path,
    url: str,
    method: str,
    prefix: str,
    suffix: str,
    count: int,
    encoding: str,
    first: int = 0,
    *,
    connections: int = _CONNECTIONS,
) -> tuple[int, str]:
    """Ask for the files `first` + 1 to `first` + `count`; return how many answers came, and wrk's whole report."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{_SECONDS}", "--latency", "-s", str(script), url, "--"]
    report = subprocess.run(
        [*command, method, prefix, suffix, str(count), encoding, str(first)], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in report and not first:
        raise RuntimeError(f"{url}: errors were answered:\n{report}")
    match = re.search(r"(\d+) requests in", report)
    assert match, report
    return int(match[1]), report


def _spread(report: str) -> float:
    """Return the 99th percentile over the median of wrk's report."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

    def seconds(percent: int) -> float:
        match = re.search(rf"{percent}%\s+([0-9.]+)(us|ms|s)", report)
        assert match, report
        return float(match[1]) * units[match[2]]

    return seconds(99) / seconds(50)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_files(folder: Path, size: int, count: int) -> None:
    """Make a library of `count` images of `size` bytes, and the same as plain and compressed files for nginx."""
    files = folder / "files"
    files.mkdir(parents=True)
    random = np.random.default_rng(size)
    # About the ratio of real binaries: zstd makes a third of it.
    noise = random.integers(0, 8, size + count, dtype=np.uint8)
    staged = Staged(Release(version="13.6", build="22G120"), "bench")
    for number in range(1, count + 1):
        uuid = UUID(int=number)
        head = struct.pack("<8I", 0xFEEDFACF, 0x0100_0007, 3, 6, 1, 24, 0, 0) + struct.pack("<2I", 0x1B, 24)
        file = files / uuid.hex
        file.write_bytes(head + uuid.bytes + noise[number : number + size - len(head) - 16].tobytes())
        path = f"/usr/lib/{uuid.hex}"
        staged.manifest.append(ManifestEntry(path=path, arch="x86_64", uuid=uuid))
        staged.objects.append(StagedObject(file, 0, size, path, "x86_64", uuid))
    with Library.open(folder / "library", create=True) as library:
        ingest(library, staged)
        for number in range(1, count + 1):
            found = library.resolve(ImageRequest(UUID(int=number)))
            assert found
            stored = folder / "library" / blob_key(found.sha256)
            (files / f"{number:032x}.zst").hardlink_to(stored)


@contextlib.contextmanager
def nginx(folder: Path, more: str = "", first: int = 18000) -> Iterator[str]:
    """Run nginx over `folder`, with `more` servers, on a port from `first` on."""
    port = first + os.getpid() % 2000
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, processes=PROCESSES, more=more))
    # Started as root, its workers would run as another user, who cannot read a private temporary folder.
    user = ["-g", "user root;"] if os.getuid() == 0 else []
    process = subprocess.Popen(["nginx", "-c", str(config), *user], stdout=sys.stderr)
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
