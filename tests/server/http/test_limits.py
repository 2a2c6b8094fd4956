"""Rate limits: a burst passes, a flood is told when to come back, and nobody can name himself another."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from symcache.client import SymbolClient
from symcache.images import ImageRequest
from symcache.library import Library
from symcache_server.config import ServerConfig
from symcache_server.http.auth import Scope, TokenStore
from symcache_server.http.limits import Limits, RateLimit, parse_network
from tests.support.http import Answer, request
from tests.support.servers import Samples, serve

_PATH = "/buildid/00000000000000000000000000000001/executable"


def _token(folder: Path, name: str, scope: str) -> str:
    return TokenStore(folder / "state" / "symcache" / "tokens.json").create(name, [Scope(scope)])


def _look_up(url: str, path: str = _PATH, **headers: str) -> Callable[[], Answer]:
    return lambda: request(url, path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def _until_refused(ask: Callable[[], Answer], most: int) -> tuple[int, Answer, float]:
    """Return how many requests were answered, the refusal, and when it was asked for."""
    for count in range(most + 1):
        asked = time.monotonic()
        answer = ask()
        if answer.status == 429:
            return count, answer, asked
        assert answer.status in {200, 202, 401, 404}
    raise AssertionError(f"{most} requests and no refusal")


def _used_up(ask: Callable[[], Answer], rate: float, since: float) -> bool:
    """Tell whether no more is answered than time has allowed since a refusal: on a busy machine, that may be some."""
    count, _, _ = _until_refused(ask, 100)
    return count <= 1 + rate * (time.monotonic() - since)


@given(st.floats(0.1, 50), st.lists(st.floats(0, 60), max_size=300))
def test_no_client_gets_more_than_burst_and_rate(rate: float, pauses: list[float]) -> None:
    now = 0.0
    limit = RateLimit(rate, 30 * rate, lambda: now)
    allowed = 0
    for pause in pauses:
        now += pause
        late = limit.wait("a")
        if late:
            now += late * 1.001 + 1e-6
            assert limit.wait("a") == 0  # what Retry-After says is true
        allowed += 1
    assert allowed <= max(1, 30 * rate) + now * rate + 1
    assert limit.wait("b") == 0


def test_a_flood_is_told_when_to_come_back(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--lookup-rate", "0.5") as server:
        start = time.monotonic()
        count, refused, since = _until_refused(_look_up(server.url), 100)
        assert 15 <= count <= 16 + 0.5 * (time.monotonic() - start)
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert _used_up(_look_up(server.url, "/api/v1/releases"), 0.5, since)
        assert request(server.url, "/healthz").status == 200
        # Without --trust-proxy nobody becomes another by saying so.
        assert _used_up(_look_up(server.url, X_Forwarded_For="192.0.2.1"), 0.5, since)
        with SymbolClient([server.url], tmp_path / "cache") as client:
            assert client.fetch_many([ImageRequest(samples.uuid)])  # waits as it was told


def test_each_process_grants_its_share_of_the_rate_and_a_whole_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("symcache_server.http.limits.RateLimit", partial(RateLimit, clock=lambda: now))
    limits, asked = Limits(8.0, 0.0, (), processes=4), make_mocked_request("GET", "/")

    def granted() -> int:
        for count in range(1000):
            try:
                limits.check(asked, None, upload=False)
            except web.HTTPTooManyRequests:
                return count
        raise AssertionError("there is no limit")

    assert granted() == 8 * 30
    now += 10
    assert granted() == 8 * 10 / 4


def test_a_server_of_several_processes_divides_the_rate(samples: Samples, tmp_path: Path) -> None:
    options = ("--processes", "2", "--lookup-rate", "0.1")
    with serve(samples.library, tmp_path / "server", *options) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))  # to one of them
        answers = []
        for _ in range(4):
            connection.request("GET", _PATH)
            answers.append(connection.getresponse())
            answers[-1].read()
        connection.close()
    assert [answer.status for answer in answers] == [404, 404, 404, 429]
    assert 10 < int(answers[-1].headers["Retry-After"]) <= 20


def test_many_clients_take_no_more_memory_and_the_busy_ones_are_remembered() -> None:
    now = 0.0
    limit = RateLimit(1, 30, lambda: now)
    while limit.wait("busy") == 0:
        pass
    for n in range(100_000):
        limit.wait(str(n))
        if n % 1000 == 0:
            assert limit.wait("busy") > 0
    assert len(limit._done_at) < 70_000
    now = 29.0
    assert limit.wait("busy") == 0


def test_behind_a_proxy_each_client_counts_for_itself(samples: Samples, tmp_path: Path) -> None:
    options = ("--lookup-rate", "0.2", "--trust-proxy", "127.0.0.1", "--trust-proxy", "10.0.0.0/8")
    with serve(samples.library, tmp_path / "server", *options) as server:
        _, _, since = _until_refused(_look_up(server.url, X_Forwarded_For="192.0.2.1"), 100)
        for same in ("6.6.6.6, 192.0.2.1", "192.0.2.1, 10.1.2.3", "::ffff:192.0.2.1", " 192.0.2.1 ,127.0.0.1"):
            assert _used_up(_look_up(server.url, X_Forwarded_For=same), 0.2, since), same
        for other in ("192.0.2.2", "192.0.2.1, 192.0.2.3", "", "not an address"):
            assert request(server.url, _PATH, headers={"X-Forwarded-For": other}).status == 404, other
        _, _, since = _until_refused(_look_up(server.url, X_Forwarded_For="2001:db8::1"), 100)
        assert _used_up(_look_up(server.url, X_Forwarded_For="2001:db8::ffff:1"), 0.2, since)
        assert request(server.url, _PATH, headers={"X-Forwarded-For": "2001:db8:0:1::1"}).status == 404


def test_uploads_and_tokens_have_limits_of_their_own(tmp_path: Path) -> None:
    Library.open(tmp_path / "library", create=True).close()
    folder = tmp_path / "server"
    ci, other = _token(folder, "ci", "write"), _token(folder, "other", "write")

    def put(token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Content-Range": "bytes 0-0/9"}
        return request(server.url, f"/api/v1/uploads/{'1' * 64}", method="PUT", headers=headers, body=b"x")

    with serve(tmp_path / "library", folder, "--upload-rate", "0.2") as server:
        start = time.monotonic()
        count, _, since = _until_refused(lambda: put(ci), 100)
        assert 6 <= count <= 7 + 0.2 * (time.monotonic() - start)
        assert put(other).status == 202
        assert put("guess").status == 401
        _until_refused(lambda: put("guess"), 100)  # guessing is slow
        assert request(server.url, _PATH).status == 404  # look-ups are not limited here
        asked = _look_up(server.url, f"/api/v1/uploads/{'1' * 64}", Authorization=f"Bearer {ci}")
        assert _used_up(asked, 0.2, since)
        _, refused, _ = _until_refused(asked, 100)
        assert "too many" in json.loads(refused.body)["error"]


@pytest.mark.parametrize(
    ("host", "proxies", "limited"), [("127.0.0.1", (), False), ("0.0.0.0", (), True), ("127.0.0.1", ("::1",), True)]
)
def test_limits_are_on_where_others_can_connect(
    tmp_path: Path, host: str, proxies: tuple[str, ...], limited: bool
) -> None:
    networks = tuple(parse_network(p) for p in proxies)
    config = ServerConfig("library", tmp_path, tmp_path, host=host, trusted_proxies=networks)
    assert all(config.rates) is limited
    assert any(config.rates) is limited
