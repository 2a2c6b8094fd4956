"""An ingest that is killed at any moment loses nothing, shows nothing half-done, and another run completes it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

from symcache.images import ImageRequest
from symcache.library import Library, Subset, fsck, ingest
from tests.library.images import Image, harvest

KILLS = int(os.environ.get("SYMCACHE_TEST_KILLS", "12"))
IMAGES = 40
ROOT = Path(__file__).parents[2]

# Waits for the word before it starts, so that the delay to the kill is that of the ingest alone.
CHILD = """
import sys
from pathlib import Path
from symcache.library import Library, ingest
from tests.library.images import harvest
from tests.library.test_killed import release
number, library, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
staged = harvest(folder, release(number), build=f"22G{number}", raw=[("cache", 1000 + number, b"raw" * 300_000)])
print("ready", flush=True)
sys.stdin.readline()
with Library.open(library) as opened:
    assert ingest(opened, staged).sealed
print("done", flush=True)
"""


def release(number: int) -> list[Image]:
    """Return the images of one release: a few of them as in the one before."""
    own = [Image(f"/usr/lib/{n}", 1000 * (number + 1) + n, seed=number, size=30_000) for n in range(IMAGES - 5)]
    shared = [Image(f"/usr/lib/shared{n}", 500_000 + n, size=30_000) for n in range(5)]
    return own + shared


def _child(number: int, library: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(number), str(library), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def _check(library: Path, releases: set[int]) -> None:
    """Check that nothing is wrong and that every release that was ever complete still is."""
    with Library.open(library) as opened:
        report = fsck(opened, read=Subset())
        assert report.findings == []
        assert {f"22G{n}" for n in releases} <= {r.build for r in opened.releases() if r.sealed}
        for number in releases:
            for n in (0, IMAGES - 6):
                assert opened.resolve(ImageRequest(UUID(int=1000 * (number + 1) + n)))


def test_killed_at_random_points(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with Library.open(library, create=True) as opened:
        ingest(opened, harvest(tmp_path / "base", release(0), build="22G0"))
    whole = _child(1, library, tmp_path / "s1")
    _go(whole)
    start = time.monotonic()
    assert whole.communicate(timeout=120)[0] == "done\n"
    duration = time.monotonic() - start
    complete, killed = {0, 1}, 0
    chance = random.Random(20)
    children = {2: _child(2, library, tmp_path / "s2")}
    for number in range(2, KILLS + 2):
        # The next one gets ready meanwhile.
        children[number + 1] = _child(number + 1, library, tmp_path / f"s{number + 1}")
        process = children.pop(number)
        _go(process)
        pause = chance.random() * duration * 1.1
        time.sleep(pause)
        process.kill()
        output, _ = process.communicate(timeout=120)
        if output:
            complete.add(number)
            duration = min(duration, pause)  # the machine is less busy than it was
        else:
            killed += 1
            duration *= 1.05
        _check(library, complete)
        if chance.random() < 0.2:  # now and then the same one again, to its end
            again = _child(number, library, tmp_path / f"s{number}")
            _go(again)
            assert again.communicate(timeout=120)[0] == "done\n"
            complete.add(number)
            _check(library, complete)
    rest = children.pop(KILLS + 2)
    rest.kill()
    rest.communicate(timeout=120)
    assert killed >= KILLS // 3, "the kills came too late to mean anything"
