"""Sending own binaries to a server that is not one of ours."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.client import PushedFile, push, uploading
from symcache.errors import RemoteError, UsageError
from tests.client.lying_server import LyingServer

SHA256 = hashlib.sha256(b"own").hexdigest()


@pytest.mark.parametrize("said", [{}, {"offset": "all"}, {"offset": 0, "complete": [1]}, [], None])
def test_what_a_server_says_of_an_upload_is_checked(tmp_path: Path, said: object) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"images": []} if request.path == "/api/v1/uuids" else said)

    file = tmp_path / "libown.dylib"
    file.write_bytes(b"own")
    with LyingServer(answer) as server, pytest.raises(RemoteError, match=r"not what the API promises"):
        push(server.url, [PushedFile(file, 0, 3, "/usr/lib/libown.dylib", UUID(int=1))])


@pytest.mark.parametrize("body", ['{"error": "the token ci may not write", "hint": ""}', "the token ci may not write"])
def test_a_refusal_is_told_in_the_words_of_the_server(tmp_path: Path, body: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return (
            web.json_response({"images": []})
            if request.path == "/api/v1/uuids"
            else web.Response(status=403, text=body)
        )

    with LyingServer(answer) as server, pytest.raises(UsageError) as refused:
        push(server.url, _own(tmp_path, 1))
    assert str(refused.value) == f"{server.url}: the token ci may not write"


_ADDED = {"record": "r", "images": [], "problems": []}


def _own(folder: Path, *numbers: int) -> list[PushedFile]:
    """Return files with different UUIDs and one content."""
    file = folder / "libown.dylib"
    file.write_bytes(b"other own")
    return [PushedFile(file, 6, 3, f"/usr/lib/libown{n}.dylib", UUID(int=n)) for n in numbers]


def test_more_images_than_a_look_up_may_have_are_looked_up_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "MAX_IMAGES", 2)
    asked: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        images = (await request.json())["images"]
        asked.append(len(images))
        content = {"kind": "executable", "size": 3, "sha256": SHA256, "arch": "arm64", "path": "/usr/lib/libown.dylib"}
        return web.json_response({"images": [{"uuid": image["uuid"], "contents": [content]} for image in images]})

    with LyingServer(answer) as server:
        assert push(server.url, _own(tmp_path, 1, 2, 3)) == (0, 1)
    assert asked == [2, 1]


def test_nothing_is_sent_but_what_is_to_be_and_a_busy_server_is_waited_for(tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []
    busy = [429]

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/api/v1/uuids":
            return web.json_response({"images": []})
        if request.method == "PUT":
            received.append((request.headers["Content-Range"], await request.read()))
            return web.json_response({"offset": 3, "complete": True})
        if request.method == "GET":
            return web.json_response({"offset": -6, "complete": False})
        return web.Response(status=busy.pop()) if busy else web.json_response(_ADDED)

    with LyingServer(answer) as server:
        assert push(server.url, _own(tmp_path, 1)) == (1, 0)
    assert received == [("bytes 0-2/3", b"own")]
