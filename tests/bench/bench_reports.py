"""A thousand crash reports of 300 frames, written with names by the command line: time and memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

from tests.bench.harness import Row, figure
from tests.support.servers import set_uuid
from tests.support.toolchain import compile_image

_IMAGES, _FUNCTIONS = 60, 4000
_REPORTS, _THREADS, _FRAMES = 1000, 20, 15
_BASE, _SPACING = 0x7FF8_0000_0000, 0x100_0000


def run(scratch: Path) -> list[Row]:
    """Return reports a minute with nothing read before, and what the process took of memory."""
    images = _images(scratch / "images")
    reports = _reports(scratch / "reports", images)
    out = scratch / "out"
    environment = {**os.environ, "SYMCACHE_CACHE_DIR": str(scratch / "cache"), "XDG_DATA_HOME": str(scratch / "none")}
    command = [sys.executable, "-m", "symcache", "symbolicate", "--symbols", str(scratch / "images"), "-o", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *map(str, reports)], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    frames = [
        frame
        for thread in json.loads((out / reports[-1].name).read_text().partition("\n")[2])["threads"]
        for frame in thread["frames"]
    ]
    assert process.returncode == 0
    assert sum(frame["symbol"].startswith("work") for frame in frames) == _THREADS * _FRAMES
    memory = usage.ru_maxrss / (1000 if sys.platform == "linux" else 1e6)
    return [
        figure(f"reports of 300 frames in {_IMAGES} images, named", _REPORTS / seconds * 60, "1/min", at_least=1000),
        figure("memory of the process that names them", memory, "MB", at_most=500),
    ]


def _images(folder: Path) -> dict[Path, UUID]:
    body = "\n".join(
        f"__attribute__((noinline)) int work{n}(int x) {{ return x * {n} + 1; }}" for n in range(_FUNCTIONS)
    )
    original = compile_image(folder, "lib.dylib", body)
    files = {}
    for number in range(_IMAGES):
        file = folder / f"libbench{number}.dylib"
        shutil.copyfile(original, file)
        set_uuid(file, uuid := UUID(int=(0xBE << 120) + number + 1, version=4))
        files[file] = uuid
    return files


def _reports(folder: Path, images: dict[Path, UUID]) -> list[Path]:
    folder.mkdir()
    one = next(iter(images))
    text = subprocess.run(["llvm-nm-19", "-U", str(one)], capture_output=True, text=True, check=True).stdout
    starts = [int(line.split()[0], 16) for line in text.splitlines() if "_work" in line]
    listed = [
        {"base": _BASE + n * _SPACING, "size": one.stat().st_size, "uuid": str(uuid), "path": f"/usr/lib/{file.name}"}
        for n, (file, uuid) in enumerate(images.items())
    ]
    chance = random.Random(7)
    paths = []
    for number in range(_REPORTS):
        threads = [
            {
                "id": thread,
                "frames": [
                    {"imageOffset": chance.choice(starts) + 2, "imageIndex": chance.randrange(_IMAGES)}
                    for _ in range(_FRAMES)
                ],
            }
            for thread in range(_THREADS)
        ]
        body = {"cpuType": "X86-64", "procName": "bench", "usedImages": listed, "threads": threads}
        path = folder / f"bench-{number}.ips"
        path.write_text('{"app_name":"bench","bug_type":"309"}\n' + json.dumps(body, separators=(",", " : ")))
        paths.append(path)
    return paths
