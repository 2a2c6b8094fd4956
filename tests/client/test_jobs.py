"""Many requests at a time: what is wrong with one costs no other."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import ClientSession, web

from symcache.client import SymbolClient, jobs
from symcache.client.jobs import FetchJob, HttpThread, RequestFailedError
from symcache.errors import RemoteError
from symcache.images import ImageRequest
from tests.client.lying_server import LyingServer
from tests.support.servers import Samples


async def test_a_server_that_fails_with_one_request_is_asked_for_the_others() -> None:
    async def fetch(url: str, request: int) -> int:
        if request % 2 == 0:
            raise RequestFailedError(f"{url}: damaged")
        return request

    job = FetchJob(["one"], fetch)
    await job.run(range(20), 1)
    assert set(job.results) == set(range(1, 20, 2))
    assert set(job.failures) == set(range(0, 20, 2))


@pytest.mark.parametrize(("error", "most"), [(RequestFailedError, 4), (RemoteError, 1)])
async def test_a_server_that_fails_with_everything_is_left_alone(error: type[RemoteError], most: int) -> None:
    asked = []

    async def fetch(url: str, request: int) -> int:
        asked.append(request)
        raise error(f"{url}: no")

    job = FetchJob(["one"], fetch)
    await job.run(range(20), 1)
    assert asked == list(range(most))
    assert len(job.failures) == 20
    assert not job.responded


def test_a_damaged_file_of_a_server_is_the_only_one_that_is_missing(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache.client.client._IMAGES_AT_ONCE", 1)
    damaged, whole = ImageRequest(UUID(int=1)), ImageRequest(samples.uuid)

    async def answer(request: web.Request) -> web.StreamResponse:
        if damaged.uuid.hex in request.path:
            return web.Response(status=500)  # as our server does
        return web.Response(body=samples.dylib.read_bytes())

    with LyingServer(answer) as server, SymbolClient([server.url], tmp_path) as client:
        assert set(client.fetch_many([damaged, whole])) == {whole}
        assert "answers 500" in client.failures[damaged][0]


def test_what_ends_just_when_its_time_to_wait_is_over_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0.0)

    async def work(_: ClientSession) -> int:
        return 1

    thread = HttpThread()
    try:
        assert sum(thread.run(work) for _ in range(300)) == 300
    finally:
        thread.close()
