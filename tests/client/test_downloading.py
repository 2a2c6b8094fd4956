"""Large files of other servers: continued where they were cut, and of the size that was published."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

import pytest
from aiohttp import web

from symcache.client import download
from symcache.errors import IntegrityError, RemoteError, StorageError
from symcache_provisioning import download_firmware
from symcache_provisioning.builds.appledb import Firmware
from tests.client.lying_server import LyingServer

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def cut(request: web.Request) -> web.StreamResponse:
    """Send at most 300,000 bytes before the connection ends."""
    start = int(request.headers.get("Range", "bytes=0-")[6:-1])
    headers = {"Content-Length": str(len(CONTENT) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    await response.prepare(request)
    await response.write(CONTENT[start : start + 300_000])
    if start + 300_000 < len(CONTENT) and request.transport:
        request.transport.close()
    return response


def test_what_is_cut_is_continued(tmp_path: Path) -> None:
    with LyingServer(cut) as server:
        path = download_firmware("26A428", Firmware(f"{server.url}/M.ipsw", len(CONTENT), SHA256), tmp_path / "new")
        assert path == tmp_path / "new/M.ipsw"
        assert path.read_bytes() == CONTENT
        ranges = [headers.get("Range", "") for _, headers in server.requests]
    assert len(ranges) == 4
    assert ranges[0] == ""
    assert [int(r[6:-1]) >= 300_000 * n for n, r in enumerate(ranges[1:], 1)] == [True] * 3
    assert [p.name for p in path.parent.iterdir()] == ["M.ipsw"]


def test_a_run_continues_what_the_one_before_has(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT[:1_000_000])
    with LyingServer(cut) as server:
        download(f"{server.url}/M.ipsw", tmp_path / "part", len(CONTENT))
        assert [headers["Range"] for _, headers in server.requests] == ["bytes=1000000-"]
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_other_content_is_named_and_not_kept(tmp_path: Path) -> None:
    with LyingServer(cut) as server, pytest.raises(IntegrityError, match=f"SHA256 {SHA256} where {'a' * 64}"):
        download_firmware("26A428", Firmware(f"{server.url}/M.ipsw", len(CONTENT), "a" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 1])
def test_another_size_than_was_published_is_refused_before_it_comes(tmp_path: Path, size: int) -> None:
    with LyingServer(cut) as server, pytest.raises(IntegrityError, match=f"{len(CONTENT)} bytes where {size}"):
        download(f"{server.url}/M.ipsw", tmp_path / "part", size)
    assert (tmp_path / "part").stat().st_size == 0


def test_a_disk_that_is_too_small_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with LyingServer(cut) as server:
        with pytest.raises(StorageError, match=r"MiB are free where [0-9]+ MiB are needed"):
            download(f"{server.url}/M.ipsw", tmp_path / "part", 1 << 60)
        assert server.requests == []


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    with (tmp_path / "part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process"):
            download("http://127.0.0.1:1/M.ipsw", tmp_path / "part", 10)


def test_what_is_no_longer_published_is_not_tried_again(tmp_path: Path) -> None:
    async def gone(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    with LyingServer(gone) as server:
        with pytest.raises(RemoteError, match="answers 404"):
            download(f"{server.url}/M.ipsw", tmp_path / "part", 10)
        assert len(server.requests) == 1
