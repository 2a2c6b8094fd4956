"""The server's pages over 100 releases of 3,000 images each: how long a browser waits, and somebody who types.

No peer: there is none with such pages. Figures are medians of requests one after the other, once the server has looked
through the releases.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import zstandard

from symcache.library import Library
from symcache.model import uuid_text
from symcache.store import LocalStore, RecordKey, put_object
from tests.bench.harness import ROUNDS, Row, figure
from tests.server.pages.scene import CRYPTO, crash_report, make_library
from tests.support.http import request
from tests.support.servers import Server, serve

__all__ = ["run"]

_RELEASES, _IMAGES, _ARCHS = 100, 3000, ("arm64e", "x86_64", "x86_64h")
_REPORTS, _LOOKUPS = 1000, 1000
_WORDS = (
    "Core",
    "Foundation",
    "Kit",
    "Media",
    "Security",
    "Network",
    "Sync",
    "UI",
    "Graphics",
    "Data",
    "Cloud",
    "Photo",
)
_TYPED = ("li", "lib", "core", "coredata", "cloudkit", "zzz", "15.4", "core data kit", "photosync12", "22g1")


def run(scratch: Path) -> list[Row]:
    """Return how long the slowest page takes, and the slowest search as one types."""
    uuid = _write(LocalStore(scratch / "library", create=True), random.Random(1))
    Library.open(scratch / "library").close()  # which folds it
    rows = []
    with serve(scratch / "library", scratch / "server") as server:
        start = time.perf_counter()
        while json.loads(request(server.url, "/index.json").body)["unknown"]:
            time.sleep(0.2)
        rows.append(figure("pages: 100 releases looked through after the start", time.perf_counter() - start, "s"))
        for number in range(100):
            request(server.url, f"/CoreKit{number}/mach-uuid-{number:032x}/CoreKit{number}")
        text = uuid_text(uuid)
        pages = {
            "first page": "/",
            "release": "/releases/22G50",
            "release, filtered and sorted": "/releases/22G50?q=core&sort=-size",
            "difference of two releases": "/diff/22G50/22G51",
            "image of 100 builds": f"/images/{text}",
            "search": "/search?q=core",
            "missing": "/missing",
            "status": "/status",
        }
        for name, path in pages.items():
            rows.append(figure(f"pages: {name}", _median(server, path), "ms", at_most=100))
        typed = max(_median(server, f"/search.json?limit=8&q={quote(text)}") for text in _TYPED)
        rows.append(figure("pages: search as one types, the slowest of ten", typed, "ms", at_most=50))
    return [*rows, *_reports(scratch / "reports")]


def _reports(scratch: Path) -> Iterator[Row]:
    """Yield how look-ups fare while a thousand crash reports are dropped, one after the other, and once they were."""
    library = make_library(scratch)
    body, path = scratch / "body", f"/buildid/{CRYPTO.hex}/executable"
    body.write_text(f"report={quote(crash_report(library))}")
    during, after = [], []
    with serve(library, scratch / "server", "--processes", "2") as server:

        def dropping() -> subprocess.Popen[bytes]:
            urls = [part for _ in range(_REPORTS // ROUNDS) for part in (f"{server.url}/report", "-o", os.devnull)]
            return subprocess.Popen(["curl", "-s", "--data", f"@{body}", *urls])

        def look_up() -> float:
            start = time.perf_counter()
            request(server.url, path, method="HEAD")
            return time.perf_counter() - start

        dropping().wait()
        idle = statistics.median(look_up() for _ in range(_LOOKUPS))
        for _ in range(ROUNDS):
            busy = []
            with dropping() as process:
                while process.poll() is None:
                    busy.append(look_up())
            during.append(statistics.median(busy))
            after.append(statistics.median(look_up() for _ in range(_LOOKUPS)))
    name = "pages: look-ups a second while 1,000 crash reports are dropped in a row"
    ratios = [one / other for one, other in zip([idle, *after], during, strict=False)]
    yield figure(name, statistics.median(ratios), "of idle", at_least=0.9)
    yield figure(f"{name.partition(' while')[0]} after them", idle / after[-1], "of before", at_least=0.9)


def _median(server: Server, path: str) -> float:
    """Return milliseconds; the first request of all is not counted."""
    seconds = []
    for _ in range(ROUNDS * 2 + 1):
        start = time.perf_counter()
        answer = request(server.url, path)
        seconds.append(time.perf_counter() - start)
        if answer.status not in {200, 302}:
            raise RuntimeError(f"{path}: {answer.status}: {answer.body[:300]!r}")
    return statistics.median(seconds[1:]) * 1000


def _write(store: LocalStore, chance: random.Random) -> UUID:
    """Write records as of neighbouring releases, in three caches each; return the UUID of an image that all have."""
    names = [f"{chance.choice(_WORDS)}{chance.choice(_WORDS)}{n}" for n in range(_IMAGES // len(_ARCHS))]
    images = [
        (
            f"/System/Library/PrivateFrameworks/{name}.framework/Versions/A/{name}"
            if n % 3
            else f"/usr/lib/lib{name}.dylib",
            arch,
        )
        for n, name in enumerate(names)
        for arch in _ARCHS
    ]
    uuids = [UUID(int=chance.getrandbits(128)) for _ in images]
    for number in range(_RELEASES):
        caches = {arch: str(UUID(int=chance.getrandbits(128))) for arch in _ARCHS}
        # A third is built anew each time, but for the first one.
        for i in range(1 + number % 3, len(uuids), 3):
            uuids[i] = UUID(int=chance.getrandbits(128))
        entries = [
            {"path": path, "arch": arch, "uuid": str(u), "origin": "cache", "cache_uuid": caches[arch]}
            for (path, arch), u in zip(images, uuids, strict=True)
        ]
        more = {"extractor": "symcache", "revision": 2, "symbols": 500}
        objects = [
            e | more | {"size": chance.randrange(10_000, 9_000_000), "sha256": chance.randbytes(32).hex()}
            for e in entries
        ]
        release = {"version": f"13.{number}", "build": f"22G{number}"}
        day = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T03:00:00+00:00"
        record = {"release": release, "sealed": True, "source": "bench", "manifest": entries, "objects": objects}
        data = zstandard.compress(json.dumps(record | {"finished": day}).encode())
        put_object(store, str(RecordKey("bench", number + 1)), [data])
    return uuids[0]
