"""The cache of decoded files when there is little room: whoever asks is answered, and a full disk makes room."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import zstandard

from symcache.errors import IntegrityError, NotFoundError, StorageError
from symcache.images import ImageRequest
from symcache.library import Library, ingest
from symcache.store import blob_key
from symcache_server.files.checked import CheckedFolder
from symcache_server.files.decoded import DecodedCache
from symcache_server.files.made import MadeFiles
from symcache_server.http.content import PlainFile
from symcache_server.http.metrics import CACHE_FILLS
from tests.library.images import Image, harvest
from tests.support.disks import mounted_disk
from tests.support.http import request
from tests.support.servers import Samples, Server, noise_image, serve, set_uuid, stage_variant, uuid_of


@pytest.fixture(scope="module")
def many(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A library of images of three megabytes each, and these."""
    folder = tmp_path_factory.mktemp("many")
    images = []
    with Library.open(folder / "library", create=True) as library:
        for number in range(8):
            image = folder / f"lib{number}.dylib"
            image.write_bytes(samples.large.read_bytes() + os.urandom(1000))
            images.append(set_uuid(image, UUID(int=number + 1)))
            ingest(library, stage_variant(image, "22G120", None, f"/usr/lib/{image.name}"))
    return folder / "library", images


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of eight megabytes."""
    with mounted_disk(tmp_path / "disk", 8) as folder:
        yield folder


async def _made(made: MadeFiles, samples: Samples, make: Callable[[Sequence[int], Path], None]) -> bytes:
    """Return the file that is made of a sample by `make`."""
    source, content = await made.get([(PlainFile(samples.dylib), "0" * 64, 1)], "sym9", make)
    with os.fdopen(await source.open(content.sha256, content.size), "rb") as file:
        return file.read()


def _path(image: Path) -> str:
    return f"/buildid/{uuid_of(image).hex}/executable"


def test_the_cache_of_decoded_files_keeps_to_its_limit(many: tuple[Path, list[Path]], tmp_path: Path) -> None:
    library, images = many
    size = images[0].stat().st_size
    with serve(library, tmp_path / "server", "--cache-gib", str(3.5 * size / (1 << 30))) as server:
        for _ in range(2):
            for image in images:
                assert request(server.url, _path(image)).body == image.read_bytes()
    kept = [p for p in (tmp_path / "server" / "cache").rglob("*") if p.is_file() and p.stat().st_size == size]
    assert 1 <= len(kept) <= 4


def test_what_was_served_lately_outlives_what_was_not(many: tuple[Path, list[Path]], tmp_path: Path) -> None:
    library, images = many
    size = images[0].stat().st_size
    sums = [hashlib.sha256(image.read_bytes()).hexdigest() for image in images]
    cached = [tmp_path / "cache" / sha256[:2] / sha256 for sha256 in sums]

    def serve_once(*numbers: int) -> None:
        with Library.open(library) as opened:
            cache = DecodedCache(opened, tmp_path / "cache", int(2.5 * size))
            for number in numbers:
                os.close(asyncio.run(cache.open(sums[number], size)))
            cache.close()

    serve_once(0, 1)
    for number, hours in ((0, 3), (1, 2)):
        os.utime(cached[number], (time.time() - 3600 * hours,) * 2)
    serve_once(0, 2)  # the first was made before the second, but is used again
    assert [path.exists() for path in cached[:3]] == [True, False, True]


def test_each_process_proves_a_stored_blob_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image("/usr/lib/a", 1)
    sha256, size = hashlib.sha256(image.data).hexdigest(), len(image.data)
    proofs: list[str] = []
    real = Library.read_blob
    monkeypatch.setattr(Library, "read_blob", lambda self, *what: proofs.append(what[0]) or real(self, *what))

    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "staged", [image]))
        stored = tmp_path / "library" / blob_key(sha256)
        stored.chmod(0o644)

        def proofs_for_sending() -> int:
            """Send it from a server that was just started; return how often the blob was decoded for that."""
            proofs.clear()
            cache = DecodedCache(library, tmp_path / "cache", 1 << 30)
            try:
                for _ in range(2):
                    os.close(asyncio.run(cache.open_stored(sha256, size, stored.stat().st_size)))
            finally:
                cache.close()
            return len(proofs)

        assert [proofs_for_sending(), proofs_for_sending()] == [1, 1]

        cache = DecodedCache(library, tmp_path / "cache", 1 << 30)
        for _ in range(2):
            proofs.clear()
            os.close(asyncio.run(cache.open_stored(sha256, size, stored.stat().st_size)))
            assert len(proofs) == 1
            os.utime(stored, (1, 1))  # written to, in whatever way
        broken = bytearray(stored.read_bytes())
        broken[-1] ^= 1
        stored.write_bytes(broken)
        failed = CACHE_FILLS.labels("failed")._value.get()
        for _ in range(2):
            with pytest.raises(IntegrityError):
                asyncio.run(cache.open_stored(sha256, size, stored.stat().st_size))
        assert CACHE_FILLS.labels("failed")._value.get() == failed + 2
        cache.close()


def test_a_cached_file_that_is_not_whole_is_made_anew(tmp_path: Path) -> None:
    """As a disk may leave it that lost its power."""
    image = Image("/usr/lib/a", 1)
    sha256, size = hashlib.sha256(image.data).hexdigest(), len(image.data)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "staged", [image]))
        cache = DecodedCache(library, tmp_path / "cache", 1 << 30)
        places = {"library": tmp_path / "library", "decoded": tmp_path / "cache"}
        for _ in range(2):
            with os.fdopen(asyncio.run(cache.open(sha256, size)), "rb") as file:
                assert file.read() == image.data
            top, _, rest = cache.name(sha256, stored=False).partition("/")
            assert (places[top] / rest).read_bytes() == image.data
            os.truncate(places[top] / rest, size // 2)
        top, _, rest = cache.name(sha256, stored=True).partition("/")
        assert zstandard.decompress((places[top] / rest).read_bytes()) == image.data
        cache.close()


def test_what_is_larger_than_the_whole_cache_is_sent_nevertheless(
    many: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    library, images = many
    with (
        serve(library, tmp_path / "server", "--cache-gib", "0.001") as server,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        asked = images * 6
        for image, answer in zip(asked, pool.map(lambda i: request(server.url, _path(i)), asked), strict=True):
            assert (answer.status, answer.body) == (200, image.read_bytes())
        for image in images:
            assert request(server.url, _path(image)).status == 200
    kept = [p for p in (tmp_path / "server" / "cache").rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert len(kept) == 1


def test_what_was_used_least_goes_when_the_disk_is_full(
    many: tuple[Path, list[Path]], small_disk: Path, tmp_path: Path
) -> None:
    library, images = many
    with serve(library, tmp_path / "server", env={"XDG_CACHE_HOME": str(small_disk)}) as server:
        for _ in range(2):
            for image in images:
                answer = request(server.url, _path(image))
                assert (answer.status, answer.body) == (200, image.read_bytes())
        for cached in small_disk.rglob("*"):  # nothing is left to be thrown away
            if cached.is_file() and cached.stat().st_size == images[0].stat().st_size:
                cached.unlink()
        with (small_disk / "more").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1 << 16))
        refused = request(server.url, _path(images[0]))
        assert refused.status == 503
        assert b"No space" in refused.body
        (small_disk / "more").unlink()
        assert request(server.url, _path(images[0])).body == images[0].read_bytes()


def test_a_file_that_is_being_written_is_not_thrown_away(many: tuple[Path, list[Path]], tmp_path: Path) -> None:
    library, images = many
    with serve(library, tmp_path / "server", "--cache-gib", "0.001") as server:
        decoded = tmp_path / "server" / "cache" / "symcache" / "server" / "decoded"
        (decoded / "ab").mkdir(parents=True, exist_ok=True)
        begun, left = decoded / "ab" / ".part-now", decoded / "ab" / ".part-left"
        for part in (begun, left):
            part.write_bytes(bytes(1000))
        os.utime(begun, (time.time() - 600,) * 2)
        os.utime(left, (time.time() - 3 * 86400,) * 2)
        for image in images[:2]:
            assert request(server.url, _path(image)).status == 200
        assert begun.exists()
        assert not left.exists()


def test_what_cannot_be_made_is_not_tried_at_every_request(samples: Samples, tmp_path: Path) -> None:
    tried: list[Path] = []
    errors: list[Exception] = [StorageError("the disk is gone"), OSError(5, "I/O"), IntegrityError("cannot be read")]

    def make(descriptors: Sequence[int], target: Path) -> None:
        assert all(os.fstat(descriptor).st_size for descriptor in descriptors)
        tried.append(target)
        if len(tried) <= len(errors):
            raise errors[len(tried) - 1]
        target.write_bytes(b"made")

    async def ask(files: CheckedFolder) -> bytes:
        return await _made(MadeFiles(files), samples, make)

    for again in range(2):  # what another process has found out holds as well
        files = CheckedFolder(tmp_path / "cache", 1 << 30)
        if not again:
            for error in (StorageError, StorageError):  # may be over at any time
                with pytest.raises(error):
                    asyncio.run(ask(files))
            assert len(tried) == 2
        for _ in range(3):
            with pytest.raises(IntegrityError, match="cannot be read"):
                asyncio.run(ask(files))
        files.close()
    assert len(tried) == 3
    # Not for ever: what reads it may have become better.
    (note,) = (tmp_path / "cache").rglob("*.no")
    os.utime(note, (time.time() - 3700,) * 2)
    assert asyncio.run(ask(CheckedFolder(tmp_path / "cache", 1 << 30))) == b"made"
    assert len(tried) == 4


def test_what_many_ask_for_at_once_is_made_once(samples: Samples, tmp_path: Path) -> None:
    made, begun, end = 0, threading.Event(), threading.Event()

    def make(descriptors: Sequence[int], target: Path) -> None:
        nonlocal made
        made += 1
        begun.set()
        assert end.wait(60)
        target.write_bytes(b"made")

    async def ask_all(made: MadeFiles) -> list[bytes]:
        def ask() -> asyncio.Task[bytes]:
            return asyncio.ensure_future(_made(made, samples, make))

        asked = [ask(), ask()]  # at the same moment, and while it is being made
        await asyncio.to_thread(begun.wait, 60)
        asked.append(ask())
        await asyncio.sleep(0.05)
        end.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask_all(MadeFiles(CheckedFolder(tmp_path / "cache", 1 << 30)))) == [b"made"] * 3
    assert made == 1


async def test_closing_waits_for_what_is_being_made(samples: Samples, tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()
    made = MadeFiles(CheckedFolder(tmp_path / "cache", 1 << 30))

    def make(descriptors: Sequence[int], target: Path) -> None:
        begun.set()
        assert end.wait(60)
        target.write_bytes(b"made")

    asked = asyncio.create_task(_made(made, samples, make))
    await asyncio.to_thread(begun.wait, 60)
    made.stop()  # which does not wait
    closed = asyncio.create_task(asyncio.to_thread(made.close))
    await asyncio.sleep(0.05)
    assert not closed.done()
    end.set()
    await closed
    assert await asked == b"made"


def test_nothing_stays_open_of_what_is_made_or_cannot_be(samples: Samples, tmp_path: Path) -> None:
    class Slow(PlainFile):
        async def open(self, sha256: str, size: int) -> int:
            await asyncio.sleep(0)
            return await super().open(sha256, size)

    def make(descriptors: Sequence[int], target: Path) -> None:
        target.write_bytes(b"made")

    def fail(descriptors: Sequence[int], target: Path) -> None:
        raise IntegrityError("cannot be read")

    async def ask_twice(made: MadeFiles) -> None:
        """Ask for the same at once: each opens the part before it finds the other at work."""
        parts = [(Slow(samples.dylib), "2" * 64, 1)]
        await asyncio.gather(*(made.get(parts, "sym9", make) for _ in range(2)))

    whole, gone = (PlainFile(samples.dylib), "0" * 64, 1), (PlainFile(tmp_path / "gone"), "1" * 64, 1)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(2):  # the second time, the file is there, and was not yet checked
        files = CheckedFolder(tmp_path / "cache", 1 << 30)
        made = MadeFiles(files)
        assert asyncio.run(_made(made, samples, make)) == b"made"
        asyncio.run(ask_twice(made))
        with pytest.raises(NotFoundError):
            asyncio.run(made.get([whole, gone], "sym9", make))
        with pytest.raises(IntegrityError):
            asyncio.run(made.get([whole], "other", fail))
        made.close()
        files.close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_process_that_has_checked_more_than_it_remembers_checks_the_first_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache_server.files.checked._REMEMBERED", 2)
    files = CheckedFolder(tmp_path / "cache", 1 << 30)
    sums = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
    paths = [Path(files.path(sha256)) for sha256 in sums]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]))
    checked: list[int] = []

    def check(number: int) -> None:
        checked.append(number)
        assert len(checked) <= 8, "once for each request, at most"
        assert files.proofs.check(paths[number], sums[number])

    for number in (0, 1, 0, 1, 2, 1, 2, 0):
        os.close(asyncio.run(files.open(str(paths[number]), partial(check, number))))
    assert checked == [0, 1, 2, 0]
    files.close()


def test_the_cache_may_be_deleted_while_the_server_runs(
    many: tuple[Path, list[Path]], samples: Samples, server: Server, tmp_path: Path
) -> None:
    library, images = many
    with serve(library, tmp_path / "server", "--upstream", server.url, "--cache-gib", "0.001") as front:
        cache = tmp_path / "server" / "cache" / "symcache"
        for _ in range(3):
            for image in (images[0], samples.dylib, images[1]):  # the second one comes from the other server
                for encoding in ("identity", "zstd"):
                    answer = request(front.url, _path(image), headers={"Accept-Encoding": encoding})
                    assert answer.status == 200, answer
            assert (
                request(front.url, f"/{uuid_of(images[0]).hex[:2]}/{uuid_of(images[0]).hex[2:]}/breakpad").status == 200
            )
            gone = cache.rename(tmp_path / "gone")
            shutil.rmtree(gone)
        assert (tmp_path / "server" / "stderr").read_text() == ""


def test_a_stored_file_that_was_changed_is_not_sent_again(tmp_path: Path) -> None:
    image = noise_image(tmp_path)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_variant(image, "22G120", None, "/usr/lib/libnoise.dylib"))
        found = library.resolve(ImageRequest(uuid_of(image)))
        assert found is not None
    blob = tmp_path / "library" / blob_key(found.sha256)
    with serve(tmp_path / "library", tmp_path / "server") as server:
        for _ in range(2):
            assert request(server.url, _path(image), headers={"Accept-Encoding": "zstd"}).status == 200
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(data)
        assert request(server.url, _path(image), headers={"Accept-Encoding": "zstd"}).status == 500
