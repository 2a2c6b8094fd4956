"""Source files: fetched by UUID and path, checked, kept for when no server is there."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.client import SymbolClient
from symcache.errors import RemoteError, StorageError
from symcache.images import SourceRequest
from tests.client.lying_server import LyingServer
from tests.support.disks import full_disk

__all__ = ["full_disk"]

_UUID = UUID("23516BE4-29BE-350C-91C9-F36E7999F0F1")
_PATH = "/Users/dev/a b/100%/mäin.c"
_TEXT = b"int main(void) { return 0; }\n"


async def _sources(request: web.Request) -> web.Response:
    # As debuginfod has it: the absolute path behind `source`, percent-encoded.
    if request.method == "GET" and request.path == f"/buildid/{_UUID.hex}/source{_PATH}":
        return web.Response(body=_TEXT, headers={"X-DEBUGINFOD-SIZE": str(len(_TEXT))})
    return web.Response(status=404)


def _fetch(client: SymbolClient, uuid: UUID, path: str) -> Path | None:
    request = SourceRequest(uuid, path)
    return client.fetch_sources([request]).get(request)


def test_a_source_is_fetched_once_and_then_kept(tmp_path: Path) -> None:
    with LyingServer(_sources) as server, SymbolClient([server.url], tmp_path) as client:
        got = _fetch(client, _UUID, _PATH)
        assert got is not None
        assert got.read_bytes() == _TEXT
        assert _fetch(client, UUID(int=1), _PATH) is None
        assert _fetch(client, _UUID, "/Users/dev/none.c") is None
        # Nobody is asked for these, nor could they name a file outside of the cache.
        for path in ("main.c", "", "/", "/a\nb", "/a\0b", "/" + "a" * 5000):
            assert _fetch(client, _UUID, path) is None
    with SymbolClient([server.url], tmp_path) as client:
        assert _fetch(client, _UUID, _PATH) == got
        with pytest.raises(RemoteError, match=r"none\.c"):
            _fetch(client, _UUID, "/Users/dev/none.c")
    with SymbolClient([], tmp_path) as client:
        assert client.fetch_sources([SourceRequest(_UUID, _PATH), SourceRequest(_UUID, "/x")]) == {
            SourceRequest(_UUID, _PATH): got
        }
    got.chmod(0o600)
    got.write_bytes(_TEXT[:-5])
    with SymbolClient([], tmp_path) as client:
        assert _fetch(client, _UUID, _PATH) is None, "what is cut is not given out"


def test_a_full_disk_is_told_as_what_it_is(full_disk: Path) -> None:
    with (
        LyingServer(_sources) as server,
        SymbolClient([server.url], full_disk / "cache") as client,
        pytest.raises(StorageError, match=rf"cache {full_disk}/cache: No space left on device"),
    ):
        _fetch(client, _UUID, _PATH)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (_TEXT, {"X-Symcache-Size": "7"}),
        (_TEXT, {"X-Symcache-Version": "1", "ETag": '"' + "0" * 64 + '"'}),
        (_TEXT, {"Content-Encoding": "br"}),
        (b"x" * ((16 << 20) + 1), {}),
    ],
)
def test_what_is_not_as_promised_is_not_taken(tmp_path: Path, body: bytes, headers: dict[str, str]) -> None:
    async def lie(request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    with (
        LyingServer(lie) as liar,
        LyingServer(_sources) as honest,
        SymbolClient([liar.url, honest.url], tmp_path) as client,
    ):
        got = _fetch(client, _UUID, _PATH)
        assert got is not None
        assert got.read_bytes() == _TEXT
        assert len(client.source_failures) == 1
        assert liar.url in client.source_failures[0]
    with LyingServer(lie) as liar, SymbolClient([liar.url], tmp_path / "other") as client:
        assert _fetch(client, _UUID, _PATH) is None
    assert [p for p in (tmp_path / "other").rglob("*") if p.is_file()] == []


def test_a_server_that_breaks_off_or_refuses_is_no_answer(tmp_path: Path) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=401)

    for answer in (break_off, refuse):
        with (
            LyingServer(answer) as bad,
            SymbolClient([bad.url], tmp_path) as client,
            pytest.raises(RemoteError, match="no server could be asked"),
        ):
            _fetch(client, _UUID, _PATH)
        with (
            LyingServer(answer) as bad,
            LyingServer(_sources) as good,
            SymbolClient([bad.url, good.url], tmp_path / answer.__name__) as client,
        ):
            assert _fetch(client, _UUID, _PATH) is not None


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with LyingServer(_sources) as server, SymbolClient([server.url], tmp_path) as client:
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_bytes(b"")
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            _fetch(client, _UUID, _PATH)


def test_a_path_that_is_no_text_is_not_asked_for(tmp_path: Path) -> None:
    with LyingServer(_sources) as server, SymbolClient([server.url], tmp_path) as client:
        assert _fetch(client, _UUID, "/Users/dev/m\udce4in.c") is None
    assert server.requests == []
