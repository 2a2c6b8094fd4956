"""Files that decay on the disk: what has another hash than it had is never sent, and had again from where it can be."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import mmap
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from symcache.errors import IntegrityError, NotFoundError
from symcache.images import ImageRequest
from symcache.library import Library, ingest
from symcache.store import blob_key
from symcache_server.files import scrubber
from symcache_server.files.checked import content_hash
from symcache_server.files.repairs import Repairs
from symcache_server.files.scrubber import Scrubber
from tests.support.http import request
from tests.support.ports import free_port
from tests.support.seaweed import new_location, s3_environment, seaweed
from tests.support.servers import Samples, Server, noise_image, serve, stage_variant, uuid_of
from tests.support.waiting import until

DAY = 86400.0
ZSTD = {"Accept-Encoding": "zstd"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return noise_image(tmp_path)


@pytest.fixture
def library(image: Path, tmp_path: Path) -> Path:
    """A library of `image`."""
    with Library.open(tmp_path / "library", create=True) as opened:
        ingest(opened, stage_variant(image, "22G120", None, "/usr/lib/libnoise.dylib"))
    return tmp_path / "library"


def rot(path: Path) -> bytes:
    """Change one bit in the middle of a file as a disk does: nothing else about the file changes. Return what it is."""
    status, mode = path.stat(), path.stat().st_mode
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return bytes(data)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a cache, without its notes and locks."""
    return [p for p in folder.rglob("*") if p.is_file() and re.fullmatch(r"[0-9a-f]{64}(\.zst)?", p.name)]


def path_of(image: Path) -> str:
    return f"/buildid/{uuid_of(image).hex}/executable"


def breakpad_path_of(image: Path) -> str:
    return f"/{uuid_of(image).hex[:2]}/{uuid_of(image).hex[2:]}/breakpad"


def blob_of(library: Path, image: Path) -> Path:
    with Library.open(library) as opened:
        found = opened.resolve(ImageRequest(uuid_of(image)))
        assert found is not None
        return library / blob_key(found.sha256)


def metric(server: Server, name: str) -> float:
    lines = request(server.url, "/metrics").body.decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


