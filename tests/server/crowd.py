"""Clients by the thousand, silent, slow and working, on addresses of their own: a program for a network of its own.

`python -m tests.server.crowd LIBRARY FOLDER SECONDS SILENT SLOW WORKING` prints what came of it as JSON. All of
127.0.0.0/8 is this machine, which has no limit of connections: so it makes others local (`ip route add local`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.servers import serve

NETWORK = "198.51.100"
"""TEST-NET-2 (RFC 5737)."""
PAUSE = 2.0
"""Seconds between two requests of a working client, on average."""


@dataclass
class Figures:
    """What the working clients have seen, in seconds."""

    responses: int = 0
    wrong: int = 0
    over_a_second: int = 0
    slowest: float = 0.0
    median: float = 0.0
    of_1000: float = 0.0
    """What 999 of 1,000 were faster than."""
    own_delay: float = 0.0
    """How late the clients themselves came to do something, at worst: the machine's part in the above."""
    closed: dict[str, int] = field(default_factory=lambda: {"silent": 0, "slow": 0})
    """Connections that the server has ended, by kind of client."""


class Crowd:
    """Everybody, in one event loop."""

    def __init__(self, address: tuple[str, int], contents: dict[str, bytes]) -> None:
        self._address, self._contents = address, list(contents.items())
        self._weights = [1 / (1 + len(content) / 50_000) for content in contents.values()]
        self._seconds: list[float] = []
        self.figures = Figures()
        self._loop = asyncio.get_running_loop()

    async def run(self, seconds: float, silent: int, slow: int, working: int) -> Figures:
        """Have everybody do what he does for so long."""
        tasks = [self._loop.create_task(self._watch())]
        tasks += [self._loop.create_task(self._silent(100 + n % 20)) for n in range(silent)]
        tasks += [self._loop.create_task(self._slow(130 + n % 2)) for n in range(slow)]
        tasks += [self._loop.create_task(self._working(10 + n % 20)) for n in range(working)]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        ordered = sorted(self._seconds)
        self.figures.responses = len(ordered)
        self.figures.over_a_second = sum(s > 1 for s in ordered)
        self.figures.median, self.figures.slowest = ordered[len(ordered) // 2], ordered[-1]
        self.figures.of_1000 = ordered[len(ordered) * 999 // 1000]
        return self.figures

    async def _watch(self) -> None:
        while True:
            start = self._loop.time()
            await asyncio.sleep(0.01)
            self.figures.own_delay = max(self.figures.own_delay, self._loop.time() - start - 0.01)

    async def _connect(self, host: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await asyncio.sleep(random.random() * 3)
        return await asyncio.open_connection(*self._address, local_addr=(f"{NETWORK}.{host}", 0))

    async def _silent(self, host: int) -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await self._connect(host)
                await reader.read()
                writer.close()
            self.figures.closed["silent"] += 1

    async def _slow(self, host: int) -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await self._connect(host)
                writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
                while not reader.at_eof():
                    writer.write(b"x")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 1)
                writer.close()
            self.figures.closed["slow"] += 1

    async def _working(self, host: int) -> None:
        reader, writer = await self._connect(host)
        while True:
            await asyncio.sleep(random.random() * 2 * PAUSE)
            path, expected = random.choices(self._contents, self._weights)[0]
            start = self._loop.time()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: symbols.example\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(size)
            self._seconds.append(self._loop.time() - start)
            right = head.startswith(b"HTTP/1.1 200") if expected else head.startswith(b"HTTP/1.1 404")
            self.figures.wrong += not right or bool(expected and body != expected)


def main(library: str, folder: str, seconds: str, *counts: str) -> None:
    """Serve, let everybody loose, and print the figures."""
    for command in ("link set lo up", f"route add local {NETWORK}.0/24 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    contents = {path: Path(file).read_bytes() for path, file in json.loads(sys.stdin.read()).items()}
    contents[f"/buildid/{0:032x}/executable"] = b""
    options = ["--host", f"{NETWORK}.1", "--public-reads", "--processes", "2"]
    with serve(library, Path(folder), *options) as server:
        place = urlsplit(server.url)
        assert place.hostname
        assert place.port
        address = place.hostname, place.port

        async def crowd() -> Figures:
            return await Crowd(address, contents).run(float(seconds), *map(int, counts))

        figures = asyncio.run(crowd())
        with socket.create_connection(address, 10) as last:
            last.sendall(b"GET /healthz HTTP/1.1\r\nHost: symbols.example\r\n\r\n")
            assert last.recv(12) == b"HTTP/1.1 200"
        print(json.dumps(asdict(figures) | {"stderr": (Path(folder) / "stderr").read_text()[:10_000]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
