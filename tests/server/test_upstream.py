"""On a miss other servers are asked: once, checked, and never in circles."""

from __future__ import annotations

import asyncio
import concurrent.futures
from pathlib import Path
from uuid import UUID

from aiohttp import web

from symcache.library import Library
from tests.client.lying_server import LyingServer
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve


def _empty(tmp_path: Path, name: str = "empty") -> Path:
    Library.open(tmp_path / name, create=True).close()
    return tmp_path / name


def test_a_miss_is_answered_by_another_server_and_kept(server: Server, samples: Samples, tmp_path: Path) -> None:
    path = f"/buildid/{samples.uuid.hex}/executable"
    options = ("--upstream", server.url)
    with serve(_empty(tmp_path), tmp_path / "front", *options) as front:
        assert request(front.url, path).body == samples.dylib.read_bytes()
        dsym = request(front.url, f"/buildid/{samples.uuid.hex}/debuginfo")
        assert dsym.body == samples.dsym.read_bytes()
        pinned = request(front.url, f"/cache/{CACHES['22G120']}/buildid/{SHARED_UUID.hex}/executable")
        assert pinned.body == samples.variants["22G120"].read_bytes()
        assert pinned.headers["x-symcache-build"] == "22G120"
        assert "immutable" not in pinned.headers["cache-control"]
        assert request(front.url, f"/buildid/{UUID(int=9).hex}/executable").status == 404
    with serve(tmp_path / "empty", tmp_path / "front", "--upstream", "http://127.0.0.1:1") as front:
        kept = request(front.url, path, headers={"Range": "bytes=4-9"})
        assert (kept.status, kept.body) == (206, samples.dylib.read_bytes()[4:10])
        # Whether anybody has this cannot be known now.
        assert request(front.url, f"/buildid/{UUID(int=8).hex}/executable").status == 503


def test_what_the_library_has_is_never_asked_for_elsewhere(samples: Samples, tmp_path: Path) -> None:
    async def answer(asked: web.Request) -> web.StreamResponse:
        return web.Response(body=b"other")

    with LyingServer(answer) as other, serve(samples.library, tmp_path / "front", "--upstream", other.url) as front:
        got = request(front.url, f"/buildid/{samples.uuid.hex}/executable")
        assert got.body == samples.dylib.read_bytes()
        assert other.requests == []
        # And what it sends for something else is no Mach-O of that UUID.
        assert request(front.url, f"/buildid/{UUID(int=7).hex}/executable").status == 503


def test_many_who_wait_for_one_file_are_one_question(samples: Samples, tmp_path: Path) -> None:
    async def answer(asked: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        if samples.uuid.hex in asked.path:
            return web.Response(body=samples.dylib.read_bytes())
        return web.Response(status=404)

    with LyingServer(answer) as slow, serve(_empty(tmp_path), tmp_path / "front", "--upstream", slow.url) as front:
        path = f"/buildid/{samples.uuid.hex}/executable"
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: request(front.url, path), range(20)))
        assert {a.body for a in answers} == {samples.dylib.read_bytes()}
        assert len(slow.requests) == 1
        _, headers = slow.requests[0]
        assert headers["X-Forwarded-For"] == "127.0.0.1"
        for _ in range(3):
            assert request(front.url, f"/buildid/{UUID(int=3).hex}/executable").status == 404
        assert len(slow.requests) == 2  # a miss is remembered


def test_a_question_does_not_go_round_in_circles(samples: Samples, tmp_path: Path) -> None:
    path = f"/buildid/{samples.uuid.hex}/executable"
    with LyingServer(lambda asked: _forward(asked, target)) as relay:
        target: list[str] = []
        with serve(_empty(tmp_path), tmp_path / "front", "--upstream", relay.url) as front:
            target.append(front.url)
            assert request(front.url, path).status == 404
            assert len(relay.requests) == 1
            many = ", ".join(["10.0.0.1"] * 8)
            other = f"/buildid/{UUID(int=3).hex}/executable"
            assert request(front.url, other, headers={"X-Forwarded-For": many}).status == 404
            assert len(relay.requests) == 1


async def _forward(asked: web.Request, target: list[str]) -> web.StreamResponse:
    headers = {name: asked.headers[name] for name in ("Via", "X-Forwarded-For")}
    got = await asyncio.to_thread(request, target[0], asked.path, headers=headers)
    return web.Response(status=got.status, body=got.body)