@pytest.mark.parametrize(
    ("kept", "asked", "headers"),
    [  # what a folder stores is sent as it lies there: see below
        ("folder", path_of, {}),
        ("folder", breakpad_path_of, {}),
        ("object store", path_of, {}),
        ("object store", path_of, ZSTD),
    ],
)
def test_what_decayed_while_no_server_ran_is_not_sent(
    kept: str,
    asked: Callable[[Path], str],
    headers: dict[str, str],
    library: Path,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = str(library)
    if kept == "object store":
        for name, value in s3_environment(seaweed()).items():
            monkeypatch.setenv(name, value)
        location = new_location()
        with Library.open(location, create=True) as opened:
            ingest(opened, stage_variant(image, "22G120", None, "/usr/lib/libnoise.dylib"))
    with serve(location, tmp_path / "server") as server:
        right = request(server.url, asked(image), headers=headers).body
    decoded = tmp_path / "server/cache/symcache/server/decoded"
    damaged = {path: rot(path) for path in files_of(decoded)}
    assert any(data == right[: len(data) // 2] + data[len(data) // 2 :] for data in damaged.values())
    with serve(location, tmp_path / "server") as server:
        for _ in range(2):
            assert request(server.url, asked(image), headers=headers).body == right
        assert metric(server, 'symcache_damaged_files_total{files="decoded"}') == len(damaged)
    assert {p.name: p.read_bytes() for p in (decoded / "damaged").iterdir()} == {p.name: d for p, d in damaged.items()}


def test_a_file_is_read_again_only_when_it_has_changed(library: Path, image: Path, tmp_path: Path) -> None:
    with serve(library, tmp_path / "server") as server:
        right = request(server.url, path_of(image)).body
        (cached,) = files_of(tmp_path / "server/cache/symcache/server/decoded")
        rot(cached)  # nobody can tell
        assert request(server.url, path_of(image)).body != right
        os.utime(cached)
        assert request(server.url, path_of(image)).body == right


def test_a_damaged_blob_is_had_again_from_another_server(library: Path, image: Path, tmp_path: Path) -> None:
    blob = blob_of(library, image)
    whole = blob.read_bytes()
    shutil.copytree(library, tmp_path / "copy")
    damaged = rot(blob)
    with (
        serve(tmp_path / "copy", tmp_path / "other") as other,
        serve(library, tmp_path / "server", "--upstream", other.url) as front,
    ):
        assert request(front.url, path_of(image)).body == image.read_bytes()
        assert metric(front, 'symcache_damaged_files_total{files="library"}') == 1
    assert blob.read_bytes() == whole
    assert (library / "quarantine" / blob.relative_to(library)).read_bytes() == damaged


def test_what_could_not_be_had_again_is_not_sought_at_every_request(
    library: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought: list[Path] = []
    blob, clock = blob_of(library, image), [1000.0]
    monkeypatch.setattr("symcache_server.files.repairs.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def opened() -> Library:
        sought.append(blob)
        return Library.open(library)

    rot(blob)
    repairs = Repairs(opened, [], {})
    for clock[0], times in ((1000.0, 1), (1599.0, 1), (1601.0, 2)):
        with pytest.raises(IntegrityError, match="damaged or gone"):
            repairs.repair(blob.name.partition(".")[0], IntegrityError("damaged"))
        assert len(sought) == times
    with pytest.raises(NotFoundError, match="no such blob"):  # nobody needs it
        repairs.repair("0" * 64, NotFoundError("no such blob"))


@pytest.mark.parametrize("headers", [{}, ZSTD])
def test_what_cannot_be_had_again_is_said_to_be_damaged(
    headers: dict[str, str], library: Path, image: Path, tmp_path: Path
) -> None:
    blob = blob_of(library, image)
    whole = blob.read_bytes()
    rot(blob)
    with serve(library, tmp_path / "server") as server:
        for _ in range(2):  # it is gone by then
            refused = request(server.url, path_of(image), headers=headers)
            assert refused.status == 500
            assert b"is damaged or gone" in refused.body
        assert not blob.exists()
        blob.write_bytes(whole)  # as `symcache fsck --repair` does
        assert request(server.url, path_of(image), headers=headers).status == 200


def test_two_servers_that_ask_each_other_do_not_wait_for_each_other(library: Path, image: Path, tmp_path: Path) -> None:
    one, two = free_port(), free_port()
    rot(blob_of(library, image))
    with Library.open(tmp_path / "empty", create=True):
        pass
    with (
        serve(library, tmp_path / "one", "--port", str(one), "--upstream", f"http://127.0.0.1:{two}") as server,
        serve(tmp_path / "empty", tmp_path / "two", "--port", str(two), "--upstream", f"http://127.0.0.1:{one}"),
    ):
        began = time.monotonic()
        assert request(server.url, path_of(image)).status == 500
        assert time.monotonic() - began < 20  # LLDB gives up after 90, a server that is asked after 60


def test_what_decayed_of_another_server_is_fetched_again(
    samples: Samples, server: Server, image: Path, library: Path, tmp_path: Path
) -> None:
    wanted = path_of(samples.dylib)
    with serve(library, tmp_path / "front", "--upstream", server.url) as front:
        right = request(front.url, wanted).body
    (cached,) = files_of(tmp_path / "front/cache/symcache/server/upstream/blobs")
    rot(cached)
    with serve(library, tmp_path / "front", "--upstream", server.url) as front:
        assert request(front.url, wanted).body == right
        assert metric(front, 'symcache_damaged_files_total{files="upstream"}') == 1


class Scrubbing:
    """A scrubber over a library and a cache, which notes what it would have repaired."""

    def __init__(self, library: Library, decoded: Path, state: Path) -> None:
        self.repaired: list[str] = []
        self.scrubber = Scrubber(library, decoded, state, self._repair)

    def _repair(self, sha256: str, cause: IntegrityError | NotFoundError) -> None:
        assert isinstance(cause, IntegrityError)
        self.repaired.append(sha256)

    def run(self, now: float) -> int:
        """Check all that is due; return how many folders that were."""
        count = 0
        while self.scrubber.check_next(now):
            count += 1
        return count


@pytest.fixture
def scrubbing(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Scrubbing]]:
    monkeypatch.setattr("symcache_server.files.scrubber._REST", 0.0)
    with Library.open(library) as opened:
        yield lambda: Scrubbing(opened, tmp_path / "decoded", tmp_path / "state")


def test_everything_is_read_again_within_thirty_days(
    scrubbing: Callable[[], Scrubbing], library: Path, image: Path, tmp_path: Path
) -> None:
    one, now = scrubbing(), time.time()
    blob = blob_of(library, image)
    assert one.run(now) == 512  # 256 folders of the library, and of the cache
    assert one.run(now + 10 * DAY) == 0
    rot(blob)
    cached = tmp_path / "decoded" / "ab" / ("ab" * 32)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"something else")
    os.utime(cached, (now - 9 * DAY, now - 10 * DAY))
    aside = tmp_path / "decoded" / "damaged" / cached.name
    assert (one.run(now + 29 * DAY), one.repaired, aside.read_bytes()) == (512, [blob.stem], b"something else")
    assert not cached.exists()
    # A clock that was wrong: what is said to have been read in a year from now was not.
    assert (one.run(now + 400 * DAY), one.run(now + 30 * DAY)) == (512, 512)


def test_a_check_that_a_wrong_clock_dated_ahead_is_told_as_none(scrubbing: Callable[[], Scrubbing]) -> None:
    one, now = scrubbing(), time.time()
    one.run(now + 400 * DAY)
    assert one.scrubber.oldest(now) == {"library": now, "decoded": now}, "it counts from the first look"


def test_reading_is_no_use(scrubbing: Callable[[], Scrubbing], tmp_path: Path) -> None:
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing: FIPS 180-4
    cached = tmp_path / "decoded" / sha256[:2] / sha256
    cached.parent.mkdir(parents=True)
    cached.touch()
    os.utime(cached, (1000, 500))
    scrubbing().run(time.time())
    assert (cached.stat().st_atime, cached.stat().st_mtime) == (1000, 500)  # the order of eviction


def test_it_rests_for_some_times_as_long_as_it_reads_and_goes_on(
    scrubbing: Callable[[], Scrubbing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(scrubber, "_REST", 4.0)
    monkeypatch.setattr(scrubber, "time", SimpleNamespace(monotonic=itertools.count(1000.0, 0.25).__next__))
    one, folder = scrubbing(), tmp_path / "decoded" / "ab"
    monkeypatch.setattr(one.scrubber, "_stop", SimpleNamespace(wait=rests.append))
    folder.mkdir(parents=True)
    for digit in "123":
        (folder / f"ab{digit * 62}").touch()
    while len(rests) < 3:
        assert one.scrubber.check_next(1e9)
    assert rests == [1.0] * 3


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells what of a file is in memory")
def test_what_is_checked_is_read_from_the_disk(
    scrubbing: Callable[[], Scrubbing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_memory(file: BinaryIO) -> int:
        """Return how many pages of a file the kernel has in memory: preadv2(2)."""
        count = 0
        for at in range(0, os.fstat(file.fileno()).st_size, mmap.PAGESIZE):
            with contextlib.suppress(OSError):
                count += os.preadv(file.fileno(), [bytearray(1)], at, os.RWF_NOWAIT)
        return count

    data = os.urandom(8 * mmap.PAGESIZE)
    sha256 = hashlib.sha256(data).hexdigest()
    cached, other = tmp_path / "decoded" / sha256[:2] / sha256, tmp_path / "other"
    cached.parent.mkdir(parents=True)
    for path in (cached, other):
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file)  # what is not yet on the disk stays in memory
    left, seen = [], []
    with other.open("rb") as file:
        for _ in range(10):  # the kernel may have reasons of its own not to forget something just now
            os.posix_fadvise(file.fileno(), 0, len(data), os.POSIX_FADV_DONTNEED)
            left.append(in_memory(file))  # all of it, where the folder is in memory
    monkeypatch.setattr(scrubber, "content_hash", lambda file: seen.append(in_memory(file)) or content_hash(file))
    one, now = scrubbing(), time.time()
    for number in range(10):
        one.run(now + number * 21 * DAY)
    assert (len(seen), min(seen)) == (10, min(left))
    assert cached.exists()


def test_the_age_of_the_oldest_check_is_told(library: Path, tmp_path: Path) -> None:
    since = time.time()
    for _ in range(2):
        with serve(library, tmp_path / "server", "--processes", "2") as server:
            for files in ("library", "decoded"):
                name = f'symcache_oldest_check_timestamp_seconds{{files="{files}"}}'
                age = until(lambda name=name: metric(server, name))
                assert since <= age < since + 60, "nothing was checked yet: it counts from the first start"
        time.sleep(0.1)


def test_one_process_does_it(
    scrubbing: Callable[[], Scrubbing], library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubber, "_LOOK_SECONDS", 0.02)
    one, state, asked, told = scrubbing(), tmp_path / "state", [], []
    locked, tell = scrubber._locked, Scrubber.tell
    monkeypatch.setattr(scrubber, "_locked", lambda lock: asked.append(time.monotonic()) or locked(lock))
    monkeypatch.setattr(Scrubber, "tell", lambda it: told.append(time.monotonic()) or tell(it))
    state.mkdir()
    with (state / "scrubber.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process
        one.scrubber.start()
        until(lambda: asked[2:] or told)
        assert (told, (state / "scrubber.json").exists()) == ([], False)
    until(lambda: (state / "scrubber.json").exists() and told[2:])
    (thread,) = (t for t in threading.enumerate() if t.name == "scrubber")
    assert thread.daemon, "a server that fails ends all the same"
    if sys.platform == "linux":
        assert thread.native_id and os.getpriority(os.PRIO_PROCESS, thread.native_id) == 19, "the least there is"
    one.scrubber.close()
    assert all(after - before >= 0.02 for looks in (asked, told) for before, after in itertools.pairwise(looks)), "rest"
    before = json.loads((state / "scrubber.json").read_text())
    with Library.open(library) as opened:
        names = {f"decoded {tmp_path / 'decoded'}", f"library {opened.catalog.library_id()}"}
    assert {name: len(times) for name, times in before.items()} == dict.fromkeys(names, 257)
    two = scrubbing()
    told.clear()
    two.scrubber.start()
    until(lambda: told[1:])
    two.scrubber.close()
    assert two.run(time.time()) == 0  # the first one has done it all
    assert json.loads((state / "scrubber.json").read_text()) == before, "nothing was read twice"


def test_closing_waits_for_what_is_being_repaired(
    library: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubber, "_LOOK_SECONDS", 0.02)
    begun, end = threading.Event(), threading.Event()

    def repair(sha256: str, cause: IntegrityError | NotFoundError) -> None:
        begun.set()
        assert end.wait(60)

    rot(blob_of(library, image))
    with Library.open(library) as opened:
        one = Scrubber(opened, tmp_path / "decoded", tmp_path / "new" / "state", repair)
        one.start()
        assert begun.wait(60)
        closing = threading.Thread(target=one.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        end.set()
        closing.join(60)
        assert not closing.is_alive()
