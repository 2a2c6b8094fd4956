"""Tokens as they are kept, found and sent."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import make_mocked_request

from symcache.errors import NotFoundError, StorageError, UsageError
from symcache_server.http.auth import Scope, TokenStore, token_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, as the server counts them."""
    now = [1000.0]
    monkeypatch.setattr("symcache_server.http.auth.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_running_server_sees_changes_within_a_second(tmp_path: Path, clock: list[float]) -> None:
    serving, console = TokenStore(tmp_path / "tokens.json"), TokenStore(tmp_path / "tokens.json")
    assert serving.find("anything") is None
    first = console.create("first", [Scope.READ])
    clock[0] += 1.1
    found = serving.find(first)
    assert found
    assert (found.name, found.scopes) == ("first", {Scope.READ})
    second = console.create("second", [Scope.WRITE])
    console.revoke("first")
    clock[0] += 1.1
    assert serving.find(first) is None
    assert serving.find(second)
    (tmp_path / "tokens.json").unlink()
    clock[0] += 1.1
    assert serving.find(second) is None


def test_a_file_that_does_not_change_is_read_once(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    token = store.create("ci", [Scope.READ])
    reads: list[Path] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or real(path))
    for _ in range(5):
        clock[0] += 1.1
        assert store.find(token)
    assert reads == [tmp_path / "tokens.json"]


def test_no_token_is_believed_from_a_damaged_file(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    token = store.create("ci", [Scope.ADMIN])
    (tmp_path / "tokens.json").write_text('[{"name": "ci"}]')
    for call in (store.all, lambda: store.find(token), lambda: store.revoke("ci")):
        with pytest.raises(StorageError, match="not readable as tokens"):
            call()


def test_names_are_short_plain_and_given_once(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    for name in ("a" * 64, "Ci-1_x@farm.example"):
        store.create(name, [Scope.READ])
    for name in ("", "a" * 65, "two words", "line\n", "a" * 64):
        with pytest.raises(UsageError):
            store.create(name, [Scope.READ])
    assert [t.name for t in store.all()] == ["Ci-1_x@farm.example", "a" * 64]
    with pytest.raises(NotFoundError, match="no such token"):
        store.revoke("nobody")


def test_only_its_hash_is_kept_of_a_token(tmp_path: Path) -> None:
    file = tmp_path / "new" / "state" / "tokens.json"
    store = TokenStore(file)
    token = store.create("ci", [Scope.READ])
    assert len(token) >= 43  # 256 bits in base64
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [t.sha256 for t in store.all()] == [hashlib.sha256(token.encode()).hexdigest()]
    assert store.create("other", [Scope.READ]) != token


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([Scope.READ], {Scope.READ}),
        ([Scope.WRITE], {Scope.READ, Scope.WRITE}),
        ([Scope.ADMIN], {Scope.READ, Scope.WRITE, Scope.ADMIN}),
        ([Scope.WRITE, Scope.READ], {Scope.READ, Scope.WRITE}),
        ([], set()),
    ],
)
def test_a_scope_includes_those_before_it(tmp_path: Path, scopes: list[Scope], allowed: set[Scope]) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    store.create("ci", scopes)
    (token,) = store.all()
    assert {scope for scope in Scope if token.may(scope)} == allowed
    assert token.is_for_paths is (not allowed)


@pytest.mark.parametrize(("hours", "expired"), [(None, False), (-1, True), (1, False)])
def test_a_token_ends_when_it_was_said_to(tmp_path: Path, hours: int | None, expired: bool) -> None:
    far_east = datetime.now(timezone(timedelta(hours=12)))  # no zone makes a difference
    store = TokenStore(tmp_path / "tokens.json")
    store.create("ci", [Scope.READ], None if hours is None else far_east + timedelta(hours=hours))
    assert store.all()[0].has_expired is expired


def _basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("sent", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        (_basic(b"any:abc"), "abc"),
        (_basic(b":a:b"), "a:b"),
        (_basic(b"abc"), None),
        (_basic(b"any:"), None),
        (_basic(b"any:\xff"), None),
        ("Basic !!!!", None),
        (_basic(b"any:abc") + "!", None),
        (_basic(b"any:abc").replace("Basic", "Digest"), None),
        ("Digest abc", None),
        ("abc", None),
        (None, None),
    ],
)
def test_where_a_token_stands_in_a_request(sent: str | None, token: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent}
    assert token_of(make_mocked_request("GET", "/", headers)) == token
