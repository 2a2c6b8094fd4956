"""Harvests that are killed at any moment: the next run goes on, and what it stores is whole."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from symcache.library import Library, Subset, fsck
from tests.bench.synthetic_release import build_release
from tests.support.openssh import OpenSshServer

KILLS = int(os.environ.get("SYMCACHE_TEST_HARVEST_KILLS", "0"))


def _start(server: OpenSshServer, root: Path, folder: Path) -> subprocess.Popen[str]:
    options = ["--identity", str(server.identity), "--host-key", server.fingerprint, "--json"]
    places = ["--library", str(folder / "library"), "--staging", str(folder / "staging")]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.Popen(
        [sys.executable, "-m", "symcache", "harvest", server.url(root), *options, *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return json.loads(output)


@pytest.mark.skipif(not KILLS, reason="SYMCACHE_TEST_HARVEST_KILLS is not set")
def test_killed_at_random_points(openssh: OpenSshServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    images = build_release(root, 0.02)
    start = time.monotonic()
    first = _finish(_start(openssh, root, tmp_path / "whole"))
    duration = time.monotonic() - start
    assert first["sealed"] and first["images"] == images
    chance, continued, killed = random.Random(23), 0, 0
    rounds = 0
    while killed < KILLS:
        rounds += 1
        folder = tmp_path / str(rounds)
        for _ in range(chance.choice((1, 2, 3))):
            process = _start(openssh, root, folder)
            time.sleep(chance.uniform(0.3, 1.0) * duration)
            killed += process.poll() is None
            # Now and then its children with it, as when a machine is switched off.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if chance.random() < 0.5 else process.kill()
            process.communicate()
        result = _finish(_start(openssh, root, folder))
        assert result["sealed"] and result["images"] == images
        continued += result["skipped"] > first["skipped"]  # which are what one harvest has twice
        assert not list((folder / "staging").iterdir())
        with Library.open(str(folder / "library")) as library:
            assert fsck(library, read=Subset()).findings == []
            assert [r.sealed for r in library.releases()] == [True]
            # Killed behind its record, it is there twice: with the same contents.
            contents = {(o.path, o.uuid, o.arch, o.sha256) for o in library.by_name("*")}
            assert len(contents) == len({content[:3] for content in contents})
        shutil.rmtree(folder)
    print(f"\n{killed} kills, {rounds} harvests whole after them, {continued} with what the killed ones had stored")
    assert continued >= rounds // 3
