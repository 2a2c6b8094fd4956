"""What is fetched is what was asked for, whatever servers and other processes do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
import zstandard
from aiohttp import web

from symcache.client import FetchedImage, LayoutMatch, SymbolClient
from symcache.errors import RemoteError, StorageError
from symcache.images import ImageRequest
from symcache.model import Kind
from tests.client.lying_server import LyingServer
from tests.support.servers import BASES, CACHES, SHARED_UUID, Samples, Server, set_uuid, uuid_of


def _get(urls: list[str], cache: Path, *requests: ImageRequest) -> dict[ImageRequest, FetchedImage]:
    with SymbolClient(urls, cache) as client:
        return client.fetch_many(requests)


def _held(cache: Path) -> list[Path]:
    """Return everything that a later look-up could find, or that was left lying about."""
    return [p for p in cache.rglob("*") if p.is_file()]


def test_binaries_and_dsyms_come_whole_and_with_what_is_known_of_them(
    server: Server, samples: Samples, tmp_path: Path
) -> None:
    program, symbols = ImageRequest(samples.uuid), ImageRequest(samples.uuid, Kind.DEBUGINFO)
    large, variant = ImageRequest(uuid_of(samples.large)), ImageRequest(SHARED_UUID, build="22G120")
    nobody = ImageRequest(UUID(int=77))
    found = _get([server.url], tmp_path / "cache", program, symbols, large, variant, nobody)
    assert set(found) == {program, symbols, large, variant}
    for request, file in (
        (program, samples.dylib),
        (symbols, samples.dsym),
        (large, samples.large),
        (variant, samples.variants["22G120"]),
    ):
        got, data = found[request], file.read_bytes()
        assert got.path.read_bytes() == data
        assert (got.size, got.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert got.origin == server.url
    assert (found[variant].build, found[variant].cache_uuid) == ("22G120", CACHES["22G120"])
    assert (found[program].build, found[program].cache_uuid) == (None, None)


def test_each_pin_has_its_own_answer(server: Server, samples: Samples, tmp_path: Path) -> None:
    requests = {build: ImageRequest(SHARED_UUID, cache=cache) for build, cache in CACHES.items()}
    found = _get([server.url], tmp_path / "cache", *requests.values())
    for build, request in requests.items():
        assert found[request].path.read_bytes() == samples.variants[build].read_bytes()
    assert ImageRequest(SHARED_UUID, cache=UUID(int=9)) not in _get(
        [server.url], tmp_path / "cache", ImageRequest(SHARED_UUID, cache=UUID(int=9))
    )


def test_what_is_cached_needs_no_server(server: Server, samples: Samples, tmp_path: Path) -> None:
    unpinned = ImageRequest(SHARED_UUID)
    first = _get([server.url], tmp_path / "cache", unpinned)
    assert _get([], tmp_path / "cache", unpinned) == first
    assert _get(["http://127.0.0.1:1"], tmp_path / "cache", unpinned) == first
    # The unpinned answer was that of a cache, so it answers for this cache as well.
    pinned = ImageRequest(SHARED_UUID, cache=CACHES["23A344"])
    assert _get([], tmp_path / "cache", pinned)[pinned].path == first[unpinned].path


def test_progress_ends_with_everything_done(server: Server, samples: Samples, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with SymbolClient([server.url], tmp_path / "cache") as client:
        client.fetch_many([ImageRequest(uuid_of(samples.large))], lambda done, total: steps.append((done, total)))
    assert steps[-1] == (samples.large.stat().st_size, samples.large.stat().st_size)
    assert steps == sorted(steps)


def test_no_server_at_all_is_an_error_a_miss_is_not(server: Server, tmp_path: Path) -> None:
    request = ImageRequest(UUID(int=77))
    assert _get([server.url], tmp_path / "cache", request) == {}
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:1"):
        _get(["http://127.0.0.1:1"], tmp_path / "cache", request)
    assert _get(["http://127.0.0.1:1", server.url], tmp_path / "cache", request) == {}


def test_a_dead_server_is_passed_over_and_named(server: Server, samples: Samples, tmp_path: Path) -> None:
    request = ImageRequest(samples.uuid)
    with SymbolClient(["http://127.0.0.1:1", server.url], tmp_path / "cache") as client:
        assert client.fetch_many([request])[request].origin == server.url
        assert "127.0.0.1:1" in client.failures[request][0]


def _lie(data: bytes, **headers: str):
    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=data, headers={"X-Symcache-Version": "1"} | named)

    return answer


@pytest.mark.parametrize(
    "lie", ["hash", "uuid", "kind", "size", "not-mach-o", "truncated", "not-zstd", "encoding", "huge", "bomb", "empty"]
)
def test_a_lie_never_enters_the_cache_and_the_next_server_answers(
    server: Server, samples: Samples, tmp_path: Path, lie: str
) -> None:
    data = samples.dylib.read_bytes()
    right = f'"{hashlib.sha256(data).hexdigest()}"'
    other = samples.variants["22G120"].read_bytes()
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30)) if lie == "bomb" else b""
    answer = {
        "hash": _lie(data[:-1] + bytes([data[-1] ^ 1]), ETag=right),
        "uuid": _lie(other, ETag=f'"{hashlib.sha256(other).hexdigest()}"'),
        "kind": _lie(samples.dsym.read_bytes()),
        "size": _lie(data, X_Symcache_Size=str(len(data) - 1)),
        "not-mach-o": _lie(b"<html>Please log in</html>"),
        "truncated": _lie(data[: len(data) // 2]),
        "not-zstd": _lie(data, Content_Encoding="zstd"),
        "encoding": _lie(data, Content_Encoding="br"),
        "huge": _lie(data, X_Symcache_Size=str(1 << 60)),
        "bomb": _lie(bomb, Content_Encoding="zstd", X_Symcache_Size=str(len(data))),
        "empty": _lie(b""),
    }[lie]
    request = ImageRequest(samples.uuid)
    with LyingServer(answer) as liar:
        assert _get([liar.url], tmp_path / "alone", request) == {}
        assert _held(tmp_path / "alone") == []
        with SymbolClient([liar.url, server.url], tmp_path / "cache") as client:
            got = client.fetch_many([request])[request]
            assert client.failures[request]
    assert got.origin == server.url
    assert got.path.read_bytes() == data


def test_a_cut_download_is_continued_where_it_ended(samples: Samples, tmp_path: Path) -> None:
    data = samples.large.read_bytes()
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    cuts = [len(data) // 3, len(data) // 2]

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": etag, "X-Symcache-Version": "1", "Content-Length": str(len(data) - start)}
        if start:
            assert request.headers["If-Range"] == etag
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        if cuts:
            await response.write(data[start : cuts.pop(0)])
            assert request.transport
            request.transport.close()
            return response
        await response.write(data[start:])
        return response

    request = ImageRequest(uuid_of(samples.large))
    with LyingServer(answer) as cutting:
        got = _get([cutting.url], tmp_path / "cache", request)[request]
        assert got.path.read_bytes() == data
        ranges = [headers.get("Range") for _, headers in cutting.requests]
    assert ranges[0] is None
    assert len(ranges) == 3
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in ranges[1:] if r]
    assert starts == sorted(starts)
    assert starts[0] > 0


@pytest.mark.parametrize("packed", [False, True], ids=["identity", "zstd"])
def test_a_small_file_that_was_cut_comes_whole_at_the_next_attempt(
    samples: Samples, tmp_path: Path, packed: bool
) -> None:
    data = samples.dylib.read_bytes()
    body = zstandard.compress(data) if packed else data
    encoding = {"Content-Encoding": "zstd"} if packed else {}
    told = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Symcache-Size": str(len(data)), **encoding}
    cut = [True]

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=told)
        if not cut:
            response.content_length = len(body)
        await response.prepare(request)
        # Once without a length, so that only the promised size tells that something is missing.
        await response.write(body[: len(body) // 2] if cut else body)
        cut.clear()
        await response.write_eof()
        return response

    request = ImageRequest(samples.uuid)
    with LyingServer(answer) as cutting:
        assert _get([cutting.url], tmp_path, request)[request].path.read_bytes() == data
        assert [headers.get("Range") for _, headers in cutting.requests] == [None, None]
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_download_is_continued_by_a_later_process_but_not_with_changed_content(
    server: Server, samples: Samples, tmp_path: Path
) -> None:
    request, data = ImageRequest(uuid_of(samples.large)), samples.large.read_bytes()
    for number, etag in enumerate((f'"{hashlib.sha256(data).hexdigest()}"', '"' + "0" * 64 + '"')):
        cache = tmp_path / str(number)
        _get([], cache)
        part = cache / "parts" / f"{request.uuid.hex}-executable"
        part.write_bytes(data[:100_000] if number == 0 else b"other" * 1000)
        note = {"etag": etag, "url": f"{server.url}/buildid/{request.uuid.hex}/executable"}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        assert _get([server.url], cache, request)[request].path.read_bytes() == data
        assert not list((cache / "parts").iterdir())


def test_a_part_that_somebody_damaged_is_thrown_away(server: Server, samples: Samples, tmp_path: Path) -> None:
    request, data = ImageRequest(uuid_of(samples.large)), samples.large.read_bytes()
    _get([], tmp_path)
    part = tmp_path / "parts" / f"{request.uuid.hex}-executable"
    part.write_bytes(b"x" * 100_000)
    note = {
        "etag": f'"{hashlib.sha256(data).hexdigest()}"',
        "url": f"{server.url}/buildid/{request.uuid.hex}/executable",
    }
    part.with_name(part.name + ".json").write_text(json.dumps(note))
    assert _get([server.url], tmp_path, request)[request].path.read_bytes() == data


def test_errors_of_a_server_that_recovers_are_waited_out(samples: Samples, tmp_path: Path) -> None:
    statuses = [503, 500, 429]

    async def answer(request: web.Request) -> web.StreamResponse:
        if statuses:
            return web.Response(status=statuses.pop(0))
        return web.Response(body=samples.dylib.read_bytes())

    with LyingServer(answer) as recovering:
        request = ImageRequest(samples.uuid)
        assert _get([recovering.url], tmp_path, request)[request].path.read_bytes() == samples.dylib.read_bytes()


def test_a_plain_debuginfod_server_will_do(samples: Samples, tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != f"/buildid/{samples.uuid.hex}/executable":
            return web.Response(status=404)
        return web.Response(body=samples.dylib.read_bytes(), headers={"X-DEBUGINFOD-SIZE": str(len(data))})

    data = samples.dylib.read_bytes()
    with LyingServer(answer) as debuginfod:
        for request in (ImageRequest(samples.uuid), ImageRequest(samples.uuid, cache=CACHES["22G120"])):
            got = _get([debuginfod.url], tmp_path, request)[request]
            assert got.path.read_bytes() == data
            assert got.cache_uuid is None


_PROCESS = """
import sys
from pathlib import Path
from uuid import UUID
from symcache.client import SymbolClient
from symcache.images import ImageRequest
with SymbolClient([sys.argv[1]], Path(sys.argv[2])) as client:
    for got in client.fetch_many([ImageRequest(UUID(u)) for u in sys.argv[3:]]).values():
        print(got.sha256)
