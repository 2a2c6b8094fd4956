"""The library: storing a real tree, folding a million objects, looking up among five million."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import zstandard

from symcache.catalog import Catalog
from symcache.images import ImageRequest
from symcache.library import Library, Staged, ingest, stage_paths, stats, write_snapshot
from symcache.store import LocalStore, RecordKey, put_object
from tests.bench.harness import ROUNDS, Row, compare, figure
from tests.support.wheels import fetch_wheel

_WHEELS = (
    ("PySide6_Essentials==6.7.3", "macosx_11_0_universal2"),
    ("pyobjc_core==13.0", "macosx_10_13_universal2"),
    ("scipy==1.14.1", "macosx_14_0_arm64"),
)
_PER_RECORD = 20_000
_RECORDS = 50
_OCCURRENCES = 5_000_000


def run(scratch: Path) -> list[Row]:
    """Return ingest against sha256sum and zstd, then the catalog's figures."""
    return [*_ingest(scratch), *_catalog(scratch / "catalog")]


def _ingest(scratch: Path) -> Iterator[Row]:
    trees = [fetch_wheel(name, platform) for name, platform in _WHEELS]
    staged = stage_paths(trees, scratch)
    # The same bytes for both, as plain files: no universal file is read twice, and none is skipped as known.
    files = sorted({o.file for o in staged.objects})
    whole = Staged(None, "bench", objects=staged.objects, manifest=staged.manifest, trust=staged.trust)
    listing = scratch / "list"
    listing.write_bytes(b"\0".join(os.fsencode(f) for f in files))
    library, peer = scratch / "library", scratch / "peer"
    size = sum(o.size for o in staged.objects)

    def clear() -> None:
        for folder in (library, peer):
            shutil.rmtree(folder, ignore_errors=True)
        peer.mkdir()

    def ours() -> None:
        with Library.open(library, create=True) as opened:
            ingest(opened, whole)

    def theirs() -> None:
        script = f'sha256sum "$@" >/dev/null && for f; do zstd -3 -q -f -o {peer}/$$-$(basename "$f") "$f"; done'
        command = [
            "xargs",
            "-0",
            "-a",
            str(listing),
            "-P",
            str(os.cpu_count() or 1),
            "-n",
            "8",
            "sh",
            "-c",
            script,
            "-",
        ]
        subprocess.run(command, check=True)

    yield compare(
        "ingest a real tree",
        ours,
        "sha256sum + zstd -3",
        theirs,
        amount=size / 1e6,
        unit="MB/s",
        at_least=0.7,
        prepare=clear,
    )
    with Library.open(library, create=True) as opened:
        ingest(opened, whole)
        found = stats(opened)
        yield figure("bytes stored", found.image_stored / found.image_content, "of content", at_most=0.4)


def _write_records(store: LocalStore, chance: random.Random) -> list[UUID]:
    """Write records as of neighbouring releases, two thirds of whose UUIDs stay; return the last ones."""
    paths = [f"/System/Library/PrivateFrameworks/F{i}.framework/Versions/A/F{i}" for i in range(_PER_RECORD)]
    uuids = [UUID(int=chance.getrandbits(128)) for _ in paths]
    for number in range(_RECORDS):
        cache = str(UUID(int=chance.getrandbits(128)))
        for i in range(number % 3, _PER_RECORD, 3):
            uuids[i] = UUID(int=chance.getrandbits(128))
        entries = [
            {"path": p, "arch": "arm64e", "uuid": str(u), "origin": "cache", "cache_uuid": cache}
            for p, u in zip(paths, uuids, strict=True)
        ]
        more = {"extractor": "symcache", "revision": 1, "size": 100_000, "symbols": 500}
        objects = [
            e | more | {"sha256": chance.randbytes(32).hex(), "code": chance.randbytes(8).hex()} for e in entries
        ]
        release = {"version": f"13.{number}", "build": f"22G{number}"}
        record = {"release": release, "sealed": True, "source": "bench", "manifest": entries, "objects": objects}

        data = zstandard.compress(json.dumps(record).encode())
        put_object(store, str(RecordKey("bench", number + 1)), [data])
    return uuids


def _catalog(folder: Path) -> Iterator[Row]:
    chance = random.Random(1)
    store = LocalStore(folder, create=True)
    uuids = _write_records(store, chance)
    start = time.perf_counter()
    library = Library.open(folder)
    yield figure("fold 1 million objects", time.perf_counter() - start, "s", at_most=60)
    connection = library.catalog.database.conn
    missing = _OCCURRENCES - _RECORDS * _PER_RECORD
    # The rest is filled in below the records: rows that nobody asks for, but which are in the way.
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO objects (uuid, layout, record, path, sha256, size, symbols, code, checksum)"
        " SELECT randomblob(16), 1, 1 + i % 50, 1 + i % 20000, randomblob(32), 100000, 500, randomblob(8), i FROM n",
        [missing],
    )
    assert library.catalog.counts().occurrences == _OCCURRENCES
    asked = chance.sample(uuids, 2000)
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for uuid in asked:
            assert library.catalog.resolve(uuid)
        rounds.append((time.perf_counter() - start) / len(asked) * 1000)
    yield figure("look-up among 5 million occurrences", statistics.median(rounds), "ms", at_most=0.2)
    write_snapshot(library.store, library.catalog)
    library.close()
    path = library.catalog.path
    assert path
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    start = time.perf_counter()
    with Library.open(folder) as fresh:
        assert isinstance(fresh.catalog, Catalog)
        assert fresh.resolve(ImageRequest(asked[0])) is None  # its record is known; its blob was never made
    yield figure("cold start from a snapshot of 5 million", time.perf_counter() - start, "s", at_most=20)
