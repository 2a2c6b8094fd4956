"""A store keeps what it was given, whole, and never changes it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import hashlib
import io
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from symcache.errors import IntegrityError, NotFoundError, StorageError, UsageError
from symcache.model import HarvestRecord, Release
from symcache.store import (
    BlobReader,
    BlobStat,
    LocalStore,
    RecordKey,
    blob_key,
    decode_to,
    frame_sizes,
    new_object,
    open_store,
    put_blob,
    read_record,
    write_record,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "library", create=True)


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "input"
    path.write_bytes(data)
    return path


def test_a_blob_is_the_zstd_of_its_content_under_the_hash_of_its_content(store: LocalStore, tmp_path: Path) -> None:
    data = os.urandom(100_000) + bytes(100_000)
    sha256, size, new = put_blob(store, _file(tmp_path, data))
    assert (sha256, size, new) == (hashlib.sha256(data).hexdigest(), len(data), True)
    stored = (store.root / "blobs" / sha256[:2] / f"{sha256}.zst").read_bytes()
    assert zstandard.ZstdDecompressor().decompress(stored) == data
    assert zstandard.get_frame_parameters(stored).has_checksum  # by which those see damage who get it as it lies
    decode_to(store, sha256, size, tmp_path / "out" / "copy")
    assert (tmp_path / "out" / "copy").read_bytes() == data


def test_the_same_content_is_stored_once(store: LocalStore, tmp_path: Path) -> None:
    first = put_blob(store, _file(tmp_path, b"x" * 1000))
    assert put_blob(store, _file(tmp_path, b"yy" + b"x" * 1000), 2, 1000) == (first[0], 1000, False)
    assert len(list(store.list("blobs/"))) == 1


def test_large_files_go_through_in_pieces(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 1000)
    data = os.urandom(3 << 20)
    sha256, size, _ = put_blob(store, _file(tmp_path, data), 5, (3 << 20) - 5)
    assert sha256 == hashlib.sha256(data[5:]).hexdigest()
    decode_to(store, sha256, size, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data[5:]


def test_a_folder_that_somebody_deleted_is_made_again(store: LocalStore, tmp_path: Path) -> None:
    sha256, size, _ = put_blob(store, _file(tmp_path, b"data"))
    shutil.rmtree(store.root / "blobs")
    assert put_blob(store, _file(tmp_path, b"data")) == (sha256, size, True)


def test_blobs_are_read_only(store: LocalStore, tmp_path: Path) -> None:
    sha256, _, _ = put_blob(store, _file(tmp_path, b"data"))
    assert (store.root / blob_key(sha256)).stat().st_mode & 0o222 == 0


def test_blobs_of_several_frames_are_read_and_measured_whole(store: LocalStore, tmp_path: Path) -> None:
    parts = [os.urandom(5000), bytes(300_000), b"end"]
    skippable = (0x184D2A53).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    data = b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(p) for p in parts[:2]) + skippable
    data += zstandard.compress(parts[2]) + (0x184D2A50).to_bytes(4, "little") + bytes(4)
    sha256 = hashlib.sha256(b"".join(parts)).hexdigest()
    path = store.root / blob_key(sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with store.open(blob_key(sha256)) as stored:
        assert frame_sizes(stored) == (305_003, len(data))
    decode_to(store, sha256, 305_003, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"".join(parts)


@pytest.mark.parametrize("in_memory", [True, False])
def test_of_a_file_that_is_shorter_than_was_said_nothing_is_stored(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 1 << 20 if in_memory else 0)
    with pytest.raises(IntegrityError, match="input: ends 3 bytes early"):
        put_blob(store, _file(tmp_path, b"data"), 2, 5)
    assert list(store.list("blobs/")) == list(store.list("tmp/")) == []


def test_a_file_that_changes_between_hashing_and_compressing_is_not_stored(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 0)
    real = store.stat

    def stat_then(key: str) -> BlobStat | None:
        _file(tmp_path, b"other")
        return real(key)

    monkeypatch.setattr(store, "stat", stat_then)
    with pytest.raises(IntegrityError, match="changed while it was read"):
        put_blob(store, _file(tmp_path, b"first"))
    assert list(store.list("blobs/")) == list(store.list("tmp/")) == []


def test_storing_a_large_file_can_be_given_up(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 1000)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StorageError, match="stopped"):
        put_blob(store, _file(tmp_path, bytes(5000)), stopped=stopped)
    assert list(store.list("blobs/")) == list(store.list("tmp/")) == []


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("size", [0, 1, 1000, 2500])
def test_a_blob_is_cut_into_frames_on_request(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, in_memory: bool
) -> None:
    monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 1 << 20 if in_memory else 0)
    data = os.urandom(size)
    sha256, _, _ = put_blob(store, _file(tmp_path, data), frame_size=1000)
    stored = (store.root / blob_key(sha256)).read_bytes()
    assert stored.count(zstandard.FRAME_HEADER) == max(1, -(-size // 1000))
    decode_to(store, sha256, size, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 100, 400_000])
@pytest.mark.parametrize("compressible", [True, False])
def test_every_cut_and_every_addition_is_seen_by_the_headers_alone(size: int, compressible: bool) -> None:
    data = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(size) if compressible else os.urandom(size))
    assert frame_sizes(io.BytesIO(data)) == (size, len(data))
    for cut in {0, 1, 4, len(data) // 2, len(data) - 5, len(data) - 1} - {len(data)}:
        if 0 <= cut < len(data):
            with pytest.raises(IntegrityError):
                frame_sizes(io.BytesIO(data[:cut]))
    with pytest.raises(IntegrityError):
        frame_sizes(io.BytesIO(data + b"x"))
    reserved = bytearray(data)
    reserved[zstandard.frame_header_size(data)] |= 3 << 1  # the type of the first block (RFC 8878, 3.1.1.2)
    with pytest.raises(IntegrityError):
        frame_sizes(io.BytesIO(reserved))
    with pytest.raises(IntegrityError, match="does not say its size"):
        frame_sizes(io.BytesIO(zstandard.ZstdCompressor(write_content_size=False).compress(b"x")))


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x"])
def test_a_blob_that_others_could_not_decode_is_not_taken_for_good(
    store: LocalStore, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    sha256, size, _ = put_blob(store, _file(tmp_path, os.urandom(5000)))
    path = store.root / blob_key(sha256)
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=sha256):
        decode_to(store, sha256, size, tmp_path / "copy")


@pytest.mark.parametrize("place", [0, 10, -1])
def test_a_flipped_bit_is_never_decoded(store: LocalStore, tmp_path: Path, place: int) -> None:
    sha256, size, _ = put_blob(store, _file(tmp_path, os.urandom(5000)))
    path = store.root / blob_key(sha256)
    broken = bytearray(path.read_bytes())
    broken[place] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(broken)
    with pytest.raises(IntegrityError, match=sha256):
        decode_to(store, sha256, size, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert list(tmp_path.glob(".part-*")) == []


def test_another_content_under_the_right_name_is_never_decoded(store: LocalStore, tmp_path: Path) -> None:
    sha256, size, _ = put_blob(store, _file(tmp_path, b"right"))
    path = store.root / blob_key(sha256)
    path.chmod(0o644)
    path.write_bytes(zstandard.compress(b"wrong"))
    with pytest.raises(IntegrityError):
        decode_to(store, sha256, size, tmp_path / "copy")


def test_a_full_disk_is_said_and_leaves_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        put_blob(store, _file(tmp_path, b"data"))
    assert list(store.list("blobs/")) == []
    assert list(store.list("tmp/")) == []


def test_what_was_written_and_is_not_there_is_not_stored(store: LocalStore) -> None:
    """As on disks that lose what they have taken."""
    with new_object(store) as new:
        new.write(b"data")
        (part,) = store.scratch().iterdir()
        part.unlink()
        part.touch()
        with pytest.raises(StorageError, match="4 bytes were written, but are not there"):
            new.create("blobs/ab/x")
    assert list(store.list("blobs/")) == []


@pytest.mark.parametrize("links", [True, False])
def test_nothing_takes_the_place_of_another_and_a_disk_that_refuses_is_told(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Also without hard links, as on FAT and some network file systems."""

    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def create(content: bytes) -> bool:
        with new_object(store) as new:
            new.write(content)
            return new.create("records/w/0000000001.json.zst")

    if not links:
        number = errno.EPERM
        monkeypatch.setattr(os, "link", link)
    assert create(b"first")
    assert not create(b"second")
    number = errno.EDQUOT
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="Disk quota exceeded"):
        create(b"third")
    with store.open("records/w/0000000001.json.zst") as stored:
        assert stored.read() == b"first"
    taken = store.scratch() / f"condemned-{'ab' * 32}.zst"
    taken.touch()
    with pytest.raises(StorageError, match="Disk quota exceeded"):
        store.clean_scratch(0.0)
    assert taken.exists()


