"""Where the modules of a dump are looked for, and who is asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from symcache.cli.settings import binary_sources, server_urls
from symcache.errors import UsageError
from symcache.images import ImageRequest
from symcache.model import Kind
from tests.client.lying_server import LyingServer
from tests.support.servers import noise_image, uuid_of


def test_what_was_fetched_is_not_fetched_again_nor_what_the_server_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise_image(tmp_path)
    uuid, data = uuid_of(image), image.read_bytes()
    content = {"kind": "executable", "size": len(data), "sha256": "0" * 64, "arch": "arm64", "path": "/usr/lib/a"}
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SYMCACHE_LIBRARY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nobody"))

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/uuids":
            return web.json_response({"images": [{"uuid": str(uuid), "contents": [content]}]})
        return web.Response(body=data)

    program, symbols = ImageRequest(uuid), ImageRequest(uuid, Kind.DEBUGINFO)
    with LyingServer(answer) as server:
        for _ in range(2):
            with binary_sources([], None, [server.url]) as sources:
                assert sources.resolver.guess_caches({uuid: 0x1_0000_0000}) == []
                found = sources.resolver.resolve([program, symbols])
            assert set(found) == {program}
            assert found[program].path.read_bytes() == data
            assert sources.problems == []
        asked = [path for path, _ in server.requests]
    assert asked == ["/api/v1/uuids", f"/buildid/{uuid.hex}/executable", "/api/v1/uuids"]
    # Now that it is here, nobody has to be named for it.
    with binary_sources([], None, None) as sources:
        assert sources.resolver.guess_caches({uuid: 0x1_0000_0000}) == []
        assert sources.resolver.resolve([program, symbols])[program].path.read_bytes() == data
        assert sources.problems == []


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:port", "http://h:99999", "http:///x", "http://a..b", "ftp://h"]
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a server") as raised:
        server_urls([url.replace("://", "://any:t0ken@")])
    assert "t0ken" not in str(raised.value)
    assert server_urls(["http://[::1]:8080/", "https://h/x"]) == ["http://[::1]:8080", "https://h/x"]
