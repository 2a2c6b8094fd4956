"""On a miss other servers are asked: once, checked, and never in circles."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from symcache.errors import RemoteError
from symcache.images import ImageRequest
from symcache.library import Library
from symcache_server.lookup.upstreams import Upstreams
from tests.client.lying_server import LyingServer
from tests.support.http import request
from tests.support.ports import free_port
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, uuid_of
from tests.support.toolchain import compile_image, lipo


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


def test_two_servers_that_ask_each_other_do_not_wait_for_each_other(samples: Samples, tmp_path: Path) -> None:
    async def answer(asked: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        found = samples.dylib.read_bytes() if samples.uuid.hex in asked.path else None
        return web.Response(status=200 if found else 404, body=found)

    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    library = _empty(tmp_path)
    with (
        LyingServer(answer) as third,
        serve(library, tmp_path / "a", "--port", str(ports[0]), "--upstream", urls[1], "--upstream", third.url) as one,
        serve(library, tmp_path / "b", "--port", str(ports[1]), "--upstream", urls[0]) as two,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        assert [one.url, two.url] == urls
        for wanted, expected in ((UUID(int=5), 404), (samples.uuid, 200)):
            path = f"/buildid/{wanted.hex}/executable"
            asked = [pool.submit(request, server.url, path) for server in (one, two) * 4]
            _, waiting = concurrent.futures.wait(asked, timeout=30)  # less than servers wait for each other
            assert not waiting
            assert {done.result().status for done in asked} == {expected}


def test_a_miss_on_the_way_back_is_none_of_ones_own(samples: Samples, tmp_path: Path) -> None:
    async def answer(asked: web.Request) -> web.StreamResponse:
        if "symcache-00000000000000aa" in asked.headers["Via"]:
            return web.Response(status=404)  # it asked this server itself: who else it asks, it does not say
        return web.Response(body=samples.dylib.read_bytes())

    path = f"/buildid/{samples.uuid.hex}/executable"
    with LyingServer(answer) as other, serve(_empty(tmp_path), tmp_path / "s", "--upstream", other.url) as server:
        via = {"Via": "1.1 symcache-00000000000000aa"}
        assert [request(server.url, path, headers=via).status for _ in range(3)] == [404] * 3
        assert len(other.requests) == 1
        assert request(server.url, path).body == samples.dylib.read_bytes()


async def test_a_server_that_cannot_be_reached_is_left_alone_for_a_while(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, ahead = 0, 0.0
    monkeypatch.setattr(
        "symcache_server.lookup.upstreams.time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    )

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.close()

    port = free_port()
    upstreams = Upstreams((f"http://127.0.0.1:{port}",), tmp_path / "cache", 1 << 30, "0" * 16)

    async def ask(number: int) -> str:
        with pytest.raises(RemoteError) as error:
            await upstreams.fetch(ImageRequest(UUID(int=number)), make_mocked_request("GET", "/"))
        return str(error.value)

    assert "Cannot connect" in await ask(1)
    listener = await asyncio.start_server(hang_up, "127.0.0.1", port)
    async with listener:
        for number in range(2, 20):
            assert "Cannot connect" in await ask(number)
        assert connected == 0
        ahead = 60
        assert "Cannot connect" not in await ask(99)
        assert connected
    await upstreams.close()


def test_a_universal_file_of_another_server_is_served_thin(samples: Samples, tmp_path: Path) -> None:
    slices = [compile_image(tmp_path / a, "libboth.dylib", "int f;", arch=a) for a in ("x86_64", "arm64")]
    both = tmp_path / "libboth.dylib"
    lipo(both, *slices)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=both.read_bytes())

    with LyingServer(answer) as other, serve(_empty(tmp_path), tmp_path / "front", "--upstream", other.url) as front:
        for image in slices * 2:
            path = f"/buildid/{uuid_of(image).hex}/executable"
            got = request(front.url, path)
            assert got.body == image.read_bytes()
            assert got.headers["x-symcache-size"] == got.headers["x-debuginfod-size"] == str(len(got.body))
            part = request(front.url, path, headers={"Range": "bytes=-9", "If-Range": got.headers["etag"]})
            assert (part.status, part.body) == (206, image.read_bytes()[-9:])
            whole = request(front.url, path + "?universal")
            assert whole.body == both.read_bytes()
            assert whole.headers["etag"] != got.headers["etag"]


def test_what_was_wrong_is_not_fetched_at_every_request(samples: Samples, tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=samples.large.read_bytes())

    with LyingServer(answer) as other, serve(_empty(tmp_path), tmp_path / "front", "--upstream", other.url) as front:
        for number in (1, 2):
            for _ in range(5):
                refused = request(front.url, f"/buildid/{UUID(int=number).hex}/executable")
                assert refused.status == 503
                assert b"what came for" in refused.body
        assert len(other.requests) == 2
