"""A dump of 600 modules of real sizes over a home's line: what is fetched, and how soon the backtrace is there.

A tenth of the modules is on the stacks of its twenty threads: most as frames, some as words that functions left there.
The peer, for the open that finds everything in its cache, is LLDB alone with all files on disk and the same switches.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

from symcache.library import Library, Staged, StagedObject, ingest
from symcache.model import Trust
from tests.bench.bench_dump import PEER
from tests.bench.harness import Row, compare, figure
from tests.bench.slow_link import slow_link
from tests.dump.builder import CoreFile, Module, Region, header, write_dump, x86_thread
from tests.support.servers import serve, set_uuid
from tests.support.toolchain import compile_image

_RATE, _ROUND_TRIP = 20e6 / 8, 0.04
_SIZES = ((60_000, 150), (150_000, 130), (300_000, 140), (600_000, 100), (2_000_000, 70), (20_000_000, 10))
"""Bytes, and how many modules have so many."""
_BASE, _SPACING, _STACKS = 0x7FF8_0000_0000, 0x200_0000, 0x7FF7_0000_0000
_FUNCTIONS, _THREADS, _STACK = 300, 20, 0x8_0000
_FRAMES = 40
"""Of the crashed thread, each in a module of its own; those of the other threads are in some of these."""
_LEFT = 20
"""Modules that only a word which a function left on a stack points into."""


def run(scratch: Path) -> list[Row]:
    """Return bytes, seconds to the first backtrace, and opens a second with a warm cache."""
    files = _images(scratch / "images")
    with Library.open(scratch / "library", create=True) as library:
        objects = [
            StagedObject(file, 0, file.stat().st_size, f"/usr/lib/{file.name}", "x86_64", uuid)
            for file, uuid in files.items()
        ]
        assert not ingest(library, Staged(None, "bench", trust=Trust.ADDED, objects=objects)).problems
    dump, core, on_stacks = _dump(scratch, files)
    size = sum(file.stat().st_size for file in on_stacks)
    plan = scratch / "plan.json"
    modules = [[str(f), _BASE + n * _SPACING] for n, f in enumerate(files)]
    plan.write_text(json.dumps({"core": str(core), "frames": _FRAMES, "modules": modules}))
    (scratch / "peer.py").write_text(PEER)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SYMCACHE_", "DEBUGINFOD_"))},
        "XDG_DATA_HOME": str(scratch / "nobody"),
        "SYMCACHE_CACHE_DIR": str(scratch / "cache"),
    }
    with (
        serve(scratch / "library", scratch / "server") as server,
        slow_link(server.url, rate=_RATE, round_trip=_ROUND_TRIP) as slow,
    ):

        def ours() -> None:
            done = subprocess.run(
                [sys.executable, "-m", "symcache", "open", str(dump), "--server", slow],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            assert done.stderr == "", done.stderr
            assert done.stdout.count("frame #") == done.stdout.count("`work") == _FRAMES

        def peer() -> None:
            command = [sys.executable, "-I", str(scratch / "peer.py"), str(plan), "frugal"]
            subprocess.run(command, check=True)

        start = time.perf_counter()
        ours()
        seconds, received = time.perf_counter() - start, slow.received()
        name = f"a dump of {len(files)} modules at 20 Mbit/s"
        every = sum(file.stat().st_size for file in files)
        return [
            figure(f"{name}: modules on stacks, of {every / 1e6:.0f} MB", size / 1e6, "MB"),
            figure(f"{name}: received, to those on stacks", received / size, "times", at_most=1.2),
            figure(f"{name}: first backtrace", seconds, "s"),
            figure(f"{name}: first backtrace, less the transfer", seconds - size / _RATE, "s", at_most=5),
            compare(
                *(f"{name}: open it again", ours, "LLDB, same switches", peer),
                amount=1.0,
                unit="dumps/s",
                at_least=1 / 1.5,
            ),
        ]


def _images(folder: Path) -> dict[Path, UUID]:
    """Return dylibs in no order of their sizes, and their UUIDs; what is no code compresses to nothing less."""
    body = "".join(
        f"__attribute__((noinline)) int work{n}(int x) {{ return x * {n} + 1; }}\n" for n in range(_FUNCTIONS)
    )
    body += f"int all(int x) {{ return {' + '.join(f'work{n}(x)' for n in range(0, _FUNCTIONS, 16))}; }}\n"
    folder.mkdir()
    originals: list[Path] = []
    for size, count in _SIZES:
        noise = folder / f"noise{size}"
        noise.write_bytes(random.Random(size).randbytes(size - 40_000))
        data = f'__asm__(".section __DATA,__noise\\n.incbin \\"{noise}\\"\\n.text");\n'
        image = compile_image(folder / str(size), "lib.dylib", body + data)
        subprocess.run(["llvm-strip-19", "-S", str(image)], check=True)
        originals += [image] * count
    random.Random(1).shuffle(originals)
    files = {}
    for number, original in enumerate(originals):
        file = folder / f"libbench{number}.dylib"
        shutil.copyfile(original, file)
        set_uuid(file, uuid := UUID(int=(0xBE << 120) + number + 1, version=4))
        files[file] = uuid
    return files


def _dump(scratch: Path, files: dict[Path, UUID]) -> tuple[Path, Path, list[Path]]:
    """Return a dump, its core alone, and the files of the modules that its stacks point into."""
    paths = list(files)
    text = subprocess.run(["llvm-nm-19", "-U", str(paths[0])], capture_output=True, text=True, check=True).stdout
    inside = {line.split()[2]: int(line.split()[0], 16) for line in text.splitlines()}["_work100"] + 4
    bases = [_BASE + n * _SPACING for n in range(len(paths))]
    chosen = random.Random(2).sample(range(len(paths)), _FRAMES + _LEFT)
    framed, left = chosen[:_FRAMES], chosen[_FRAMES:]
    regions, threads = [], []
    for number in range(_THREADS):
        address, stack = _STACKS + number * 2 * _STACK, bytearray(_STACK)
        chain = framed if not number else random.Random(number).choices(framed, k=12)
        top = _STACK // 2  # below it lies what was there before, which points everywhere
        struct.pack_into(f"<{len(bases)}Q", stack, 0, *(base + inside for base in bases))
        for depth, module in enumerate([*chain[1:], None]):
            place = top + 0x40 * depth
            link = 0 if module is None else bases[module] + inside
            struct.pack_into("<2Q", stack, place, 0 if module is None else address + place + 0x40, link)
            struct.pack_into("<Q", stack, place + 0x10, bases[left[(number * 7 + depth) % _LEFT]] + inside)
        frame = address + top
        threads.append(
            x86_thread((14, 6, 0x10) if not number else None, rip=bases[chain[0]] + inside, rbp=frame, rsp=frame)
        )
        regions.append(Region(address, _STACK, bytes(stack), 3))
    regions += [Region(base, 0x8000) for base in bases]
    core = scratch / "core"
    core.write_bytes(CoreFile(regions=regions, threads=threads).bytes())
    modules = [Module(b, f"/usr/lib/{f.name}", u.hex) for b, (f, u) in zip(bases, files.items(), strict=True)]
    dump = write_dump(scratch / "crash.zip", header(modules, executable="libbench0.dylib"), core.read_bytes())
    return dump, core, [paths[n] for n in chosen]
