"""Clients that send no credentials have a token in the path: it names functions, is told to nobody, and ends."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from symcache.cli.app import application
from symcache.errors import UsageError
from symcache.library import Library
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.auth import TokenStore
from tests.server.symbolicate.conftest import PAGE, Closed
from tests.server.symbolicate.v5 import debug_id, post, symbolicate
from tests.support.http import Answer, request
from tests.support.servers import Samples, Server
from tests.support.waiting import until


def _job(samples: Samples) -> dict[str, object]:
    return {"memoryMap": [["libanswer.dylib", debug_id(samples.uuid.hex)]], "stacks": [[[0, 0x320]]]}


def test_a_token_in_the_path_names_functions_and_nothing_else(closed: Closed, samples: Samples) -> None:
    server, prefix, reader = closed.server, closed.prefix, closed.reader
    (result,) = symbolicate(server.url, _job(samples), f"{prefix}/symbolicate/v5")
    frame = result["stacks"][0][0]
    assert frame["function"] == "answer"
    wanted = {"debugName": "", "debugId": debug_id(samples.uuid.hex), "moduleOffset": "0x320", "file": frame["file"]}
    source = post(server.url, wanted, f"{prefix}/source/v1")
    assert json.loads(source.body)["source"] == Path(frame["file"]).read_text()

    token = prefix.rpartition("/")[2]
    with_token = {"Authorization": f"Bearer {token}"}
    path = f"/buildid/{samples.uuid.hex}/executable"
    assert request(server.url, path, headers=with_token).status == 403
    assert request(server.url, prefix + path).status == 401
    assert request(server.url, f"{prefix}/api/v1/releases").status == 401
    assert post(server.url, _job(samples), headers=with_token).status == 403
    # Nor is it any token that may read.
    in_path = post(server.url, _job(samples), f"/names/{reader}/symbolicate/v5")
    assert in_path.status == 403
    assert b"is none for a path" in in_path.body
    assert b"may not read" not in in_path.body
    assert post(server.url, _job(samples), headers={"Authorization": f"Bearer {reader}"}).status == 200
    assert post(server.url, _job(samples)).status == 401
    assert post(server.url, _job(samples), f"/names/{token[:-1]}x/symbolicate/v5").status == 401


def test_no_log_has_a_token_that_was_in_a_path(closed: Closed, samples: Samples) -> None:
    server, prefix = closed.server, closed.prefix
    token = prefix.rpartition("/")[2]
    encoded = "%" + token[:1].encode().hex() + token[1:]
    assert post(server.url, _job(samples), f"/names/{encoded}/symbolicate/v5").status == 200
    for path in (f"{prefix}/symbolicate/v4", f"/{prefix}/symbolicate/v5?x={token}", f"{prefix}/source/v1?", prefix):
        assert post(server.url, {}, path).status >= 400
    log = closed.access_log

    def written() -> bool:
        return "symbolicate/v4" in log.read_text() and "source/v1" in log.read_text()

    until(written)
    assert token[1:20] not in (server.folder / "stderr").read_text()
    lines = [line for line in log.read_text().splitlines() if f"x={token}" not in line]  # a query is not the path
    assert token[1:20] not in "".join(lines)
    assert "/names/.../symbolicate/v5" in log.read_text()


async def test_a_token_ends_when_it_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Library.open(tmp_path / "library", create=True).close()
    config = ServerConfig(str(tmp_path / "library"), tmp_path / "cache", tmp_path / "symcache")
    store = TokenStore(config.tokens)
    path = f"/names/{store.create('profiler', ())}/symbolicate/v5"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="0"):
        application("token")(["token", "list"])
    assert "names" in capsys.readouterr().out
    with pytest.raises(UsageError, match="reading needs a token"):  # this one lets nobody read
        dataclasses.replace(config, require_token=True).check()
    async with TestClient(TestServer(create_app(config))) as client:

        async def status() -> int:
            async with client.post(path, json={"memoryMap": [], "stacks": []}) as response:
                return response.status

        assert await status() == 200
        store.revoke("profiler")
        await asyncio.sleep(1.1)
        assert await status() == 401  # although reading is open


def _from_page(url: str, path: str, origin: str, **headers: str) -> Answer:
    sent = {"Origin": origin, "Content-Type": "text/plain"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return request(url, path, method="POST", headers=sent, body=b'{"memoryMap":[],"stacks":[]}')


def test_named_pages_may_read_responses_and_errors(closed: Closed) -> None:
    server, prefix = closed.server, closed.prefix
    for path, status in ((f"{prefix}/symbolicate/v5", 200), ("/symbolicate/v5", 401), (f"{prefix}/source/v1", 400)):
        answer = _from_page(server.url, path, PAGE)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    for path in (f"{prefix}/symbolicate/v5", "/symbolicate/v5"):
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, user-agent",
            "Access-Control-Request-Private-Network": "true",
        }
        answer = request(server.url, path, method="OPTIONS", headers=asked)
        assert answer.status == 204
        assert (
            answer.headers.items()
            >= {
                "access-control-allow-origin": PAGE,
                "access-control-allow-methods": "POST",
                "access-control-allow-headers": "content-type, user-agent",
                "access-control-allow-private-network": "true",
                "access-control-max-age": "86400",
            }.items()
        )
    releases = request(server.url, "/api/v1/releases", headers={"Origin": PAGE})
    assert not [name for name in releases.headers if name.startswith("access-control")]


def test_other_pages_may_neither_read_nor_have_work_done(closed: Closed, server: Server) -> None:
    with_pages, prefix = closed.server, closed.prefix
    path = f"{prefix}/symbolicate/v5"
    for url, at in ((with_pages.url, path), (server.url, "/symbolicate/v5")):
        for origin in (
            "https://evil.example",
            "null",
            "",
            f"{PAGE}.evil.example",
            PAGE.upper(),
            "http://localhost:1",
        ):
            answer = _from_page(url, at, origin)
            assert answer.status == 403, origin
            assert "access-control-allow-origin" not in answer.headers
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            preflight = request(url, at, method="OPTIONS", headers=asked)
            assert not [name for name in preflight.headers if name.startswith("access-control")]
    # Pages are let in by name alone; what the server shows itself is a page, too.
    assert _from_page(server.url, "/symbolicate/v5", PAGE).status == 403
    assert _from_page(server.url, "/symbolicate/v5", server.url).status == 200
    assert (
        _from_page(server.url, "/symbolicate/v5", "https://name.of.the.proxy", Sec_Fetch_Site="same-origin").status
        == 200
    )


@pytest.mark.parametrize(
    "origin", ["*", "https://profiler.firefox.com/", "profiler.firefox.com", "null", "https://A.example"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str, tmp_path: Path) -> None:
    config = ServerConfig("library", tmp_path, tmp_path, origins=(origin,))
    with pytest.raises(UsageError, match="not the origin of a web page"):
        config.check()
