"""Files that clients send in parts: bounded, checked, added once, and forgotten after a day."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from aiohttp import web

from symcache.catalog import Catalog
from symcache.errors import IntegrityError, NotFoundError, UsageError
from symcache.library import Library
from symcache.model import HarvestRecord, SourceNote, Trust
from symcache.store import RecordKey, read_record
from symcache_server.files.uploads import SentFile, Uploads
from tests.library.images import macho

DATA = bytes(range(200)) * 5
SHA256 = hashlib.sha256(DATA).hexdigest()
HOUR = 3600.0


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", 2000, 3000, 60.0)


def _request(chunks: Callable[[int], AsyncIterator[bytes]], place: str | None, length: int | None) -> web.Request:
    headers = {} if place is None else {"Content-Range": place}
    content = SimpleNamespace(iter_chunked=chunks)
    return SimpleNamespace(headers=headers, content_length=length, content=content)  # type: ignore[return-value]


def send(
    uploads: Uploads, data: bytes, place: str | None = None, *, sha256: str = SHA256, length: int | None = -1
) -> tuple[int, bool]:
    """Send a file, or a part of it with `place` as its Content-Range, as an HTTP client does."""

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 300):
            yield data[start : start + 300]

    return asyncio.run(uploads.receive(sha256, _request(chunks, place, len(data) if length == -1 else length)))


@contextlib.asynccontextmanager
async def _stalled(
    uploads: Uploads, data: bytes, size: int, sha256: str
) -> AsyncIterator[asyncio.Task[tuple[int, bool]]]:
    """Have a client send `data` of a file, and then nothing more, although its connection stays."""
    begun = asyncio.Event()

    async def chunks(_: int) -> AsyncIterator[bytes]:
        yield data
        begun.set()
        await asyncio.sleep(1000)

    task = asyncio.create_task(uploads.receive(sha256, _request(chunks, None, size)))
    await begun.wait()
    yield task
    with pytest.raises(web.HTTPRequestTimeout):
        await task


def test_parts_make_a_whole(uploads: Uploads, tmp_path: Path) -> None:
    assert uploads.offset(SHA256) == (0, False)
    assert send(uploads, DATA[:400], "bytes 0-399/1000") == (400, False)
    uploads = Uploads(tmp_path / "uploads", 2000, 3000, 60.0)  # as after a restart
    assert uploads.offset(SHA256) == (400, False)
    with pytest.raises(web.HTTPConflict) as gap:
        send(uploads, DATA[401:], "bytes 401-999/1000")
    assert gap.value.text is not None
    assert gap.value.text.startswith("400 bytes are here")
    assert send(uploads, DATA[300:600], "bytes 300-599/1000") == (600, False)  # what came twice counts once
    assert send(uploads, DATA[600:], "bytes 600-999/1000") == (1000, True)
    assert uploads.offset(SHA256) == (1000, True)
    assert send(uploads, b"anything", "bytes 0-7/1000") == (1000, True)  # and is not looked at
    assert [p.read_bytes() for p in (tmp_path / "uploads").iterdir()] == [DATA]
    assert not any(p.stat().st_mode & 0o077 for p in (tmp_path / "uploads", tmp_path / "uploads" / SHA256))


def test_what_is_not_what_it_was_said_to_be_is_sent_again(uploads: Uploads) -> None:
    with pytest.raises(IntegrityError, match=SHA256):
        send(uploads, DATA[:-1] + b"x")
    assert uploads.offset(SHA256) == (0, False)
    with pytest.raises(UsageError, match="more than 100 bytes came"):
        send(uploads, DATA[:200], "bytes 0-99/1000")
    with pytest.raises(UsageError, match="more than 1000 bytes came"):
        send(uploads, DATA + b"x", length=1000)
    assert send(uploads, DATA) == (1000, True)


@pytest.mark.parametrize(
    "place", ["bytes 5-4/1000", "bytes 0-1000/1000", "bytes 0-0/0", "bytes 0-9/*", "0-9/1000", "bytes=0-9/1000"]
)
def test_a_part_lies_inside_of_its_file(uploads: Uploads, place: str) -> None:
    with pytest.raises(UsageError, match="Content-Range"):
        send(uploads, DATA[:10], place)


def test_a_client_says_how_much_it_sends(uploads: Uploads) -> None:
    with pytest.raises(web.HTTPLengthRequired):
        send(uploads, DATA, length=None)


def test_files_and_all_files_together_are_bounded(uploads: Uploads) -> None:
    for place in (None, "bytes 0-9/2001"):
        with pytest.raises(web.HTTPRequestEntityTooLarge):
            send(uploads, bytes(2001 if place is None else 10), place)
    assert send(uploads, DATA) == (1000, True)
    for number, (size, room) in enumerate(((1999, True), (2, False), (1, True), (1, False))):
        data = bytes([number]) * size
        if room:
            assert send(uploads, data, sha256=hashlib.sha256(data).hexdigest()) == (size, True)
        else:
            with pytest.raises(web.HTTPInsufficientStorage):
                send(uploads, data, sha256=hashlib.sha256(data).hexdigest())


def test_what_nobody_adds_is_forgotten_after_a_day(uploads: Uploads, tmp_path: Path) -> None:
    names = {"0" * 64: 23 * HOUR, "1" * 64 + ".part": 23 * HOUR, "2" * 64: 25 * HOUR, "3" * 64 + ".part": 25 * HOUR}
    names |= {"4" * 64 + ".0.room": HOUR / 7, "5" * 64 + ".0.room": HOUR / 5}  # the server that made it was killed
    for name, age in names.items():
        (tmp_path / "uploads" / name).write_bytes(bytes(10))
        os.utime(tmp_path / "uploads" / name, (time.time() - age,) * 2)
    send(uploads, DATA)
    assert {p.name for p in (tmp_path / "uploads").iterdir()} == {
        *("0" * 64, "1" * 64 + ".part", "4" * 64 + ".0.room", SHA256)
    }


def test_what_somebody_else_writes_for_long_is_not_waited_for(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache_server.files.uploads._LOCK_SECONDS", 0.1)
    with (tmp_path / "uploads" / f"{SHA256}.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(web.HTTPConflict):
            send(uploads, DATA)
    assert send(uploads, DATA) == (1000, True)


async def test_what_somebody_else_writes_for_a_moment_is_waited_for(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache_server.files.uploads._LOCK_SECONDS", 60.0)

    async def chunks(_: int) -> AsyncIterator[bytes]:
        yield DATA

    with (tmp_path / "uploads" / f"{SHA256}.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sent = asyncio.create_task(uploads.receive(SHA256, _request(chunks, None, 1000)))
        await asyncio.sleep(0.05)
    assert await sent == (1000, True)


async def test_a_retry_goes_on_beside_a_connection_that_is_dead_but_does_not_know_it(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", 2000, 3000, idle_seconds=0.3)

    async def rest(_: int) -> AsyncIterator[bytes]:
        yield DATA[400:]

    async with _stalled(uploads, DATA[:400], 1000, SHA256) as stalled:
        assert uploads.offset(SHA256) == (400, False)
        assert await uploads.receive(SHA256, _request(rest, "bytes 400-999/1000", 600)) == (1000, True)
        assert not stalled.done()
    assert [p.read_bytes() for p in (tmp_path / "uploads").iterdir()] == [DATA]


async def test_two_who_send_the_same_file_at_once(uploads: Uploads) -> None:
    turns = asyncio.Barrier(2)

    async def chunks(_: int) -> AsyncIterator[bytes]:
        for start in range(0, 1000, 250):
            await turns.wait()
            yield DATA[start : start + 250]

    async def one() -> bool:
        try:
            return (await uploads.receive(SHA256, _request(chunks, None, 1000)))[1]
        except web.HTTPConflict:  # the other one was faster, and this one asks what is here
            return uploads.offset(SHA256) == (1000, True)

    assert await asyncio.gather(one(), one()) == [True, True]


async def test_what_is_being_sent_counts_with_its_whole_size(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", 2000, 3000, idle_seconds=0.3)

    async def other(_: int) -> AsyncIterator[bytes]:
        yield DATA

    async with _stalled(uploads, b"x", 2000, "1" * 64), _stalled(uploads, b"x", 1000, "2" * 64):
        with pytest.raises(web.HTTPInsufficientStorage):
            await uploads.receive(SHA256, _request(other, None, 1000))
    assert await uploads.receive(SHA256, _request(other, None, 1000)) == (1000, True)


async def test_a_reservation_lasts_as_long_as_something_comes_and_its_loss_does_no_harm(
    uploads: Uploads, tmp_path: Path
) -> None:
    async def chunks(_: int) -> AsyncIterator[bytes]:
        (room,) = (tmp_path / "uploads").glob("*.room")
        os.utime(room, (time.time() - HOUR,) * 2)
        yield DATA[:400]
        assert room.stat().st_mtime > time.time() - 600, "other servers would take it for a dead one's"
        room.unlink()  # as by another server, after the machine had slept for some minutes
        yield DATA[400:]

    assert await uploads.receive(SHA256, _request(chunks, None, 1000)) == (1000, True)


def test_one_request_adds_what_was_sent_and_takes_it_out_of_the_folder(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", 1 << 20, 1 << 20, 60.0)
    binary = bytearray(macho(UUID(int=1)))
    struct.pack_into("<Q", binary, 32 + 48 + 48, len(binary))  # its segment reaches to the end, as those of linkers do
    images = [bytes(binary), macho(UUID(int=2), filetype=10)]
    files = [SentFile(hashlib.sha256(data).hexdigest(), f"build/{n}") for n, data in enumerate(images)]
    notes = (SourceNote(recorded="/src", place="/elsewhere"),)
    files = [file._replace(sources=notes) for file in files]
    with (
        Library.open(tmp_path / "library", create=True) as library,
        contextlib.closing(Catalog(tmp_path / "catalog.db")) as catalog,
    ):
        elsewhere = Library(library.store, catalog)  # as another machine has it
        with pytest.raises(NotFoundError, match=files[0].sha256):
            uploads.add(library, files, "ci")
        for file, data in zip(files, images, strict=True):
            send(uploads, data, sha256=file.sha256)
        added = uploads.add(library, files, "ci")
        assert [(i["uuid"], i["kind"], i["arch"], i["sha256"], i["path"]) for i in added["images"]] == [
            (UUID(int=1), "executable", "arm64e", files[0].sha256, "build/0"),
            (UUID(int=2), "debuginfo", "arm64e", files[1].sha256, "build/1"),
        ]
        assert added["problems"] == []
        (key,) = map(RecordKey.parse, library.store.list("records/"))
        assert key
        identity, record = read_record(library.store, key)
        assert identity == added["record"]
        assert isinstance(record, HarvestRecord)
        assert (record.trust, record.source, record.sealed) == (Trust.PUSHED, "push by ci", True)
        assert [(m.path, m.uuid) for m in record.manifest] == [("build/0", UUID(int=1)), ("build/1", UUID(int=2))]
        assert [o.sources for o in record.objects] == [(), notes]  # only a dSYM has any
        assert library.sources([UUID(int=1), UUID(int=2)]) == {UUID(int=2): [("/src", "/elsewhere")]}
        assert list((tmp_path / "uploads").iterdir()) == []
        # Where the response was lost, the client asks again.
        assert uploads.add(library, files, "ci") == uploads.add(elsewhere, files, "ci") == added
        assert len(list(library.store.list("records/"))) == 1


def test_one_file_may_be_added_under_two_paths(tmp_path: Path) -> None:
    uploads, data = Uploads(tmp_path / "uploads", 1 << 20, 1 << 20, 60.0), macho(UUID(int=1))
    sent = [SentFile(hashlib.sha256(data).hexdigest(), path) for path in ("build/a", "build/b")]
    with Library.open(tmp_path / "library", create=True) as library:
        send(uploads, data, sha256=sent[0].sha256)
        assert [i["path"] for i in uploads.add(library, sent, "ci")["images"]] == ["build/a", "build/b"]


@pytest.mark.parametrize("data", [b"text", macho(UUID(int=1))[:-2], macho(UUID(int=0), filetype=1)])
def test_what_is_not_one_whole_image_is_refused(tmp_path: Path, data: bytes) -> None:
    """No Mach-O, one whose segment reaches beyond its end, and an object file, which nobody asks for."""
    uploads = Uploads(tmp_path / "state" / "uploads", 1 << 20, 1 << 20, 60.0)
    sent = SentFile(hashlib.sha256(data).hexdigest(), "build/x")
    send(uploads, data, sha256=sent.sha256)
    with Library.open(tmp_path / "library", create=True) as library:
        with pytest.raises(IntegrityError, match="build/x"):
            uploads.add(library, [sent], "ci")
        assert list(library.store.list("records/")) == []
    assert uploads.offset(sent.sha256) == (len(data), True)
