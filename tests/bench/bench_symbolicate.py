"""Names of addresses: a report's worth in one process, with and without artifacts, and against llvm-symbolizer."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import numpy as np
import numpy.typing as npt

from symcache.macho import identify, text_address
from symcache.symbolicate import Content, ImageNames, NamesFolder
from tests.bench.harness import Row, compare, figure
from tests.support.wheels import fetch_wheel

_FRAMES, _LIMIT = 10_000, 4 << 30
_WHEELS = (
    ("pyqt6-charts-qt6==6.11.2", "macosx_11_0_arm64", ("QtCharts",)),
    ("ruff==0.4.4", "macosx_11_0_arm64", ("ruff",)),
    ("tokenizers==0.20.0", "macosx_11_0_arm64", ("tokenizers.cpython-312-darwin.so",)),
    ("pillow==11.0.0", "macosx_11_0_arm64", ("libharfbuzz.0.dylib", "libfreetype.6.dylib")),
    ("numpy==2.0.2", "macosx_11_0_arm64", ("libgfortran.5.dylib",)),
)
_Offsets = npt.NDArray[np.int64]


def _content(file: Path) -> Content:
    return Content(hashlib.sha256(file.read_bytes()).hexdigest(), lambda: os.open(file, os.O_RDONLY))


def _images() -> list[tuple[UUID, list[Content]]]:
    """Return seven images of one architecture, one of them with its dSYM."""
    images: list[tuple[UUID, list[Content]]] = []
    for requirement, platform, names in _WHEELS:
        tree = fetch_wheel(requirement, platform)
        for name in names:
            file = next(f for f in tree.rglob(name) if f.is_file() and identify(f))
            images.append((_uuid(file), [_content(file)]))
    dsym, binary = _with_dsym()
    return [*images, (_uuid(dsym), [_content(dsym), _content(binary)])]


def _with_dsym() -> tuple[Path, Path]:
    binary = fetch_wheel("pyobjc_core==13.0", "macosx_10_13_universal2") / "objc" / "_objc.cpython-312-darwin.so"
    return next((binary.with_name(f"{binary.name}.dSYM") / "Contents" / "Resources" / "DWARF").iterdir()), binary


def _uuid(file: Path) -> UUID:
    uuid = next(image.uuid for image in identify(file) if image.arch == "arm64")
    assert uuid
    return uuid


def _offsets(names: ImageNames, count: int) -> _Offsets:
    """Choose random offsets of which something is known."""
    end, random = 64 << 20, np.random.default_rng(3)
    known: list[int] = []
    while len(known) < count:
        candidates = random.integers(0, end, 4 * count)
        known = [o for o, found in zip(candidates.tolist(), names.look_up(candidates), strict=True) if found]
        end = end * 3 // 4  # the image ends before
    return np.array(known[:count])


def run(scratch: Path) -> list[Row]:
    """Return what 10,000 frames in seven images take, and how look-ups compare with those of llvm-symbolizer."""
    images = _images()
    warm = NamesFolder(scratch / "warm", _LIMIT)
    frames = [(image, _offsets(warm.open(*image), _FRAMES // len(images))) for image in images]

    def name_all(folder: NamesFolder) -> float:
        start = time.perf_counter()
        folder.build_small([(uuid, content) for uuid, contents in images for content in contents])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            opened = list(pool.map(lambda image: folder.open(*image), images))
        for names, (_, offsets) in zip(opened, frames, strict=True):
            names.look_up(offsets)
        return time.perf_counter() - start

    name_all(warm)
    warm_seconds = min(name_all(warm) for _ in range(3))
    cold_seconds = min(name_all(NamesFolder(scratch / f"cold-{n}", _LIMIT)) for n in range(3))
    return [
        figure("10,000 frames in 7 images, artifacts open", warm_seconds, "s", at_most=0.2),
        figure("10,000 frames in 7 images, artifacts to be made", cold_seconds, "s", at_most=1.5),
        _against_symbolizer(scratch),
        figure("memory of a process that names them", _memory(scratch / "warm"), "MB", at_most=500),
    ]


def _against_symbolizer(scratch: Path) -> Row:
    dsym, binary = _with_dsym()
    names = NamesFolder(scratch / "dsym", _LIMIT).open(_uuid(dsym), [_content(dsym), _content(binary)])
    offsets = _offsets(names, _FRAMES)
    base = text_address(binary.read_bytes()[next(i.offset for i in identify(binary) if i.arch == "arm64") :]) or 0
    command = ["llvm-symbolizer-19", f"--obj={dsym}", "--default-arch=arm64", "--inlines", "--output-style=JSON"]
    requests = "".join(f"{offset + base:#x}\n" for offset in offsets.tolist())
    symbolizer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask() -> None:
        """Send and receive in parts that fit into the pipes; the responses are read as JSON, as any client does."""
        assert symbolizer.stdin and symbolizer.stdout
        lines = requests.splitlines(keepends=True)
        for first in range(0, len(lines), 64):
            part = lines[first : first + 64]
            symbolizer.stdin.write("".join(part))
            symbolizer.stdin.flush()
            for _ in part:
                json.loads(symbolizer.stdout.readline())

    try:
        return compare(
            "look-ups with inlined calls and lines",
            lambda: names.look_up(offsets),
            "llvm-symbolizer",
            ask,
            amount=_FRAMES,
            unit="1/s",
            at_least=3,
        )
    finally:
        symbolizer.kill()
        symbolizer.communicate()


def _memory(folder: Path) -> float:
    """Return the most megabytes that a process had resident which named the frames from what is in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_symbolicate", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return float(done.stdout)


def _main() -> None:
    folder = NamesFolder(Path(sys.argv[1]), _LIMIT)
    for image in _images():
        names = folder.open(*image)
        names.look_up(_offsets(names, _FRAMES // 7))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1000 if sys.platform == "linux" else 1e6))


if __name__ == "__main__":
    _main()
