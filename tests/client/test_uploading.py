"""Sending own binaries to a server that is not one of ours."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.client import PushedFile, push
from symcache.errors import RemoteError
from tests.client.lying_server import LyingServer


@pytest.mark.parametrize("said", [{}, {"offset": "all"}, {"offset": 0, "complete": [1]}, [], None])
def test_what_a_server_says_of_an_upload_is_checked(tmp_path: Path, said: object) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"images": []} if request.path == "/api/v1/uuids" else said)

    file = tmp_path / "libown.dylib"
    file.write_bytes(b"own")
    with LyingServer(answer) as server, pytest.raises(RemoteError, match=r"not what the API promises"):
        push(server.url, [PushedFile(file, 0, 3, "/usr/lib/libown.dylib", UUID(int=1))])
