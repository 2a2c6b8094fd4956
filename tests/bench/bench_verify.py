"""How fast a library is verified: by the first bytes of 10,000 images, and by every byte against plain hashing."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from symcache.library import Library, Staged, StagedObject, ingest
from symcache.model import ManifestEntry, Release, ReleaseId
from symcache.store import BlobReader
from symcache.verify import Expectations, Level, VerifyReport, verify
from tests.bench.harness import ROUNDS, Row, compare, figure
from tests.bench.synthetic_cache import Shape, build
from tests.bench.synthetic_files import machine_code, write_dylibs
from tests.support.extracted import stage_extracted

__all__ = ["run"]

_IMAGES = 10_000
_BUILD = "22G120"
_CHUNK = 1 << 20


def run(scratch: Path) -> list[Row]:
    """Return the rows of both levels; a release whose raw cache was kept has rows of its own."""
    code = machine_code()
    small = _library(scratch, "small", write_dylibs(scratch / "small", code, _IMAGES, median=24 << 10))
    large = _library(scratch, "large", write_dylibs(scratch / "large", code, 800, median=300 << 10))
    rows = [_blobs(small), *_bytes("800 images", large, _files(scratch / "large"))]
    cached, files = _cached(scratch / "cached")
    return rows + _bytes("a shared cache, raw and extracted", cached, files)


def _blobs(library: Library) -> Row:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        _complete(verify(library, [_BUILD], level=Level.BLOBS, expectations=Expectations.nothing()), _IMAGES)
        seconds.append(time.perf_counter() - start)
    return figure(f"verify: level blobs, {_IMAGES:,} images", statistics.median(seconds), "s", at_most=20)


def _bytes(name: str, library: Library, files: list[Path]) -> list[Row]:
    """Compare with what reading and hashing alone take: of files, with one process or thread a core; of blobs.

    Blobs have to be decoded before they can be hashed. With a processor's own SHA-256 instructions, hashing plain
    files takes less time than decoding does, so the second peer is out of reach for a compressed store; the third is
    what is left once decoding is paid for.
    """

    def ours() -> None:
        _complete(verify(library, [_BUILD], level=Level.BYTES, expectations=Expectations.nothing()))

    def sha256sum() -> None:
        cores = os.cpu_count() or 1
        parts = [files[n::cores] for n in range(cores)]
        running = [subprocess.Popen(["sha256sum", *map(str, p)], stdout=subprocess.DEVNULL) for p in parts if p]
        if any(process.wait() for process in running):
            raise RuntimeError("sha256sum failed")

    def over_threads(work: Callable[[Any], object], items: Sequence[Any]) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(work, items):
                pass

    record = library.catalog.records_of(ReleaseId("macOS", _BUILD))[0].id
    blobs = {o.sha256: o.size for o in library.catalog.objects_of(record)}
    blobs |= {f.sha256: f.size for f in library.catalog.cache_files_of_record(record)}

    def decode(blob: tuple[str, int]) -> None:
        for _ in BlobReader(library.store, *blob):
            pass

    size = sum(f.stat().st_size for f in files) / 1e6
    title = f"verify: level bytes, {name}"
    common: dict[str, Any] = {"amount": size, "unit": "MB/s"}
    return [
        compare(title, ours, "sha256sum of the files", sha256sum, at_least=0.5, **common),
        compare(title, ours, "OpenSSL over the files", lambda: over_threads(_hash, files), **common),
        compare(title, ours, "OpenSSL over the blobs", lambda: over_threads(decode, list(blobs.items())), **common),
    ]


def _complete(report: VerifyReport, images: int | None = None) -> None:
    if not report.complete or (images is not None and report.images != images):
        raise RuntimeError(f"{report.images} images, {report.findings[:3]}")


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file())


def _library(scratch: Path, name: str, images: Iterator[tuple[Path, UUID]]) -> Library:
    staged = Staged(Release(version="13.6", build=_BUILD), "bench")
    for file, uuid in images:
        path = f"/usr/lib/{file.name}"
        staged.manifest.append(ManifestEntry(path=path, arch="x86_64", uuid=uuid))
        staged.objects.append(StagedObject(file, 0, file.stat().st_size, path, "x86_64", uuid))
    return _ingest(scratch / f"{name}-library", staged)


def _ingest(location: Path, staged: Staged) -> Library:
    library = Library.open(location, create=True)
    with mock.patch("os.fsync"):  # ten thousand flushes are not what is measured here
        result = ingest(library, staged)
    if not result.sealed:
        raise RuntimeError(str(result.problems[:3]))
    return library


def _cached(folder: Path) -> tuple[Library, list[Path]]:
    """Return a library of one cache with its raw file kept, and all files whose bytes are checked."""
    (folder / "raw").mkdir(parents=True)
    main = build(folder / "raw", Shape(images=300, size=250_000_000))
    staged = stage_extracted(main, folder / "extracted", _BUILD, jobs=None)
    return _ingest(folder / "library", staged), [main, *_files(folder / "extracted")]