"""


def test_processes_that_share_a_cache_download_once(samples: Samples, tmp_path: Path) -> None:
    images = [samples.dylib, samples.large, samples.variants["22G120"]]
    for number in range(40):  # more than a process has at a time, so that each waits for all others
        images.append(tmp_path / f"lib{number}.dylib")
        shutil.copyfile(samples.dylib, images[-1])
        set_uuid(images[-1], UUID(int=number + 1, version=4))
    by_hex = {uuid_of(image).hex: image for image in images}

    async def answer(request: web.Request) -> web.StreamResponse:
        data = by_hex[request.path.split("/")[2]].read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        response = web.StreamResponse(headers={"ETag": etag, "Content-Length": str(len(data))})
        await response.prepare(request)
        for start in range(0, len(data), len(data) // 10 + 1):
            await response.write(data[start : start + len(data) // 10 + 1])
            import asyncio

            await asyncio.sleep(0.05)
        return response

    with LyingServer(answer) as slow:
        command = [sys.executable, "-c", _PROCESS, slow.url, str(tmp_path / "cache"), *by_hex]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        outputs = [process.communicate(timeout=120)[0] for process in running]
        assert len(slow.requests) == len(images)
    expected = {hashlib.sha256(image.read_bytes()).hexdigest() for image in images}
    assert [set(output.split()) for output in outputs] == [expected] * 3


def test_what_was_used_longest_ago_makes_room(server: Server, samples: Samples, tmp_path: Path) -> None:
    small, large = ImageRequest(samples.uuid), ImageRequest(uuid_of(samples.large))
    variant = ImageRequest(SHARED_UUID)
    limit = samples.large.stat().st_size + samples.dylib.stat().st_size // 2
    with SymbolClient([server.url], tmp_path, max_bytes=limit) as client:
        found = client.fetch_many([small, large])
        assert found[small].path.exists() and found[large].path.exists()  # in use: still there
        long_ago = time.time() - 86400
        os.utime(found[large].path, (long_ago, long_ago))
        client.fetch_many([variant])
        assert not found[large].path.exists()
        assert found[small].path.exists()
        assert client.fetch_many([large])[large].path.read_bytes() == samples.large.read_bytes()


def test_a_cache_that_cannot_be_written_is_said_so(server: Server, samples: Samples, tmp_path: Path) -> None:
    with SymbolClient([server.url], tmp_path) as client:
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_bytes(b"")
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            client.fetch_many([ImageRequest(samples.uuid), ImageRequest(SHARED_UUID)])


def test_a_damaged_cache_file_is_fetched_again(server: Server, samples: Samples, tmp_path: Path) -> None:
    request = ImageRequest(samples.uuid)
    got = _get([server.url], tmp_path, request)[request]
    got.path.chmod(0o644)
    got.path.write_bytes(b"short")
    for index in (tmp_path / "index").rglob("*.json"):
        assert json.loads(index.read_text())["size"] == got.size
    assert _get([server.url], tmp_path, request)[request].path.read_bytes() == samples.dylib.read_bytes()
    next((tmp_path / "index").rglob("*.json")).write_text("{]")
    assert _get([server.url], tmp_path, request)[request].path.read_bytes() == samples.dylib.read_bytes()


def test_a_look_up_of_many_and_the_cache_that_a_process_had(server: Server, samples: Samples, tmp_path: Path) -> None:
    with SymbolClient([server.url], tmp_path) as client:
        unknown = UUID(int=77)
        held = client.look_up([samples.uuid, SHARED_UUID, unknown])
        assert set(held.images) == {samples.uuid, SHARED_UUID}
        assert {h.kind for h in held.images[samples.uuid]} == set(Kind)
        assert [h.build for h in held.images[SHARED_UUID]] == ["23A344", "22G120"]
        assert (held.match, held.caches) == (LayoutMatch.NONE, ())
        slide = 0x1234000
        found = client.look_up({SHARED_UUID: BASES["22G120"] + slide, samples.uuid: 0x1_0000_0000, unknown: 5})
        # One image alone fits any cache that lies below it.
        assert (found.match, found.caches) == (LayoutMatch.UNIQUE, (CACHES["22G120"],))
        assert found.slide == slide
        both = client.look_up({SHARED_UUID: BASES["23A344"] + slide})
        assert (both.match, set(both.caches), both.slide) == (LayoutMatch.AMBIGUOUS, set(CACHES.values()), None)
        none = client.look_up({SHARED_UUID: BASES["22G120"] - 0x1000})
        assert none.match is LayoutMatch.NONE
        odd = client.look_up({SHARED_UUID: BASES["22G120"] + 8})
        assert odd.match is LayoutMatch.NONE
        big = client.look_up([UUID(int=n) for n in range(10_000)])
        assert big.images == {}


def test_a_server_that_a_look_up_could_not_reach_is_not_asked_for_files(
    server: Server, samples: Samples, tmp_path: Path
) -> None:
    request = ImageRequest(samples.uuid)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen yet
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with (
            SymbolClient([dead], tmp_path / "one") as client,
            SymbolClient([dead, server.url], tmp_path / "two") as other,
        ):
            with pytest.raises(RemoteError):
                client.look_up([samples.uuid])
            assert set(other.look_up([samples.uuid]).images) == {samples.uuid}
            bound.listen()
            with pytest.raises(RemoteError, match=f"could be asked for {request}"):
                client.fetch_many([request])
            assert dead in client.failures[request][0]
            assert other.fetch_many([request])[request].origin == server.url
            assert dead in other.failures[request][0]
        bound.setblocking(False)
        with pytest.raises(BlockingIOError):
            bound.accept()


_WRONG = {"kind": "song", "size": -1, "sha256": "../x", "arch": 7, "path": None, "build": 5, "cache_uuid": "x"}
_RIGHT = {"kind": "executable", "size": 1, "sha256": "0" * 64, "arch": "arm64", "path": "/a"}
_NO_ANSWERS = [
    b"{}",
    b"[]",
    b"<html>",
    b"\xff",
    b"[" * 100_000,
    {"images": [{"uuid": "nobody"}]},
    {"images": [], "layout": {"match": "perfect"}},
    {"images": [], "layout": {"slide": "0"}},
    *({"images": [{"uuid": str(UUID(int=1)), "contents": [_RIGHT | {k: v}]}]} for k, v in _WRONG.items()),
]


@pytest.mark.parametrize("answer", _NO_ANSWERS, ids=lambda answer: str(answer)[-40:])
def test_what_is_no_answer_to_a_look_up_is_not_taken_for_one(tmp_path: Path, answer: bytes | dict[str, object]) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    promised = pytest.raises(RemoteError, match="not what the API promises")
    with LyingServer(_lie(body)) as other, SymbolClient([other.url], tmp_path) as client, promised:
        client.look_up([UUID(int=1)])


def test_of_a_cache_that_others_write_only_what_is_whole_is_taken(
    server: Server, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ImageRequest(samples.uuid)
    got = _get([server.url], tmp_path, request)[request]
    (index,) = (tmp_path / "index").rglob("*.json")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for writing in ("pathlib.Path.unlink", "os.utime"):
        monkeypatch.setattr(writing, refuse)
    old = time.time() - 3600
    monkeypatch.setattr("symcache.lru_folder._used", lambda _: old)
    assert _get([], tmp_path, request)[request].path == got.path
    got.path.chmod(0o644)
    got.path.write_bytes(b"short")
    assert _get([], tmp_path, request) == {}
    index.write_text("{]")
    assert _get([], tmp_path, request) == {}
