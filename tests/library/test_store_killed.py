"""An object store that is killed at any moment, and started again with what it had: nothing is lost or served wrong."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from symcache.client import PushedFile, push
from symcache.dyld import REVISION
from symcache.errors import SymcacheError
from symcache.library import Library, Subset, fsck, gc, ingest, reextract, remove_build
from symcache.store.s3 import S3Store
from symcache_server.http.auth import Scope, TokenStore
from tests.dyld.tiny import Cache
from tests.dyld.tiny import Image as CachedImage
from tests.library.images import Image, harvest
from tests.support.extracted import stage_extracted
from tests.support.http import request
from tests.support.seaweed import SeaweedServer, make_bucket, s3_environment, started
from tests.support.servers import Server, serve
from tests.support.waiting import until

KILLS = int(os.environ.get("SYMCACHE_TEST_STORE_KILLS", "1"))
IMAGES = 12
VERBS = ("ingest", "reextract", "gc", "push")
LOCATION = "s3://libraries/killed"


class World:
    """What is done to the library, and what has to be in it from then on. Every verb may be repeated."""

    def __init__(self, folder: Path, server: Server, token: str) -> None:
        self.folder, self.server = folder, server
        self.push_url = f"http://any:{token}@{urlsplit(server.url).netloc}"
        self.promised: dict[UUID, bytes] = {}
        """What has to be served as soon as the server has looked for it."""
        self.served: dict[UUID, bytes] = {}
        """What has been."""
        self.patience = 60.0

    def open(self) -> Library:
        return Library.open(LOCATION, patience=self.patience)

    def _images(self, number: int) -> list[Image]:
        return [Image(f"/usr/lib/{n}", 1000 * number + n + 1, size=9000) for n in range(IMAGES)]

    def ingest(self, number: int) -> None:
        images = self._images(number)
        with self.open() as library:
            staged = harvest(self.folder / str(number), images, build=f"22G{number}", raw=[("cache", number + 1, b"r")])
            assert ingest(library, staged).sealed
        self.promised |= {i.uuid: i.data for i in images}

    def push(self, number: int) -> None:
        images = self._images(number)
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        for image in images:
            (folder / image.uuid.hex).write_bytes(image.data)
        push(self.push_url, [PushedFile(folder / i.uuid.hex, 0, len(i.data), i.path, i.uuid) for i in images])
        self.promised |= {i.uuid: i.data for i in images}

    def prepare_gc(self, number: int) -> None:
        with Library.open(LOCATION) as library:
            staged = harvest(self.folder / str(number), self._images(number), build=f"22G{number}", version="14.0")
            ingest(library, staged)
            remove_build(library, f"22G{number}")
        time.sleep(1.1)  # the clock of an object store may count whole seconds

    def gc(self, number: int) -> None:
        with self.open() as library:
            gc(library, grace=0)
            stored = [key.rpartition("/")[2].removesuffix(".zst") for key in library.store.list("blobs/")]
            assert all(map(library.catalog.is_live, stored))

    def prepare_reextract(self, number: int) -> None:
        images = [
            CachedImage(f"/usr/lib/c{n}", UUID(int=1000 * number + n + 1), text=bytes([number % 256, n]) * 99)
            for n in range(3)
        ]
        main = Cache(images, uuid=UUID(int=70_000 + number)).write(self.folder / f"cache{number}")
        staged = stage_extracted(main, self.folder / f"images{number}", f"22G{number}")
        self.extracted = {o.uuid: o.file.read_bytes() for o in staged.objects if o.uuid}
        for n, o in enumerate(staged.objects):
            older = self.folder / f"older{number}-{n}"
            older.write_bytes(o.file.read_bytes() + bytes(8))
            staged.objects[n] = replace(o, file=older, size=o.size + 8, revision=REVISION - 1)
        with Library.open(LOCATION) as library:
            assert ingest(library, staged).sealed

    def reextract(self, number: int) -> None:
        with self.open() as library:
            assert reextract(library, f"22G{number}").problems == []
        self.promised |= self.extracted

    def check(self) -> None:
        with Library.open(LOCATION) as library:
            report = fsck(library, read=Subset())
            assert report.findings == []
            assert len(list(library.store.list("records/"))) == len(library.catalog.known_keys())
        for uuid, data in self.promised.items():
            until(lambda: self.response(uuid) == (200, data), f"{uuid} is not served")  # noqa: B023 - before they change
        self.served |= self.promised

    def response(self, uuid: UUID) -> tuple[int, bytes]:
        answer = request(self.server.url, f"/buildid/{uuid.hex}/executable")
        return answer.status, answer.body


@contextlib.contextmanager
def _watched(world: World) -> Iterator[dict[int, int]]:
    """Ask the server for what it has to have, all the time; yield how often it answered with which status."""
    counts: dict[int, int] = {}
    wrong: list[str] = []
    over = threading.Event()
    chance = random.Random(3)

    def watch() -> None:
        while not over.wait(0.05):
            uuid, data = chance.choice(list(world.served.items()))
            status, body = world.response(uuid)
            counts[status] = counts.get(status, 0) + 1
            if status != 503 and (status, body) != (200, data):
                wrong.append(f"{uuid}: {status} {body[:100]!r}")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join(120)
    assert wrong == []


def _killed_during(store: SeaweedServer, verb: Callable[[], None], pause: float, away: float) -> tuple[bool, bool]:
    """Run `verb`; kill the store after `pause` seconds, for `away`. Return (whether in time, whether all was well)."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(verb)
        time.sleep(pause)
        in_time = not running.done()
        store.kill()
        time.sleep(away)
        assert store.start()
        try:
            running.result(240)
        except SymcacheError as error:
            assert error.exit_code == 3, error
            return in_time, False
    return in_time, True


def test_a_store_that_is_killed_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "settle", 0.5)
    store = started()
    make_bucket(store.endpoint, "libraries")
    for name, value in s3_environment(store.endpoint).items():
        monkeypatch.setenv(name, value)
    Library.open(LOCATION, create=True).close()
    token = TokenStore(tmp_path / "server" / "state" / "symcache" / "tokens.json").create("ci", [Scope.WRITE])
    chance = random.Random(int(os.environ.get("SYMCACHE_TEST_SEED", "5")))
    in_time = outlasted = 0
    longest = dict.fromkeys(VERBS, 0.5)
    with serve(LOCATION, tmp_path / "server") as server:
        world = World(tmp_path, server, token)
        world.ingest(0)
        world.check()
        with _watched(world) as statuses:
            for number in range(1, KILLS + 1):
                verb = VERBS[(number - 1) % len(VERBS)]
                if prepare := getattr(world, f"prepare_{verb}", None):
                    prepare(number)
                # One that outlasts it, or one that ends and is repeated.
                world.patience = chance.choice([60.0, 0.5])
                run = lambda: getattr(world, verb)(number)  # noqa: B023, E731 - it is over before they change
                pause = chance.random() * longest[verb]
                hit, whole = _killed_during(store, run, pause, chance.random())
                longest[verb] = longest[verb] * 1.1 if hit else min(longest[verb], pause)
                in_time, outlasted = in_time + hit, outlasted + (hit and whole)
                world.patience = 60.0
                if not whole:
                    run()
                world.check()
    store.close()
    print(f"{KILLS} kills, {in_time} in time, {outlasted} outlasted; served meanwhile: {statuses}")
    assert in_time >= KILLS // 3, "the kills came too late to mean anything"
