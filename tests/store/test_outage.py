"""Object stores that go away for a while, lose responses, or do not keep to what they are told."""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError

from symcache.errors import StorageError
from symcache.model import HarvestRecord
from symcache.store import MARKER, Store, make_library_id, open_store, read_record, write_record
from symcache.store.bucket import Bucket
from symcache.store.outage import PATIENCE, Outage
from tests.support.flaky_proxy import FlakyProxy
from tests.support.moto_store import moto, new_location
from tests.support.seaweed import s3_environment

KEY = "blobs/ab/x"
LOST = GenericError("Generic S3 error: Error performing PUT - HTTP error: error sending request")


@pytest.fixture
def location(monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3_environment(moto()).items():
        monkeypatch.setenv(name, value)
    return new_location()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, location: str) -> Iterator[FlakyProxy]:
    """Return what stands before the store from now on, and drops no connection yet."""
    with FlakyProxy(moto(), 1, faults=0.0, kinds=["drop"]) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened.url)
        yield opened


def _put(store: Store, key: str, content: bytes) -> bool:
    source = store.scratch() / "part-test"
    source.write_bytes(content)
    return store.create(key, source)


def _content(store: Store, key: str) -> bytes:
    with store.open(key) as stored:
        return stored.read()


def test_a_store_that_comes_back_is_waited_for_and_that_is_said_once(
    location: str, proxy: FlakyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(location, create=True)
    assert _put(store, KEY, b"content")
    assert caplog.records == []
    proxy.faults = 1.0
    proxy.cut()
    threading.Timer(1.5, lambda: setattr(proxy, "faults", 0.0)).start()
    with ThreadPoolExecutor(8) as pool:
        contents = pool.map(lambda _: _content(store, KEY), range(4))
        created = list(pool.map(lambda n: write_record(store, HarvestRecord(source=str(n)), f"w{n}"), range(4)))
        assert set(contents) == {b"content"}
    assert sorted(store.folders("records/")) == [key.writer for key, _ in created]
    assert [(r.name, r.levelname) for r in caplog.records] == [("symcache.store", "WARNING")]
    assert location in caplog.text
    assert "60 s at most" in caplog.text


def test_after_its_time_nobody_waits_any_more_until_it_is_back(location: str, proxy: FlakyProxy) -> None:
    store = open_store(location, create=True, patience=1.0)
    proxy.faults = 1.0
    proxy.cut()
    for _ in range(3):
        proxy.counts.clear()
        with pytest.raises(StorageError, match="error sending request"):
            store.stat(KEY)
    assert proxy.counts["drop"] <= 2
    proxy.faults = 0.0
    assert store.stat(KEY) is None


@pytest.mark.parametrize(
    "text", ["status code: 403 Forbidden: ", "status code: 400 Bad Request: ", "Received redirect without LOCATION"]
)
def test_a_response_that_will_be_the_same_again_is_not_waited_for(text: str, location: str, monkeypatch: Any) -> None:
    store = open_store(location, create=True)
    calls = []

    def refuse(*_: Any) -> None:
        calls.append(1)
        raise GenericError(f"Generic S3 error: Error performing HEAD http://x in 1ms - {text}")

    monkeypatch.setattr(obstore, "head", refuse)
    with pytest.raises(StorageError):
        store.stat(KEY)
    assert calls == [1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the times of a clock that only sleeping moves on."""
    times = [1000.0]
    monkeypatch.setattr("symcache.store.outage.time", SimpleNamespace(monotonic=lambda: times[-1]))
    monkeypatch.setattr(time, "sleep", lambda seconds: times.append(times[-1] + seconds))
    return times


def _fail(error: Exception) -> Callable[[int], None]:
    def request(_: int) -> None:
        raise error

    return request


def test_about_a_minute_is_waited_in_random_steps_that_grow(clock: list[float]) -> None:
    with pytest.raises(GenericError):
        Outage("s3://x", PATIENCE, lambda _: True).outlast(_fail(LOST))
    assert PATIENCE <= clock[-1] - clock[0] < PATIENCE + 10
    steps = [after - before for before, after in itertools.pairwise(clock)]
    assert 8 < len(steps) < 60
    assert len(set(steps)) == len(steps)
    assert max(steps[:3]) < 2.1
    assert max(steps) <= 8


def test_one_request_that_never_works_ends_although_others_do(clock: list[float]) -> None:
    outage = Outage("s3://x", PATIENCE, lambda error: error is LOST)

    def request(_: int) -> None:
        assert outage.outlast(lambda _: "works") == "works"
        raise LOST

    with pytest.raises(GenericError):
        outage.outlast(request)
    assert clock[-1] - clock[0] < PATIENCE + 10


def test_a_download_that_was_cut_begins_anew(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a shorter object has come to the place meanwhile."""

    def cut() -> Iterator[bytes]:
        yield b"all but the end"
        raise LOST

    streams: list[Iterable[bytes]] = [cut(), [b"who", b"le"]]
    monkeypatch.setattr(obstore, "get", lambda *_: SimpleNamespace(meta={"size": 5}, stream=lambda **_: streams.pop(0)))
    target = io.BytesIO()
    assert Bucket("s3://symbols", PATIENCE).download(KEY, target) == 5
    assert (target.getvalue(), target.tell()) == (b"whole", 5)


def test_an_object_that_comes_short_is_not_taken_for_whole(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(location, create=True)
    monkeypatch.setattr(obstore, "get", lambda *_: SimpleNamespace(meta={"size": 7}, stream=lambda **_: [b"short"]))
    with pytest.raises(StorageError, match=f"{KEY}: 5 bytes came where 7 were promised"):
        store.open(KEY)


def test_a_store_that_overwrites_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = moto(honours_conditions=False)
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    location = new_location()
    with pytest.raises(StorageError, match="overwrites") as caught:
        open_store(location, create=True)
    assert "conditional PUTs" in caught.value.hint
    # One that was copied there can be read.
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto())
    good = open_store(new_location(), create=True)
    key, identity = write_record(good, HarvestRecord(source="first"), "w")
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    client = obstore.store.S3Store(bucket, prefix=prefix, endpoint=endpoint, client_options={"allow_http": True})
    obstore.put(client, MARKER, json.dumps({"format": 1}).encode())
    obstore.put(client, str(key), _content(good, str(key)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    store = open_store(location)
    with pytest.raises(StorageError, match="overwrites"):
        write_record(store, HarvestRecord(source="second"), "w")
    assert read_record(store, key)[0] == identity
    assert list(store.list("records/")) == [str(key)]
    assert list(store.list("tmp/")) == []


def test_what_is_said_to_be_there_and_is_not_is_made(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So S3 answers (409) while somebody else makes the same, who may be killed before it is there."""
    store = open_store(location, create=True)
    real = obstore.put
    refusals = iter([True])

    def put(client: Any, key: str, *arguments: Any, **options: Any) -> Any:
        if key == KEY and next(refusals, False):
            raise AlreadyExistsError("409 ConditionalRequestConflict")
        return real(client, key, *arguments, **options)

    assert _put(store, "blobs/ab/y", b"1")
    monkeypatch.setattr(obstore, "put", put)
    assert _put(store, KEY, b"content")
    assert _content(store, KEY) == b"content"


def test_what_was_made_although_nobody_said_so_is_not_made_again(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first response to every object that is made on condition is lost."""
    store = open_store(location, create=True)
    real, sent = obstore.put, set()

    def put(client: Any, key: str, *arguments: Any, mode: str, **options: Any) -> Any:
        result = real(client, key, *arguments, mode=mode, **options)
        if mode == "create" and key not in sent:
            sent.add(key)
            raise LOST
        return result

    monkeypatch.setattr(obstore, "put", put)
    assert _put(store, KEY, b"content")
    assert not _put(store, KEY, b"content")
    sent.clear()
    assert not _put(store, KEY, b"other")  # the first attempt found one, so no response was in doubt
    identity = make_library_id(store)
    assert make_library_id(open_store(location)) == identity
    key, record = write_record(store, HarvestRecord(source="one"), "w")
    assert read_record(store, key)[0] == record
    assert list(store.list("records/")) == [str(key)] == ["records/w/0000000001.json.zst"]


@pytest.mark.parametrize("operation", ["delete_older", "quarantine"])
def test_what_came_into_the_place_of_something_deleted_is_not_deleted_by_another_attempt(
    operation: str, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(location, create=True), open_store(location)
    _put(store, KEY, b"old")
    made = store.stat(KEY)
    assert made
    time.sleep(1.1)  # the clock of an object store may count whole seconds
    real = obstore.delete

    def delete(client: Any, key: str) -> None:
        real(client, key)
        if key == KEY:
            monkeypatch.setattr(obstore, "delete", real)
            assert _put(other, KEY, b"new")
            raise LOST

    _put(other, "blobs/ab/y", b"1")  # has tried by now how the store takes conditions
    monkeypatch.setattr(obstore, "delete", delete)
    if operation == "quarantine":
        store.quarantine(KEY)
    else:
        assert not store.delete_older(KEY, made.modified + 1)
    assert _content(store, KEY) == b"new"
