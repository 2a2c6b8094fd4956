"""Silent and slow clients by the thousand, beside those that work: these notice nothing.

`SYMCACHE_TEST_CROWD_SECONDS` is how long (`make soak`); `SYMCACHE_TEST_CROWD` how many silent, slow and working ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import SHARED_UUID, Samples, uuid_of

SECONDS = os.environ.get("SYMCACHE_TEST_CROWD_SECONDS", "")
CROWD = os.environ.get("SYMCACHE_TEST_CROWD", "2000 200 1000").split()
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not SECONDS, reason="SYMCACHE_TEST_CROWD_SECONDS is not set")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="a network of its own cannot be made here")
def test_no_response_takes_a_second(samples: Samples, tmp_path: Path) -> None:
    files = {
        f"/buildid/{samples.uuid.hex}/executable": samples.dylib,
        f"/buildid/{samples.uuid.hex}/debuginfo": samples.dsym,
        f"/buildid/{SHARED_UUID.hex}/executable": samples.variants["23A344"],
        f"/build/22G120/buildid/{SHARED_UUID.hex}/executable": samples.variants["22G120"],
        f"/buildid/{uuid_of(samples.large).hex}/executable": samples.large,
    }
    command = [sys.executable, "-m", "tests.server.crowd", str(samples.library), str(tmp_path / "server"), SECONDS]
    run = subprocess.run(
        ["unshare", "--net", *command, *CROWD],
        cwd=ROOT,
        input=json.dumps({path: str(file) for path, file in files.items()}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures = json.loads(run.stdout)
    print(
        f"\n{CROWD[0]} silent clients, {CROWD[1]} slow ones, {CROWD[2]} working, {float(SECONDS):.0f} seconds:"
        f" {figures['responses']:,} responses, {figures['wrong']} wrong, {figures['over_a_second']} over 1 s;"
        f" median {figures['median'] * 1000:.0f} ms, 99.9 % within {figures['of_1000'] * 1000:.0f} ms, slowest"
        f" {figures['slowest'] * 1000:.0f} ms; the clients' own delay at most {figures['own_delay'] * 1000:.0f} ms;"
        f" connections closed: {figures['closed']}"
    )
    assert figures["wrong"] == 0
    assert figures["over_a_second"] == 0
    assert figures["stderr"] == ""
    # Each of them is closed after half a minute, and comes again.
    rounds = float(SECONDS) // 40
    assert figures["closed"]["silent"] >= rounds * int(CROWD[0])
    assert figures["closed"]["slow"] >= rounds * int(CROWD[1])