def test_records_are_numbered_by_writer_and_never_overwritten(store: LocalStore) -> None:
    one = HarvestRecord(release=Release(version="13.6", build="22G120"), source="ssh://a")
    two = one.model_copy(update={"source": "ssh://b"})
    key1, id1 = write_record(store, one, "w")
    with store.open(str(key1)) as stored:
        assert zstandard.get_frame_parameters(stored.read()).has_checksum
    key2, id2 = write_record(store, two, "w")
    key3, _ = write_record(store, two, "other")
    assert (key1, key2, key3) == (RecordKey("w", 1), RecordKey("w", 2), RecordKey("other", 1))
    assert read_record(store, key1) == (id1, one)
    assert read_record(store, key2) == (id2, two)


def test_of_two_processes_of_one_writer_the_slower_takes_the_next_number(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, other = store.list, LocalStore(store.root)
    faster: list[RecordKey] = []

    def list_then(prefix: str) -> Iterator[str]:
        yield from real(prefix)
        faster.append(write_record(other, HarvestRecord(source="faster"), "w")[0])

    monkeypatch.setattr(store, "list", list_then)
    slower, _ = write_record(store, HarvestRecord(source="slower"), "w")
    assert (faster, slower) == ([RecordKey("w", 1)], RecordKey("w", 2))
    assert [read_record(store, key)[1] for key in (*faster, slower)] == [
        HarvestRecord(source="faster"),
        HarvestRecord(source="slower"),
    ]


def test_a_record_of_a_newer_schema_is_refused(store: LocalStore) -> None:
    key, _ = write_record(store, HarvestRecord(schema_version=99), "w")
    with pytest.raises(IntegrityError, match="newer"):
        read_record(store, key)


def test_a_record_may_be_large_but_not_without_bound(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may claim to be gigabytes."""
    record = HarvestRecord(source="x" * (20 << 20))
    key, identity = write_record(store, record, "w")
    assert read_record(store, key) == (identity, record)
    monkeypatch.setattr("symcache.store.records._MAX_RECORD", 20 << 20)
    with pytest.raises(IntegrityError, match=f"{key}: damaged: larger than"):
        read_record(store, key)


def test_a_number_beyond_all_reason_is_none_of_a_writer(store: LocalStore) -> None:
    """Records may have been lost, but not so many."""
    numbers = {"a": [], "b": [1, 2], "c": [2, 100_002], "d": [2, 100_003], "e": [2, 9_999_999_999]}
    for writer, taken in numbers.items():
        for sequence in taken:
            path = store.root / str(RecordKey(writer, sequence))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            (path.parent / "stray").touch()
    keys = [write_record(store, HarvestRecord(), writer)[0] for writer in numbers]
    assert [key.sequence for key in keys] == [1, 3, 100_003, 3, 3]


@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_are_looked_for_after_a_record_was_read_as_before_it(store: LocalStore, enabled: bool) -> None:
    key, _ = write_record(store, HarvestRecord(), "w")
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        read_record(store, key)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_folder_with_other_files_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(StorageError, match="other files"):
        LocalStore(tmp_path, create=True)
    with pytest.raises(NotFoundError, match="no library"):
        LocalStore(tmp_path)


def test_a_library_is_named_by_a_path_or_a_url(store: LocalStore, tmp_path: Path) -> None:
    for location in (str(store.root), f"file://{store.root}"):
        assert open_store(location).location == str(store.root)
    for location in ("http://host/library", f"ftp://{store.root}"):
        with pytest.raises(UsageError, match="not a kind of library"):
            open_store(location, create=True)
    for location in ("s3:/bucket/prefix", "s3:bucket"):
        with pytest.raises(UsageError, match="not an object store"):
            open_store(location, create=True)


def test_a_library_is_made_in_an_empty_folder_and_in_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "new/er/library"):
        open_store(str(tmp_path / place), create=True)
        open_store(str(tmp_path / place))
    with pytest.raises(StorageError, match="Not a directory"):
        open_store(str(_file(tmp_path, b"") / "library"), create=True)


def test_more_than_was_stored_is_neither_decoded_nor_read_on(store: LocalStore, tmp_path: Path) -> None:
    """A few bytes may claim to be gigabytes."""
    sha256, size, _ = put_blob(store, _file(tmp_path, bytes(8 << 20)))
    chunks = []
    with pytest.raises(IntegrityError, match=sha256):
        for chunk in BlobReader(store, sha256, size - 1):
            chunks.append(chunk)
    assert sum(map(len, chunks)) < size


def test_new_folders_are_flushed_up_to_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power failure could take a whole folder of records that were said to be stored."""
    flushed: list[str] = []
    from symcache.store import local as module

    real = module._sync_folder
    monkeypatch.setattr(module, "_sync_folder", lambda path: flushed.append(path.name) or real(path))
    store = LocalStore(tmp_path / "library", create=True)
    assert flushed == ["library", tmp_path.name]
    flushed.clear()
    write_record(store, HarvestRecord(), "w")
    assert flushed == ["records", "library", "w"]
    flushed.clear()
    write_record(store, HarvestRecord(), "w")
    assert flushed == ["w"]


@pytest.mark.parametrize(("number", "stored"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_folder_that_fails_to_be_flushed_is_told_unless_its_file_system_flushes_none(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stored: bool
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if stored else pytest.raises(StorageError, match="Input/output error"):
        assert put_blob(store, _file(tmp_path, b"data"))[2]


def test_what_the_disk_does_not_tell_is_an_error_and_nothing_that_is_not_there(store: LocalStore) -> None:
    """Else a blob would be harvested again, and one that is named would be called gone."""
    key = blob_key("ab" * 32)
    (store.root / "tmp").touch()
    (store.root / "blobs").touch()  # where a folder should be
    source = store.root / "source"
    for call in (
        *(lambda: store.open(key), lambda: store.stat(key), lambda: store.refresh(key)),
        *(lambda: store.delete_older(key, float("inf")), lambda: store.quarantine(key)),
        *(lambda: list(store.list("blobs/ab/")), lambda: list(store.folders("blobs/ab/"))),
        *(lambda: store.create(key, source), store.now, lambda: store.clean_scratch(0.0)),
    ):
        source.touch()
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            call()


def test_of_what_is_listed_that_is_passed_over_which_is_gone_and_the_rest_is_looked_at(
    store: LocalStore, tmp_path: Path
) -> None:
    sha256, _, _ = put_blob(store, _file(tmp_path, b"data"))
    (store.root / "blobs" / "gone").symlink_to("nowhere")
    assert [key for key, _ in store.scan("blobs/")] == [blob_key(sha256)]
    (store.root / "blobs" / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="cannot look at blobs/loop"):
        list(store.scan("blobs/"))


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that nobody sees would keep no blob from being collected."""
    write_record(store, HarvestRecord(), "w")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("records/w"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match="records/w: Permission denied"):
        list(store.list("records/"))
    assert list(store.list("snapshots/")) == []


def _kill_while_deleting(store: LocalStore, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        store.delete_older(key, float("inf"))


@pytest.mark.parametrize("links", [True, False])
def test_a_blob_that_a_killed_collection_had_taken_aside_is_put_back(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # FAT, and some network file systems
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links")))
    sha256, size, _ = put_blob(store, _file(tmp_path, b"data"))
    _kill_while_deleting(store, blob_key(sha256), monkeypatch)
    assert store.stat(blob_key(sha256)) is None
    store.clean_scratch(float("inf"))
    decode_to(store, sha256, size, tmp_path / "copy")
    assert list(store.list("tmp/")) == []


@pytest.mark.parametrize("locks", [True, False])
def test_what_somebody_still_writes_to_is_not_cleaned_whatever_its_age(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:  # some network file systems: there, its age has to do

        def flock(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", flock)
    with new_object(store) as new:
        new.write(b"data")
        assert store.clean_scratch(float("inf")) == int(not locks)
        if locks:
            assert new.create("blobs/ab/x")


def test_what_somebody_else_cleans_at_the_same_time_is_passed_over(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, _, _ = put_blob(store, _file(tmp_path, b"data"))
    _kill_while_deleting(store, blob_key(sha256), monkeypatch)
    (taken,) = store.scratch().iterdir()
    left = store.scratch() / "part-left"
    left.touch()
    real = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        listed = sorted(real(folder))
        taken.unlink()
        return iter(listed)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert store.clean_scratch(float("inf")) == 1
    assert not left.exists()


def test_a_damaged_blob_does_not_come_back_from_quarantine(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next harvest would take it for stored."""
    sha256, _, _ = put_blob(store, _file(tmp_path, b"data"))
    _kill_while_deleting(store, store.quarantine(blob_key(sha256)), monkeypatch)
    store.clean_scratch(float("inf"))
    assert store.stat(blob_key(sha256)) is None
    assert list(store.list("tmp/")) == []


def test_a_library_that_may_not_be_written_to_is_said_by_what_cleans_it(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, _, _ = put_blob(store, _file(tmp_path, b"data"))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    for clean in (lambda: store.delete_older(blob_key(sha256), float("inf")), lambda: store.clean_scratch(0.0)):
        with pytest.raises(StorageError, match="Permission denied"):
            clean()


def test_a_copy_that_takes_the_place_of_another_users_blob_has_reached_the_disk(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure could take what was stored long ago."""
    sha256, size, _ = put_blob(store, _file(tmp_path, b"data"))
    path, events, real = store.root / blob_key(sha256), list[str](), os.fsync

    def fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition("-")[0])
        real(descriptor)

    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "not yours")))
    monkeypatch.setattr(os, "fsync", fsync)
    before = path.stat().st_ino
    assert store.refresh(blob_key(sha256))
    assert path.stat().st_ino != before
    assert events == ["refresh", sha256[:2]]
    decode_to(store, sha256, size, tmp_path / "copy")


class BadSectors(io.BytesIO):
    """A file whose disk cannot read it."""

    def read(self, *_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def test_what_the_disk_cannot_read_is_damaged(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, size, _ = put_blob(store, _file(tmp_path, b"data"))
    key, _ = write_record(store, HarvestRecord(), "w")
    monkeypatch.setattr(store, "open", lambda _: BadSectors(b"data"))
    with pytest.raises(IntegrityError, match="Input/output error"):
        decode_to(store, sha256, size, tmp_path / "copy")
    with pytest.raises(IntegrityError, match="Input/output error"):
        frame_sizes(BadSectors(b"data"))
    with pytest.raises(IntegrityError, match=f"{key}.*Input/output error"):
        read_record(store, key)


def test_what_cannot_be_read_for_now_is_not_damaged() -> None:
    """As where a server of files was restarted: a repair would put aside what is good."""

    class Stale(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with pytest.raises(OSError, match="Stale file handle"):
        frame_sizes(Stale(b"data"))
