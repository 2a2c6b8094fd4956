"""What clients see: modules a second, from `symcache serve` and from nginx, on this machine and over a slow line.

Each client starts with an empty cache, and keeps what it gets: ours (`SymbolClient.fetch_many`, as when a dump is
opened), elfutils' debuginfod-find, eight at a time, and one `curl --parallel`. Both servers have every file at hand.

nginx has the same files under the same paths, and is told all that it can use: whoever accepts zstd gets the blob as it
lies in the library, as from our server, and every answer says how large the module is, without which our client would
go by way of a temporary file. It has no ETag with the hash, so our client does not compare one with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from symcache.client import SymbolClient
from symcache.images import ImageRequest
from tests.bench.bench_server import PASSES, PROCESSES, make_files, nginx
from tests.bench.harness import Row, compare
from tests.bench.slow_link import slow_link
from tests.support.ports import free_port
from tests.support.servers import serve

_SIZES = (("100 KB", 100_000, 500, 30), ("1 MB", 1_000_000, 300, 4))
"""Name, size, how many modules, how many of them over the slow line."""
_BY_DEBUGINFOD = 100
"""One process a module: most of the time is theirs."""
_GOAL = 0.9
_RATE, _ROUND_TRIP = 20e6 / 8, 0.04
_PEER = """
map $http_accept_encoding $packed {{ ~zstd .zst; default ""; }}
map $http_accept_encoding $packing {{ ~zstd zstd; default ""; }}
server {{
  listen 127.0.0.1:{port} reuseport backlog=1024;
  location ~ ^/buildid/(?<uuid>[0-9a-f]+)/executable$ {{
    alias {folder}/files/$uuid$packed;
    add_header Content-Encoding $packing;
    add_header X-DEBUGINFOD-SIZE {size};
  }}
}}
"""

Fetch = Callable[[str, int, Path], None]
"""Called with the URL of a server, how many modules to fetch from it, and the empty folder to keep them in."""


def run(scratch: Path) -> list[Row]:
    """Return modules a second, by client, size and line."""
    if not shutil.which("nginx"):
        print("nginx is not installed: there is nothing to compare clients with", file=sys.stderr)
        return []
    rows = []
    for name, size, count, few in _SIZES:
        folder = scratch / name.replace(" ", "")
        make_files(folder, size, count)
        port = free_port()
        peer = f"http://127.0.0.1:{port}"
        with (
            nginx(folder, _PEER.format(port=port, folder=folder, size=size)),
            serve(folder / "library", folder / "server", "--processes", str(PROCESSES)) as server,
        ):
            _warm(server.url, count, folder / "got")
            for client, fetch in _clients().items():
                number = min(count, _BY_DEBUGINFOD) if fetch is _by_debuginfod else count
                rows.append(_compare(f"clients: {number} of {name}, {client}", fetch, number, server.url, peer, folder))
            with (
                slow_link(server.url, rate=_RATE, round_trip=_ROUND_TRIP) as slow,
                slow_link(peer, rate=_RATE, round_trip=_ROUND_TRIP) as slow_peer,
            ):
                for client, fetch in _clients().items():
                    if fetch is not _by_debuginfod:
                        row = f"clients: {few} of {name}, {client}, 20 Mbit/s and 40 ms"
                        rows.append(_compare(row, fetch, few, slow, slow_peer, folder))
        shutil.rmtree(folder)
    return rows


def _warm(url: str, count: int, folder: Path) -> None:
    """Have every process of the server ready with what clients will ask of it."""
    for _ in range(PASSES):
        for fetch in _clients().values():
            if fetch is not _by_debuginfod:
                _empty(folder)
                fetch(url, count, folder)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _clients() -> dict[str, Fetch]:
    """Return the clients that are installed."""
    clients: dict[str, Fetch] = {"symcache": _by_us}
    for tool, fetch in (("debuginfod-find", _by_debuginfod), ("curl", _by_curl)):
        if shutil.which(tool):
            clients[tool] = fetch
        else:
            print(f"{tool} is not installed: its rows are left out", file=sys.stderr)
    return clients


def _compare(name: str, fetch: Fetch, count: int, url: str, peer: str, folder: Path) -> Row:
    got = folder / "got"
    return compare(
        name,
        lambda: fetch(url, count, got),
        "nginx",
        lambda: fetch(peer, count, got),
        amount=count,
        unit="modules/s",
        at_least=_GOAL,
        prepare=lambda: _empty(got),
    )


def _by_us(url: str, count: int, folder: Path) -> None:
    with SymbolClient([url], folder) as client:
        found = client.fetch_many([ImageRequest(UUID(int=number)) for number in range(1, count + 1)])
        assert len(found) == count, client.failures


def _by_debuginfod(url: str, count: int, folder: Path) -> None:
    names = "\n".join(f"{number:032x}" for number in range(1, count + 1))
    command = ["xargs", "-P", "8", "-n", "1", "debuginfod-find", "executable"]
    environment = os.environ | {"DEBUGINFOD_URLS": url, "DEBUGINFOD_CACHE_PATH": str(folder)}
    done = subprocess.run(command, input=names, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert len(done.stdout.split()) == count


def _by_curl(url: str, count: int, folder: Path) -> None:
    config = "".join(
        f'url = "{url}/buildid/{number:032x}/executable"\noutput = "{folder}/{number}"\n'
        for number in range(1, count + 1)
    )
    command = [
        "curl",
        "-fsS",
        "--no-progress-meter",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        "16",
        "-K",
        "-",
    ]
    subprocess.run(command, input=config, text=True, check=True)
    assert len(list(folder.iterdir())) == count
