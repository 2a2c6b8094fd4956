"""`symcache get` from servers: what they did wrong is said."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from tests.client.lying_server import LyingServer
from tests.support.commands import end_here


def test_a_server_that_sends_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path))

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"<html>Please log in</html>")

    with LyingServer(answer) as server:
        said = end_here("get", UUID(int=1), "--server", server.url, code=1).stderr
    assert f"warning: {server.url}: what came for executable {UUID(int=1)} is no Mach-O" in said
