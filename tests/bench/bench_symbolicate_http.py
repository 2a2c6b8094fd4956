"""Names over HTTP: what `/symbolicate/v5` costs one process, of images of C, C++, Fortran, Rust, Swift and ObjC."""

from __future__ import annotations

import json
import random
import statistics
import time
from pathlib import Path

from symcache.library import Library, ingest, stage_paths
from symcache.macho import Slice, identify, sections
from tests.bench.bench_server import cpu_seconds
from tests.bench.harness import ROUNDS, Row, figure
from tests.support.http import request
from tests.support.servers import serve
from tests.support.wheels import fetch_wheel

__all__ = ["run"]

_WHEELS = (
    ("numpy==2.0.2", "macosx_11_0_arm64", ("libscipy_openblas64_.dylib", "libgfortran.5.dylib", "_multiarray_umath.")),
    ("tokenizers==0.20.0", "macosx_11_0_arm64", ("tokenizers.",)),
    ("imagecodecs==2024.9.22", "macosx_11_0_arm64", ("libaom.",)),
    ("vllm-swift==0.6.2", "macosx_11_0_arm64", ("libVLLMBridge.dylib",)),
    ("pyobjc_core==13.0", "macosx_10_13_universal2", ("_objc.cpython",)),
)
"""The last one comes with its dSYM."""
_FRAMES = 10_000
_NEAR = 10
"""Addresses that lie within some hundred bytes: a profile has many of a function that takes time."""
_ARM = "arm64"


def run(scratch: Path) -> list[Row]:
    """Return the rate of frames: cold, as a profile has them, and all of them anywhere in code."""
    files = [
        file
        for name, platform, parts in _WHEELS
        for file in sorted(fetch_wheel(name, platform).rglob("*"))
        if file.is_file() and file.name.startswith(parts) and identify(file)
    ]
    with Library.open(scratch / "library", create=True) as library:
        ingest(library, stage_paths(files, scratch / "scratch"))
    images = {i.uuid: (file, i) for file in files for i in identify(file) if i.arch == _ARM and "dSYM" not in str(file)}
    generator = random.Random(1)
    sent = {
        name: [_body(list(images.values()), near, generator) for _ in range(2 * ROUNDS)]
        for name, near in (("near", _NEAR), ("anywhere", 1))
    }
    cold, rates = [], {name: list[float]() for name in sent}
    for number in range(ROUNDS):
        with serve(scratch / "library", scratch / f"server{number}") as server:
            cold.append(_timed(server.url, sent["near"][0]))
            for name, bodies in sent.items():
                before = cpu_seconds(server.process.pid)
                for body in bodies:
                    _timed(server.url, body)
                rates[name].append(len(bodies) * _FRAMES / (cpu_seconds(server.process.pid) - before))
    names = f"symbolicate over HTTP: {_FRAMES:,} frames in {len(images)} images"
    return [
        figure(f"{names}, cold", statistics.median(cold), "s", at_most=5),
        figure(names, statistics.median(rates["near"]), "frames/s and core", at_least=100_000),
        figure(f"{names}, each anywhere", statistics.median(rates["anywhere"]), "frames/s and core"),
    ]


def _body(images: list[tuple[Path, Slice]], near: int, generator: random.Random) -> bytes:
    """Return a request as the Firefox Profiler sends it: a job for each library, `near` addresses at each place."""
    jobs = []
    for file, image in images:
        with file.open("rb") as opened:
            opened.seek(image.offset)
            (text,) = (s for s in sections(opened.read(1 << 16), image.size) if s.sectname == "__text")
        places = [generator.randrange(text.size - 400) for _ in range(_FRAMES // len(images) // near)]
        offsets = [text.offset + place + generator.randrange(0, 400, 4) for place in places for _ in range(near)]
        assert image.uuid
        identity = image.uuid.hex.upper() + "0"
        jobs.append({"memoryMap": [[file.name, identity]], "stacks": [[[0, offset] for offset in offsets]]})
    return json.dumps({"jobs": jobs}).encode()


def _timed(url: str, body: bytes) -> float:
    start = time.perf_counter()
    answer = request(url, "/symbolicate/v5", method="POST", headers={"Content-Type": "text/plain"}, body=body)
    seconds = time.perf_counter() - start
    results = json.loads(answer.body)["results"]
    assert all(found for result in results for found in result["found_modules"].values())
    return seconds
