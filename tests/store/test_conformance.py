"""What every back end promises; the library is built on nothing else."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from symcache.errors import IntegrityError, NotFoundError, StorageError
from symcache.model import HarvestRecord, Kind, PreferenceRecord, Record, Release, TombstoneRecord
from symcache.store import (
    MARKER,
    RecordKey,
    SigningStore,
    Store,
    blob_key,
    decode_to,
    open_store,
    put_blob,
    read_record,
    write_record,
)
from tests.support.moto_store import MOTO

Make = Callable[..., bool]


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as stored:
        return stored.read()


@pytest.mark.parametrize("size", [6, 6 << 20])  # what is larger than 5 MiB, obstore may send in parts
def test_an_object_is_created_once_and_never_changed(any_store: Store, make: Make, size: int) -> None:
    assert make("blobs/ab/x", b"1" * size)
    assert not make("blobs/ab/x", b"2" * size)
    assert _read(any_store, "blobs/ab/x") == b"1" * size
    assert list(any_store.scratch().iterdir()) == []


def test_of_a_file_that_is_not_there_no_object_is_made(any_store: Store) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        any_store.create("blobs/ab/x", any_store.scratch() / "gone")
    assert any_store.stat("blobs/ab/x") is None


def test_of_many_creators_of_one_key_one_wins(any_store: Store, make: Make) -> None:
    contents = [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: make("records/w/0000000001.json.zst", contents[n], f"part-{n}"), range(8)))
    assert sum(won) == 1
    assert _read(any_store, "records/w/0000000001.json.zst") == contents[won.index(True)]


def test_what_is_not_there_is_said_so(any_store: Store) -> None:
    assert any_store.stat("blobs/ab/nothing") is None
    assert not any_store.refresh("blobs/ab/nothing")
    assert any_store.delete_older("blobs/ab/nothing", time.time())
    assert list(any_store.list("records/")) == []
    assert list(any_store.folders("records/")) == []
    with pytest.raises(NotFoundError):
        any_store.open("blobs/ab/nothing")
    with pytest.raises(NotFoundError):
        any_store.quarantine("blobs/ab/nothing")


def test_size_and_age_are_the_stores_own(any_store: Store, make: Make) -> None:
    before = any_store.now()
    make("blobs/ab/x", b"12345")
    found = any_store.stat("blobs/ab/x")
    assert found
    assert found.stored_size == 5
    assert before - 1 <= found.modified <= any_store.now() + 1
    assert list(any_store.list("tmp/")) == []


def test_what_came_into_the_place_of_another_is_told_apart(any_store: Store, make: Make) -> None:
    """Of the same size, and in the same second."""
    key = "records/w/0000000001.json.zst"
    marks = []
    for content in (b"first", b"other"):
        make(key, content)
        found = any_store.stat(key)
        assert found
        assert dict(any_store.scan("records/"))[key].validator == found.validator
        marks.append(found.validator)
        any_store.quarantine(key)
    assert len(set(marks)) == 2


def test_keys_are_listed_below_a_prefix_and_nowhere_else(any_store: Store, make: Make) -> None:
    keys = {f"records/w{w}/{n:010d}.json.zst" for w in range(3) for n in range(1, 4)}
    for key in [*keys, "blobs/ab/x", "records2/y"]:
        make(key, b"1")
    assert set(any_store.list("records/")) == keys
    assert set(any_store.list("records/w1/")) == {k for k in keys if "/w1/" in k}
    assert {k: s.stored_size for k, s in any_store.scan("records/")} == dict.fromkeys(keys, 1)
    assert list(any_store.folders("records/")) == ["w0", "w1", "w2"]


def test_more_keys_than_fit_one_answer_are_all_listed(
    any_store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1100
    if any_store.location.startswith(MOTO):  # which takes its time
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "12")
        monkeypatch.setattr("symcache.store.bucket._PAGE", 30)
        count = 60  # also a multiple of the page
    keys = [f"blobs/{n % 7:02x}/{n:064x}.zst" for n in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: make(k, b"1", f"part-{k[-40:]}"), keys))
    assert sorted(any_store.list("blobs/")) == sorted(keys)


def test_only_what_is_old_is_deleted(any_store: Store, make: Make) -> None:
    make("blobs/ab/x", b"old")
    made = any_store.stat("blobs/ab/x")
    assert made
    assert not any_store.delete_older("blobs/ab/x", made.modified)
    assert _read(any_store, "blobs/ab/x") == b"old"
    assert any_store.delete_older("blobs/ab/x", made.modified + 1)
    assert any_store.stat("blobs/ab/x") is None


def test_what_is_refreshed_counts_as_new(any_store: Store, make: Make) -> None:
    make("blobs/ab/x", b"content")
    made = any_store.stat("blobs/ab/x")
    assert made
    time.sleep(1.1)  # the clock of an object store may count whole seconds
    assert any_store.refresh("blobs/ab/x")
    again = any_store.stat("blobs/ab/x")
    assert again
    assert again.modified > made.modified
    assert not any_store.delete_older("blobs/ab/x", made.modified + 0.5)
    assert _read(any_store, "blobs/ab/x") == b"content"
    assert list(any_store.list("tmp/")) == []


@pytest.mark.parametrize("location", ["s3", "moto"], indirect=True)
def test_an_object_too_large_to_be_copied_is_refreshed_by_sending_it(
    any_store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("blobs/ab/x", b"content")
    made = any_store.stat("blobs/ab/x")
    monkeypatch.setattr("symcache.store.s3._SINGLE_COPY", 6)
    assert any_store.refresh("blobs/ab/x")
    again = any_store.stat("blobs/ab/x")
    assert made and again
    assert again.etag != made.etag  # S3 gives what was sent in parts another one
    assert _read(any_store, "blobs/ab/x") == b"content"


def test_quarantine_moves_out_of_the_way(any_store: Store, make: Make) -> None:
    make("blobs/ab/x", b"bad")
    place = any_store.quarantine("blobs/ab/x")
    assert place.startswith("quarantine/")
    assert any_store.stat("blobs/ab/x") is None
    assert _read(any_store, place) == b"bad"
    assert make("blobs/ab/x", b"good")
    assert _read(any_store, "blobs/ab/x") == b"good"


def test_objects_are_seekable(any_store: Store, make: Make) -> None:
    data = os.urandom(300_000)
    make("blobs/ab/x", data)
    with any_store.open("blobs/ab/x") as stored:
        assert stored.read(18) == data[:18]
        stored.seek(0)
        assert stored.read() == data


def test_a_blob_comes_back_as_it_went_in(any_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(os.urandom(70_000) + bytes(90_000))
    sha256, size, new = put_blob(any_store, path)
    assert (new, put_blob(any_store, path)[2]) == (True, False)
    decode_to(any_store, sha256, size, tmp_path / "output")
    assert (tmp_path / "output").read_bytes() == path.read_bytes()
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("location", ["s3", "moto"], indirect=True)
def test_anybody_may_download_by_a_signed_url_what_unpacks_by_itself(any_store: Store, tmp_path: Path) -> None:
    assert isinstance(any_store, SigningStore)
    (tmp_path / "input").write_bytes(b"content" * 1000)
    key = blob_key(put_blob(any_store, tmp_path / "input")[0])
    with urllib.request.urlopen(any_store.presigned(key, 60)) as response:
        assert response.read() == _read(any_store, key)
        assert response.headers["Content-Encoding"] == any_store.encoding(key) == "zstd"
    record, _ = write_record(any_store, RECORDS[0], "w")
    assert any_store.encoding(str(record)) == ""
    with pytest.raises(NotFoundError):
        any_store.encoding("blobs/ab/nothing")


def test_an_object_larger_than_one_part_comes_back_whole(
    any_store: Store, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any_store.location.startswith("s3://"):
        monkeypatch.setattr("symcache.store.s3._SINGLE_PUT", 1 << 20)
    path = tmp_path / "input"
    path.write_bytes(os.urandom(17 << 20))
    sha256, size, new = put_blob(any_store, path)
    assert new
    decode_to(any_store, sha256, size, tmp_path / "output")
    assert (tmp_path / "output").read_bytes() == path.read_bytes()
    assert not put_blob(any_store, path)[2]
    made = any_store.stat(blob_key(sha256))
    assert not make(blob_key(sha256), bytes(2 << 20))
    assert any_store.stat(blob_key(sha256)) == made


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_claimed_blob_is_left_alone_and_an_unclaimed_one_refreshed(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 1 << 20 if in_memory else 0)
    path = tmp_path / "input"
    path.write_bytes(b"content")
    sha256 = put_blob(any_store, path)[0]
    told: list[str] = []
    put_blob(any_store, path, claimed=lambda _: True, refreshed=told.append)
    assert told == []
    put_blob(any_store, path, refreshed=told.append)
    assert told == [sha256]
    put_blob(any_store, path, young=any_store.now() - 100, refreshed=told.append)
    assert told == [sha256]


RECORDS: list[Record] = [
    HarvestRecord(release=Release(version="13.6", build="22G120"), source="ssh://a", supersedes=("a" * 64,)),
    TombstoneRecord(removes=("b" * 64,), build="22G120"),
    PreferenceRecord(uuid="23516BE4-29BE-350C-91C9-F36E7999F0F1", kind=Kind.EXECUTABLE, sha256="c" * 64),  # type: ignore[arg-type]
]


def test_records_of_every_type_come_back_as_written(any_store: Store) -> None:
    for number, record in enumerate(RECORDS):
        key, identity = write_record(any_store, record, "w")
        assert key == RecordKey("w", number + 1)
        assert read_record(any_store, key) == (identity, record)


def test_many_writers_of_one_name_leave_no_gap(any_store: Store) -> None:
    records = [RECORDS[0].model_copy(update={"source": str(n)}) for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        keys = [k for k, _ in pool.map(lambda r: write_record(any_store, r, "w"), records)]
    assert sorted(k.sequence for k in keys) == list(range(1, 13))
    assert {read_record(any_store, k)[1].source for k in keys} == {str(n) for n in range(12)}  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [b"", b"not zstd", b"\x28\xb5\x2f\xfd", b'{"type":"harvest"}'])
def test_a_record_that_cannot_be_read_is_an_integrity_error(any_store: Store, make: Make, data: bytes) -> None:
    make("records/w/0000000001.json.zst", data)
    with pytest.raises(IntegrityError, match="0000000001"):
        read_record(any_store, RecordKey("w", 1))


def test_a_type_of_record_that_is_not_known_is_newer_than_this_program(any_store: Store, make: Make) -> None:
    import zstandard

    make("records/w/0000000001.json.zst", zstandard.compress(b'{"type":"merger","schema_version":1}'))
    with pytest.raises(IntegrityError, match="newer"):
        read_record(any_store, RecordKey("w", 1))


def test_a_second_opening_finds_the_same(any_store: Store, make: Make, location: str) -> None:
    make("blobs/ab/x", b"1")
    assert list(open_store(location).list("blobs/")) == ["blobs/ab/x"]


def test_of_many_makers_of_one_library_none_fails(location: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: open_store(location, create=True), range(8)))
    assert {s.location for s in stores} == {location}


def test_no_library_is_made_where_none_was_asked_for(location: str) -> None:
    with pytest.raises(NotFoundError, match="no library"):
        open_store(location)


def _write(location: str, name: str, content: bytes) -> None:
    if location.startswith("s3://"):
        import obstore

        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        obstore.put(obstore.store.S3Store(bucket, client_options={"allow_http": True}), f"{prefix}/{name}", content)
    else:
        Path(location).mkdir(exist_ok=True)
        (Path(location) / name).write_bytes(content)


def test_no_library_is_made_among_other_things(location: str) -> None:
    _write(location, "thesis.tex", b"important")
    with pytest.raises(StorageError, match="holds other"):
        open_store(location, create=True)


@pytest.mark.parametrize("create", [True, False])
def test_a_library_of_another_format_is_refused(location: str, create: bool) -> None:
    for content, said in [(b'{"format": 2}', "library format 2, this version knows 1"), (b"{", "not readable as JSON")]:
        _write(location, MARKER, content)
        with pytest.raises(StorageError, match=said):
            open_store(location, create=create)


def test_old_leftovers_are_cleaned_and_new_ones_kept(any_store: Store, make: Make) -> None:
    """What a killed writer had begun goes once its time is over, and nothing else."""
    make("tmp/refresh-killed", b"half")
    make("blobs/ab/x", b"whole")
    left = any_store.stat("tmp/refresh-killed")
    assert left
    assert any_store.clean_scratch(left.modified) == 0
    assert _read(any_store, "tmp/refresh-killed") == b"half"
    assert any_store.clean_scratch(left.modified + 1) == 1
    assert any_store.stat("tmp/refresh-killed") is None
    assert _read(any_store, "blobs/ab/x") == b"whole"
